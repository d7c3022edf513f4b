"""What a search has found: every candidate's scores, the front of score against cost, the choice,
and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from posteriori.methods.base import Method
from posteriori.methods.courses import steps_of
from posteriori.problem_file.file import USUAL_STEPS
from posteriori.tuning.scores import SCORE_NAMES, ScoreName
from posteriori.tuning.space import Candidate

Blocks = Sequence[dict[str, Any]]
BOOTSTRAPS = 4000


@dataclass(frozen=True)
class Scored:
    """One candidate. score: its mean, estimated on all trials of the choice by its difference to it
    on the trials that both have seen, ``error`` being the standard error of that difference. calls,
    seconds: a sample. front: whether no other has a better score for as few calls."""

    candidate: Candidate
    trials: int
    score: float
    error: float
    means: dict[str, float | None]
    calls: float
    seconds: float
    front: bool = False

    @property
    def label(self) -> str:
        return self.candidate.label

    @property
    def steps(self) -> int:
        return steps_of(self.candidate.method, self.candidate.steps, USUAL_STEPS)

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        plain = {key: value for key, value in vars(self).items() if key != "candidate"}
        return plain | {"label": self.label, "entry": self.candidate.raw, "steps": self.steps}


class Sureness(NamedTuple):
    """Of the choice against the runner-up: the mean difference of their scores on the ``trials``
    both have seen, its standard error, and in which share of bootstrap samples of these trials the
    choice is the best of the ``finalists``."""

    runner_up: str
    difference: float
    error: float
    share: float
    trials: int
    finalists: int


@dataclass(frozen=True)
class Tuning:
    """scored: best first. failed, not_tried, refused: labels, or names, and why. spent: calls and
    seconds of the search."""

    metric: ScoreName
    scored: tuple[Scored, ...]
    sureness: Sureness | None
    failed: Mapping[str, str]
    not_tried: Mapping[str, str]
    refused: Mapping[str, str]
    spent: Mapping[str, float]
    n: int
    seed: int

    @property
    def choice(self) -> Scored | None:
        """The best, None where no candidate could be scored."""
        return self.scored[0] if self.scored else None

    @property
    def method(self) -> Method[Any]:
        """That of the choice. Raises ``ValueError`` where there is none."""
        if self.choice is None:
            raise ValueError("no candidate could be scored, so that there is no choice")
        return self.choice.candidate.method

    @property
    def steps(self) -> int:
        """Those of the choice. Raises as ``method``."""
        assert self.method is not None
        return self.scored[0].steps

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "metric": self.metric,
            "choice": None if self.choice is None else self.choice.record(),
            "sureness": None if self.sureness is None else self.sureness._asdict(),
            "candidates": [one.record() for one in self.scored],
            "failed": dict(self.failed),
            "not_tried": dict(self.not_tried),
            "refused": dict(self.refused),
            "spent": dict(self.spent),
            "n": self.n,
            "seed": self.seed,
        }

    def __str__(self) -> str:
        return "\n".join([tuning_table(self.scored, self.metric), "", *self.sentences()])

    def sentences(self) -> list[str]:
        """The choice, how sure it is, and what was left out."""
        out = []
        if self.choice is not None:
            out.append(f"chosen: {self.choice.label}, {self.choice.trials} truths")
        if self.sureness is not None:
            s = self.sureness
            out.append(
                f"better than {s.runner_up} by {s.difference:.3g} +- {s.error:.2g} "
                f"({SCORE_NAMES[self.metric]}, {s.trials} truths); the best of {s.finalists} "
                f"finalists in {100 * s.share:.0f} % of bootstrap samples"
            )
        elif self.choice is not None:
            out.append("no other candidate was scored, so that nothing says how sure this is")
        out.append(
            f"spent: {self.spent['calls']:.3g} passes through the network, "
            f"{self.spent['seconds']:.3g} s"
        )
        for word, what in (("failed", self.failed), ("not tried", self.not_tried)):
            if what:
                out.append(f"{word}: {len(what)} ({'; '.join(_reasons(what))})")
        return out


def _reasons(what: Mapping[str, str]) -> list[str]:
    """Labels by their reason, each reason once."""
    by: dict[str, list[str]] = {}
    for label, why in what.items():
        by.setdefault(" ".join(why.split())[:160], []).append(label)
    return [f"{', '.join(labels)}: {why}" for why, labels in by.items()]


def tuning_table(scored: Sequence[Scored], metric: ScoreName) -> str:
    """Markdown, best first; a star is on the front of score against calls."""
    rows = [
        f"| candidate | {SCORE_NAMES[metric]} | energy | CRPS | in 80 % | chi-square | PSNR "
        "| calls | ms a sample | truths | front |",
        "|---" * 11 + "|",
    ]
    for one in scored:
        told = [f"{one.score:.4g} +- {one.error:.2g}" if one.error else f"{one.score:.4g}"]
        told += [
            "" if one.means[key] is None else f"{one.means[key]:.3g}"
            for key in ("energy", "crps", "inside", "chi2", "psnr")
        ]
        told += [f"{one.calls:.3g}", f"{1000 * one.seconds:.3g}", f"{one.trials}"]
        rows.append(f"| {one.label} | {' | '.join(told)} | {'*' if one.front else ''} |")
    return "\n".join(rows)


def losses(blocks: Blocks, metric: ScoreName) -> Tensor:
    """The score of every trial, (N,) float64, less being better."""
    values = [value for block in blocks for value in block[metric]]
    sign = -1.0 if metric == "psnr" else 1.0
    return sign * torch.tensor(values, dtype=torch.float64)


def ranked(kept: Mapping[str, Blocks], metric: ScoreName) -> list[str]:
    """Labels, best first: those that have seen more trials before others, since these lost against
    them; of the most trials that at least two have seen."""
    depths = sorted((len(blocks) for blocks in kept.values()), reverse=True)
    common = depths[1] if len(depths) > 1 else depths[0]

    def place(label: str) -> tuple[int, float]:
        seen = kept[label][:common]
        return -len(seen), float(losses(seen, metric).mean())

    return sorted(kept, key=place)


def how_sure(kept: Mapping[str, Blocks], order: Sequence[str], metric: ScoreName) -> Sureness:
    """Of the first of ``order`` against the second; see ``Sureness``."""
    depth = min(len(kept[order[0]]), len(kept[order[1]]))
    finalists = [label for label in order if len(kept[label]) >= depth]
    table = torch.stack([losses(kept[label][:depth], metric) for label in finalists])
    gap = table[1] - table[0]
    picks = torch.randint(
        table.shape[1], (BOOTSTRAPS, table.shape[1]), generator=torch.Generator().manual_seed(0)
    )
    means = torch.stack([row[picks].mean(1) for row in table])
    return Sureness(
        order[1],
        float(gap.mean()),
        standard_error_of(gap),
        float((means.argmin(0) == 0).double().mean()),
        table.shape[1],
        len(finalists),
    )


def standard_error_of(gap: Tensor) -> float:
    return float(gap.std()) / len(gap) ** 0.5 if len(gap) > 1 else 0.0


def told(
    kept: Mapping[str, Blocks], known: Mapping[str, Candidate], metric: ScoreName
) -> tuple[Scored, ...]:
    """Every candidate that has scores, best first."""
    if not kept:
        return ()
    order = ranked(kept, metric)
    best = losses(kept[order[0]], metric)
    sign = -1.0 if metric == "psnr" else 1.0
    out = []
    for label in order:
        mine = losses(kept[label], metric)
        both = min(len(mine), len(best))
        gap = mine[:both] - best[:both]
        out.append(
            Scored(
                known[label],
                len(mine),
                sign * float(best.mean() + gap.mean()),
                standard_error_of(gap),
                {key: _mean(kept[label], key) for key in _MEANS},
                _cost(kept[label], "network"),
                _cost(kept[label], "seconds"),
            )
        )
    return tuple(_with_front(out, sign))


_MEANS = ("energy", "crps", "inside", "chi2", "psnr", "lpips")


def _with_front(scored: Sequence[Scored], sign: float) -> list[Scored]:
    front = [
        not any(
            (sign * other.score, other.calls) != (sign * one.score, one.calls)
            and sign * other.score <= sign * one.score
            and other.calls <= one.calls
            for other in scored
        )
        for one in scored
    ]
    return [
        Scored(**{**vars(one), "front": is_front})
        for one, is_front in zip(scored, front, strict=True)
    ]


def _mean(blocks: Blocks, key: str) -> float | None:
    values = [value for block in blocks for value in block[key]]
    return None if any(value is None for value in values) else sum(values) / len(values)


def _cost(blocks: Blocks, key: str) -> float:
    """Weighted by trials."""
    sizes = [len(block["energy"]) for block in blocks]
    costs = (size * block[key] for size, block in zip(sizes, blocks, strict=True))
    return float(sum(costs) / sum(sizes))
