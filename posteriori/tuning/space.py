"""The one list of what is searched: of each method a few settings, and the numbers of levels.

A method's list begins with its defaults at 32 levels, as a problem file without steps has them;
then come the defaults at other numbers, the settings, and the published preset along the levels of
its paper. The candidates of a problem are the first of each list, then the second of each, and so
on, methods that are recommended for its kind first: whatever a budget ends, every method has had
its turn before any has had two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from posteriori import methods
from posteriori.likelihood import Posterior
from posteriori.methods.base import Method
from posteriori.problem_file.advice import rivals
from posteriori.problem_file.entries import Entry, entries, read_entries
from posteriori.problem_file.file import USUAL_STEPS
from posteriori.problem_file.own import is_path
from posteriori.settings import suggestion

# Numbers of levels beside the usual one.
LEVELS = (16, 64, 8)
# Settings beside the defaults. A method that is not here has its defaults only.
SPACES: dict[str, tuple[dict[str, Any], ...]] = {
    "MMPS": ({"iterations": 2}, {"transition": {"name": "DDIM", "eta": 1.0}}),
    "DPS": ({"scale": 0.3}, {"scale": 3.0}, {"weighting": "norm"}),
    "DiffPIR": ({"lam": 0.3}, {"lam": 3.0}, {"transition": {"name": "DDIM", "eta": 0.0}}),
    "DAPS": ({"centre": "ode"}, {"width": "matched"}, {"width": "sigma"}),
    "PiGDM": ({"weighting": "paper"},),
    "DDRM": ({"eta": 1.0}, {"eta": 0.6}),
    "DDNM": ({"eta": 1.0}, {"eta": 0.6}),
    "PnPDM": ({"prior_steps": 4}, {"prior_steps": 10}),
    "REDDiff": ({"lam": 0.3}, {"lam": 3.0}),
    "DMPS": ({"scale": 0.5}, {"scale": 2.0}),
    "FreeDoM": ({"scale": 0.3}, {"scale": 3.0}, {"repeats": 1}),
    "DDS": ({"scale": 0.5}, {"iterations": 10}),
    "DCPnPDP": ({"lam": 0.3}, {"lam": 3.0}),
    "DCDP": ({"inner": 30},),
    "SITCOM": ({"inner": 30},),
    "MGPS": ({"inner": 5},),
    "FlowDPS": ({"scale": 0.3}, {"scale": 3.0}),
    "LGDMC": ({"scale": 0.3}, {"scale": 3.0}),
    "TDS": ({"particles": 16},),
    "MCGDiff": ({"particles": 16}, {"particles": 256}),
    "FPS": ({"particles": 64},),
    "MomentSMC": ({"particles": 64},),
}
# Rooms whose methods are for problems of another kind, or ignore y: they are searched where a list
# names them.
OTHER_ROOMS = ("prior", "blind", "volume", "adaptive", "latent")
# A fit of a network for each measurement, and one tuned by hand to sparse counts: minutes each.
SLOW = ("ScorePriorVI", "CBG", "EnKG")


@dataclass(frozen=True)
class Candidate:
    """An entry as a problem file's list of methods has it, and what it makes."""

    raw: dict[str, Any]
    entry: Entry

    @property
    def label(self) -> str:
        return self.entry.label

    @property
    def method(self) -> Method[Any]:
        return self.entry.method

    @property
    def steps(self) -> int | None:
        return self.entry.steps

    @property
    def preset(self) -> bool:
        return "preset" in self.raw


def candidates(post: Posterior, only: Iterable[Any] = ()) -> list[Candidate]:
    """What is tried on a posterior, in the order in which it is tried; methods that refuse it are
    left out.

    only: names of methods, each for its list, and entries with settings, such as
    "DPS(scale=0.5, steps=16)" or {"name": "DPS", "scale": 0.5}, each for itself; to search these
    alone. Raises ``ValueError`` for an unknown name or setting, and where none accepts the
    posterior.
    """
    lists = [
        [one for one in some if one.method.refuses(post) is None] for some in _asked(post, only)
    ]
    found = [one for wave in zip_longest(*lists) for one in wave if one is not None]
    if not found:
        names = ", ".join(some[0].label for some in _asked(post, only))
        raise ValueError(f"none of these methods takes the problem: {names}")
    twice = [one.label for k, one in enumerate(found) if one.label in _labels(found[:k])]
    if twice:
        raise ValueError(f"methods: {twice[0]} is there twice; leave one out")
    return found


def _labels(found: Iterable[Candidate]) -> set[str]:
    return {one.label for one in found}


def _asked(post: Posterior, only: Iterable[Any]) -> list[list[Candidate]]:
    """A list of candidates for each name or entry; by default for each usual method."""
    asked: list[Any] = []
    for item in only or _usual(post):
        asked += read_entries([item]) if isinstance(item, str) else [item]
    names = [item if isinstance(item, str) else item["name"] for item in asked]
    unknown = [name for name in names if name not in methods.ALL and not is_path(name)]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}; {suggestion(unknown[0], methods.ALL)}")
    plain = [item if isinstance(item, str) else None for item in asked]
    return [
        [_made(raw) for raw in (listed(name) if name in methods.ALL else [{"name": name}])]
        if name is not None
        else [_made(item)]
        for name, item in zip(plain, asked, strict=True)
    ]


def listed(name: str) -> list[dict[str, Any]]:
    """The entries of a method, in their order."""
    usual = {"name": name, "steps": USUAL_STEPS}
    out = [usual, *({"name": name, "steps": steps} for steps in LEVELS)]
    out += [usual | settings for settings in SPACES.get(name, ())]
    if hasattr(methods.ALL[name], "published"):
        out.append({"name": name, "preset": "published"})
    return out


def refused(post: Posterior, only: Iterable[Any] = ()) -> dict[str, str]:
    """The reason of each method that refuses a posterior, by its name or entry."""
    reasons = {}
    for some in _asked(post, only):
        reason = some[0].method.refuses(post)
        if reason is not None:
            reasons[some[0].raw["name"]] = reason
    return reasons


def _usual(post: Posterior) -> list[str]:
    first = [raw["name"] if isinstance(raw, dict) else raw for raw in rivals(post)]
    rest = [*SPACES, *methods.ALL]
    # A cloud for a few samples takes many calls: after the others.
    rest.sort(key=lambda name: methods.ALL[name]().group > 1)
    names = dict.fromkeys([*first, *rest])
    return [
        name
        for name in names
        if name in first or (methods.ALL[name].family not in OTHER_ROOMS and name not in SLOW)
    ]


def _made(raw: dict[str, Any]) -> Candidate:
    (entry,) = entries([raw])
    return Candidate(raw, entry)
