"""What trials say of a method: each line compares a number with what exact samples have.

Exact samples and their truth are exchangeable given y, and trials are independent. So of every
function the rank of the truth is uniform. And a number of a truth among samples, such as its
distance to them, is as good as that of any sample in the truth's place: its sum over trials is
compared with that of members chosen at random, 4000 times. Neither supposes anything of the law of
the numbers, or of how they depend on each other within a trial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from posteriori.evaluation.rank_tests import (
    STRICT,
    found_below,
    histogram,
    inside_share,
    leaning,
    standard_error,
    uniform,
    verdict,
)
from posteriori.examination import Finding
from posteriori.trials.functions import FUNCTION_GROUPS
from posteriori.trials.scored import RANK_LEVELS

# Fewer trials show hardly anything; see found_below.
FEWEST_TRIALS = 10
# A line is called wrong in less than this share of exact samplers, all its groups together.
FALSE_ALARM = 0.005
SOUND_WORDS = "no fault found"
# Random choices of a member of each trial.
EXCHANGES = 4000


def diagnose(records: Sequence[dict[str, Any]], samples: int) -> tuple[Finding, ...]:
    """The lines of trials, each as ``scored_trial`` gives it; samples: that truths were ranked
    among. Raises ``ValueError`` for fewer than 10."""
    if len(records) < FEWEST_TRIALS:
        raise ValueError(
            f"{len(records)} trials tell nothing of calibration: take at least {FEWEST_TRIALS}"
        )
    ranks = torch.tensor([record["ranks"] for record in records])
    plain = {name: at for name, at in FUNCTION_GROUPS.items() if name != "tarp"}
    return (
        _ranks_line("ranks", {name: ranks[:, at] for name, at in plain.items()}, samples),
        _coverage_line(records, {name: ranks[:, at] for name, at in plain.items()}, samples),
        _ranks_line("tarp", {"distances": ranks[:, FUNCTION_GROUPS["tarp"]]}, samples),
        _crps_line(records),
        _spread_line(records),
    )


def _ranks_line(name: str, groups: dict[str, Tensor], n: int) -> Finding:
    """The smallest p-value of any function, times their number: of uniform ranks in ten bins, and
    of the mean rank n / 2, two p-values for each."""
    functions = {
        (group, k): column for group, table in groups.items() for k, column in enumerate(table.T)
    }
    p = {key: _rank_p(column, n) for key, column in functions.items()}
    worst = min(p, key=lambda key: p[key])
    together = min(1.0, 2 * len(p) * p[worst])
    column = functions[worst]
    where = ("from the prior", "from a sample")[worst[1]] if name == "tarp" else worst[0]
    mean = float(column.double().mean()) / n
    edges = float(((column == 0) | (column == n)).double().mean())
    bad = together < FALSE_ALARM
    value = (
        f"p {together:.2g}; worst {where}: mean rank {mean:.2f} n, at an end {100 * edges:.0f} %"
    )
    remedy = (_distance_words if name == "tarp" else _rank_words)(mean, edges, n) if bad else ""
    return Finding(
        name,
        "fail" if bad else "pass",
        value,
        f"p at least {FALSE_ALARM:g}; 0.5 n, {200 / (n + 1):.0f} %",
        remedy,
    )


def _rank_p(column: Tensor, n: int) -> float:
    z = float(column.double().mean() - n / 2) / math.sqrt(n * (n + 2) / 12 / len(column))
    return min(uniform(histogram(column[:, None], n)[0]), math.erfc(abs(z) / math.sqrt(2)))


def _rank_words(mean: float, edges: float, n: int) -> str:
    if abs(mean - 0.5) > 0.12:
        return "the truth lies to one side of the samples: they are off-centre, or miss a mode"
    if edges > 3 / (n + 1):
        return "the truth lies beyond the samples too often: they are too sure"
    return "the truth is not like one of the samples"


def _distance_words(mean: float, edges: float, n: int) -> str:
    if mean < 0.5 and edges < 4 / (n + 1):
        return "the truth is nearer to an image than the samples are: they are too wide"
    return "the truth is farther away than the samples: too sure, off-centre, or a mode is missing"


def _coverage_line(records: Sequence[dict[str, Any]], groups: dict[str, Tensor], n: int) -> Finding:
    """Intervals of functions, and of all numbers of the image."""
    said, shown = [], []
    levels = [level for level in RANK_LEVELS if f"inside_{level}" in records[0]["members"]]
    for level in levels:
        found = exchanged(_members(records, f"inside_{level}"))
        if level == 80:
            shown.append(("numbers", found.mean))
        if found.p * len(levels) < FALSE_ALARM:
            kind = "over-confident" if found.z < 0 else "under-confident"
            said.append(f"{kind}: numbers at {level} %")
    for name, table in groups.items():
        z = []
        for level in levels:
            shares = inside_share(table, n, level)
            assert shares is not None  # the samples can state these levels
            z.append(
                (float(shares.mean()) - level / 100) / standard_error(shares, level, table.shape[1])
            )
            if level == 80:
                shown.append((name, float(shares.mean())))
        found_in = verdict(z, 1.0, leaning(table, n))
        if found_in != SOUND_WORDS:
            said.append(f"{found_in}: {name}")
    worst = max(shown, key=lambda item: abs(item[1] - 0.8))
    blind = 100 * found_below(len(records))
    return Finding(
        "coverage",
        "fail" if said else "pass",
        f"80 % intervals hold {100 * shown[0][1]:.0f} % of the numbers, "
        f"{100 * worst[1]:.0f} % ({worst[0]}) at worst",
        f"within {STRICT:g} standard errors; {len(records)} trials find less than {blind:.0f} %",
        "; ".join(said),
    )


def _crps_line(records: Sequence[dict[str, Any]]) -> Finding:
    """CRPS is the mean distance to the samples, less half that of two of them."""
    found = exchanged(_members(records, "distance"))
    score = sum(record["crps"] for record in records) / len(records)
    return _exchanged_line(
        "crps", found, f"{score:.3g}; distance to the samples {found.mean:.2f} times theirs"
    )


def _spread_line(records: Sequence[dict[str, Any]]) -> Finding:
    found = exchanged(_members(records, "error"))
    spread, error = (sum(record[key] for record in records) for key in ("spread", "error"))
    ratio = math.sqrt(spread / max(error, 1e-300))
    return _exchanged_line(
        "spread-skill",
        found,
        f"{ratio:.2f}; squared distance to the mean {found.mean:.2f} times theirs",
    )


def _exchanged_line(name: str, found: Exchanged, value: str) -> Finding:
    bad, far = found.p < FALSE_ALARM, found.z > 0
    remedy = (
        "the truth is farther from the samples than they are from each other: they are too sure, "
        "off-centre, or miss a mode"
        if far
        else "the truth is nearer to the samples than they are to each other: they are too wide"
    )
    return Finding(
        name,
        "fail" if bad else "pass",
        f"{value} (p {found.p:.2g})",
        f"1 time; p at least {FALSE_ALARM:g}",
        remedy if bad else "",
    )


class Exchanged(NamedTuple):
    """mean: over trials, of the truth's number. expected: of all members'. z: their distance in
    standard deviations of a mean of members chosen at random. p: two-sided."""

    mean: float
    expected: float
    z: float
    p: float


def exchanged(members: Tensor) -> Exchanged:
    """Whether the first of each row of (N, m + 1) numbers is like the others, by permutations: of
    exchangeable numbers p is below any share a at most with probability a."""
    count, choices = members.shape
    g = torch.Generator().manual_seed(0)
    picks = torch.randint(choices, (count, EXCHANGES), generator=g)
    means, mean = members.gather(1, picks).mean(0), float(members[:, 0].mean())
    slack = 1e-12 * float(members.abs().max())
    above = int((means >= mean - slack).sum())
    below = int((means <= mean + slack).sum())
    p = min(1.0, 2 * (1 + min(above, below)) / (1 + EXCHANGES))
    expected, scatter = float(members.mean()), float(means.std())
    return Exchanged(mean, expected, (mean - expected) / max(scatter, 1e-300), p)


def _members(records: Sequence[dict[str, Any]], name: str) -> Tensor:
    return torch.tensor([record["members"][name] for record in records], dtype=torch.float64)
