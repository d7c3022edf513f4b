"""Successive halving on common random numbers, under a budget.

Round r scores candidates on a block of truths, of which round 0 has 4, round 1 another 4, round 2
another 8, and so on, each as many as all before. The better half goes on. Every candidate meets the
same truths, the same noise and the same seeds, so that differences scatter less than scores.

A cell, one candidate on one block, is begun only while budget is left, and as much as it is known
to take; round 0 leaves half of it to the others. So the budget is exceeded by one cell at most, the
first of a method. Where a cell cannot be paid for, its round is over: candidates that went on
without a better one would have met no rival. What is decided depends on the cells' own records
alone: a search that was killed goes on to the choice that it would have made, to the bit where the
budget is in calls, and up to the timing of what is left where it is in seconds.

Source: Jamieson, Talwalkar, Non-stochastic best arm identification and hyperparameter optimization,
2016.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posteriori.evaluation.images import lpips
from posteriori.identity import changes
from posteriori.likelihood import Posterior
from posteriori.methods.courses import steps_of
from posteriori.problem_file.file import USUAL_STEPS
from posteriori.progress import Progress
from posteriori.run import locked, read_json, write_json
from posteriori.settings import suggestion
from posteriori.trials import Trial, simulated_trials
from posteriori.trials.simulated import TRUTH_STEPS
from posteriori.tuning.outcome import Tuning, how_sure, ranked, told
from posteriori.tuning.scores import SCORE_NAMES, ScoreName, score_block
from posteriori.tuning.space import Candidate, candidates, refused

SEARCH_RECORD = "tuning.json"
FIRST, MOST = 4, 256
# Of the budget, for the first round.
SHARE = 0.5
# Seeds of one block are this far from those of the next.
_APART = 10**6
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Budget:
    """seconds, or passes through the network (denoiser calls and vector-Jacobian products, rows
    counted one by one), that a search may take; both: whatever ends first."""

    seconds: float | None = None
    calls: float | None = None

    def __post_init__(self) -> None:
        if self.seconds is None and self.calls is None:
            raise ValueError("a search needs a budget: seconds such as '2m', or calls")
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"budget: {name} must be greater than 0, got {value!r}")

    @classmethod
    def read(cls, text: str | float | None, calls: float | None = None) -> Budget:
        """'90s', '2m', '1.5h', or seconds. Raises ``ValueError`` for any other text."""
        if text is None or not isinstance(text, str):
            return cls(text, calls)
        found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([smh]?)\s*", text)
        if found is None:
            raise ValueError(f"budget {text!r}: expected a duration such as 90s, 2m or 1.5h")
        return cls(float(found[1]) * UNITS[found[2] or "s"], calls)

    def share(self, spent: dict[str, float]) -> float:
        """The part of it that is spent."""
        parts = (spent[name] / value for name, value in vars(self).items() if value is not None)
        return max(parts)


def tune(
    posterior: Posterior,
    budget: Budget | str | float | None = None,
    *,
    calls: float | None = None,
    metric: ScoreName = "energy",
    methods: Iterable[Any] = (),
    n: int = 8,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Tuning:
    """The method and settings with the best score on truths drawn from the prior and measured by
    the problem's operator and noise; no ground truth is needed, and y is not used.

    Parameters
    ----------
    posterior: the problem.
    budget: seconds, '2m' or a ``Budget``; calls: passes through the network. One of the two at
        least.
    metric: energy (of samples as forecasts of the whole image), crps (number by number), psnr of
        the mean, or lpips of a sample.
    methods: names of methods, or entries such as "DPS(scale=0.5, steps=16)", to search these alone,
        see ``candidates``; by default every method that accepts the problem.
    n: samples of each truth, at least 2.
    seed: of truths, noise and samples, the same for every candidate.
    folder: where each scored cell is kept; the same call goes on with what is there.

    What is found holds for truths that the prior draws. Raises ``ValueError`` for a budget that is
    none, for a metric that the problem does not have, for a problem that no method takes, and for a
    folder that holds another search.
    """
    given = budget if isinstance(budget, Budget) else Budget.read(budget, calls)
    if n < 2:
        raise ValueError(f"a score needs at least 2 samples of each truth, got n={n}")
    search = _Search(posterior.at_work(), given, metric, list(methods), n, seed, progress)
    place = None if folder is None else Path(folder)
    with nullcontext() if place is None else locked(place, ".tuning.lock"):
        search.enter(place)
        search.run()
    return search.outcome()


class _Search:
    """One call of ``tune``."""

    def __init__(
        self,
        post: Posterior,
        budget: Budget,
        metric: ScoreName,
        only: Sequence[Any],
        n: int,
        seed: int,
        progress: bool,
    ) -> None:
        self.post, self.budget, self.metric, self.n, self.seed = post, budget, metric, n, seed
        self.place: Path | None = None
        _check_metric(post, metric)
        listed = candidates(post, only)
        self.refused = refused(post, only)
        self.known = {one.label: one for one in listed}
        self.record: dict[str, Any] = {"of": self.said(), "truths": [], "cells": {}, "skipped": {}}
        self.record["budget"] = vars(budget)
        self.blocks: dict[int, list[Trial]] = {}
        self.bar = Progress("tune", 1000, progress)

    def said(self) -> dict[str, Any]:
        """What a search must share with one that it goes on with."""
        post = self.post
        said = {
            "prior": post.prior.record(),
            "operator": post.given.A.record(),
            "noise": post.given.noise.record(),
            "range": post.given.range,
            "candidates": list(self.known),
            "n": self.n,
            "seed": self.seed,
            "lpips": self.metric == "lpips",
        }
        found: dict[str, Any] = json.loads(json.dumps(said))
        return found

    def enter(self, place: Path | None) -> None:
        """Take up what the folder holds. Raises ``ValueError`` for another search."""
        self.place = place
        if place is None or not (place / SEARCH_RECORD).exists():
            return
        kept = read_json(place / SEARCH_RECORD)
        different = list(changes(kept.get("of"), self.record["of"]))
        if different:
            raise ValueError(
                f"{place} holds another search, so it cannot be gone on with "
                f"({'; '.join(different)[:600]}); choose another folder"
            )
        if kept["budget"] != vars(self.budget):
            kept |= {"budget": vars(self.budget), "skipped": {}}
        self.record = kept

    def run(self) -> None:
        """Round by round, until two are left on as many truths as there are, or the budget is
        spent."""
        alive, seen, block = list(self.known), 0, 0
        while alive and seen < MOST:
            scored = self.round(alive, block)
            seen = FIRST * 2**block
            if self.budget.share(self.spent) >= 1 or len(scored) < 2:
                break
            kept = {label: self.kept[label][: block + 1] for label in scored}
            order = ranked(kept, self.metric)
            alive, block = order[: max(2, math.ceil(len(order) / 2))], block + 1
        self.bar.at(1000)
        self.bar.close()

    def round(self, alive: Sequence[str], block: int) -> list[str]:
        """The candidates of a round that have scores on this block; the best come first."""
        limit, scored = SHARE if block == 0 else 1.0, []
        for label in alive:
            cells = self.record["cells"].setdefault(label, [])
            if len(cells) <= block:
                left = (limit - self.budget.share(self.spent)) if limit else 0.0
                why = self.skipped.get(label) or self.too_dear(label, block, left)
                if why is not None:
                    if block > 0:
                        break  # a cheaper one that went on alone would have met no rival
                    # What was left then is not what is left when the search goes on.
                    self.skipped[label] = why
                    continue
                cells.append(self.cell(self.known[label], block))
                self.keep()
            if "reason" not in cells[block]:
                scored.append(label)
            self.bar.at(min(999, int(1000 * self.budget.share(self.spent))))
        return scored

    def too_dear(self, label: str, block: int, left: float) -> str | None:
        """Why a cell is not begun: nothing is left, or less than it will take."""
        if left <= 0:
            return "the budget was spent before its turn"
        cost = self.cost(label, block)
        if cost is None or self.budget.share(cost) <= left:
            return None
        return f"it would take more than the {100 * left:.0f} % of the budget that were left to it"

    def cost(self, label: str, block: int) -> dict[str, float] | None:
        """What a cell will take: by the candidate's last one, and of one that has none by the steps
        of others of its method; None where there are none."""
        cells = self.record["cells"]
        if block > 0:
            more = _size(block) / _size(block - 1)
            return {name: more * spent for name, spent in cells[label][-1]["spent"].items()}
        kind = type(self.known[label].method)
        like = [
            (some[0]["spent"], self.steps(other))
            for other, some in cells.items()
            if some and type(self.known[other].method) is kind and "reason" not in some[0]
        ]
        if not like:
            return None
        return {
            name: self.steps(label) * sum(spent[name] / steps for spent, steps in like) / len(like)
            for name in ("seconds", "calls")
        }

    def steps(self, label: str) -> int:
        one = self.known[label]
        return steps_of(one.method, one.steps, USUAL_STEPS)

    def cell(self, candidate: Candidate, block: int) -> dict[str, Any]:
        trials = self.trials(block)
        began = time.perf_counter()
        found = score_block(
            candidate,
            trials,
            n=self.n,
            seed=self.seed + 1 + _APART * block,
            perceptual=self.metric == "lpips",
        )
        calls = found.get("network", 0.0) * self.n * len(trials)
        return found | {"spent": {"calls": calls, "seconds": time.perf_counter() - began}}

    def trials(self, block: int) -> list[Trial]:
        """The truths of a block, drawn once; what they take is part of the budget."""
        if block not in self.blocks:
            count = _size(block)
            place = None if self.place is None else self.place / f"truths-{block}.safetensors"
            began = time.perf_counter()
            self.blocks[block] = simulated_trials(
                self.post, count, self.seed + _APART * block, place
            )
            if len(self.record["truths"]) <= block:
                exact = self.post.prior.know().closed is not None
                spent = {
                    "calls": 0.0 if exact else 2.0 * TRUTH_STEPS * count,
                    "seconds": time.perf_counter() - began,
                }
                self.record["truths"].append(spent)
                self.keep()
        return self.blocks[block]

    def keep(self) -> None:
        if self.place is not None:
            write_json(self.place / SEARCH_RECORD, self.record)

    @property
    def skipped(self) -> dict[str, str]:
        """The candidates that the first round passed over, and why."""
        found: dict[str, str] = self.record["skipped"]
        return found

    @property
    def spent(self) -> dict[str, float]:
        cells = [cell["spent"] for cells in self.record["cells"].values() for cell in cells]
        return {
            name: float(sum(cost[name] for cost in [*self.record["truths"], *cells]))
            for name in ("calls", "seconds")
        }

    @property
    def kept(self) -> dict[str, list[dict[str, Any]]]:
        """The scored blocks of each candidate that has any and never failed."""
        return {
            label: cells
            for label, cells in self.record["cells"].items()
            if cells and all("reason" not in cell for cell in cells)
        }

    def outcome(self) -> Tuning:
        kept, cells = self.kept, self.record["cells"]
        order = ranked(kept, self.metric) if kept else []
        failed = {
            label: next(cell["reason"] for cell in some if "reason" in cell)
            for label, some in cells.items()
            if any("reason" in cell for cell in some)
        }
        return Tuning(
            self.metric,
            told(kept, self.known, self.metric),
            how_sure(kept, order, self.metric) if len(order) > 1 else None,
            failed,
            {label: why for label, why in self.skipped.items() if not cells.get(label)},
            self.refused,
            self.spent,
            self.n,
            self.seed,
        )


def _size(block: int) -> int:
    """Truths of a block: as many as all before it."""
    return FIRST * 2 ** max(0, block - 1)


def _check_metric(post: Posterior, metric: str) -> None:
    if metric not in SCORE_NAMES:
        raise ValueError(f"unknown metric {metric!r}; {suggestion(metric, SCORE_NAMES)}")
    if metric in ("psnr", "lpips") and (post.given.range is None or post.given.A.complex_in):
        raise ValueError(
            f"metric {metric!r} is of real images with a range, which this problem does not state; "
            "take energy or crps"
        )
    if metric == "lpips":
        import torch

        blank = torch.zeros(1, *post.given.A.in_shape)
        lpips(blank, blank, (0.0, 1.0))
