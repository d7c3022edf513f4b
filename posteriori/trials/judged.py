"""Is a method calibrated on this problem, and if not, by how much must its intervals be widened?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posteriori import grid as grids
from posteriori.asked import check_counts, check_pairs
from posteriori.configuration import batch_rows, describe
from posteriori.conformal import RECORD, Conformal, about_run, ratios_of
from posteriori.diagnostics import quiet
from posteriori.each import sample_each
from posteriori.evaluation.calibration import student
from posteriori.examination import Finding, finding_table
from posteriori.identity import changes, digest
from posteriori.likelihood import Posterior
from posteriori.methods.base import Method
from posteriori.methods.courses import steps_of
from posteriori.progress import Progress
from posteriori.run import Run, locked, read_json, write_json
from posteriori.trials.diagnose import FEWEST_TRIALS, diagnose
from posteriori.trials.scored import FEWEST, equal_weights, ranked_count, scored_trial
from posteriori.trials.simulated import Trial, simulated_trials

# Trials sampled between two times that the folder is written.
TOGETHER = 8


@dataclass(frozen=True)
class Calibration:
    """findings: the lines, in the manner of the doctor's. conformal: what scales the intervals of a
    run; None, with the reason, where there is none. trials: how many; simulated: whether the truths
    are draws of the prior. record_of: the numbers of each trial."""

    findings: tuple[Finding, ...]
    conformal: Conformal | None
    trials: int
    simulated: bool
    no_intervals: str | None = None
    record_of: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def passed(self) -> bool:
        """Whether no line failed."""
        return all(line.verdict != "fail" for line in self.findings)

    def record(self) -> dict[str, Any]:
        """As JSON values, without the trials."""
        return {
            "passed": self.passed,
            "trials": self.trials,
            "simulated": self.simulated,
            "findings": [vars(line) for line in self.findings],
            "no_intervals": self.no_intervals,
            "conformal": None if self.conformal is None else self.conformal.record(),
        }

    def __str__(self) -> str:
        origin = "draws of the prior" if self.simulated else "given truths"
        return f"{finding_table(self.findings)}\n\n{self.trials} trials, {origin}"


def calibrate(
    posterior: Posterior,
    method: Method[Any],
    *,
    n: int = 4,
    steps: int | None = None,
    grid: grids.GridName | Tensor | None = None,
    antithetic: bool = False,
    trials: int = 40,
    seed: int = 0,
    pairs: Sequence[Trial] | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Calibration:
    """Whether the samples of a method on this problem are calibrated, and the scaling that makes
    the intervals of a run of it hold.

    Parameters
    ----------
    posterior: the problem. Its y is used only where nothing is simulated.
    method, n, steps, grid, antithetic: of the run whose intervals are to be scaled. At least 20
        samples of each trial are drawn, of antithetic ones 40, of which ranks count one of each
        pair; mean and spread of the intervals are of the first n.
    trials: truths that are drawn from the prior, and measured by the problem's operator and noise.
    seed: of truths, noise and samples.
    pairs: truths of your own in their place, each with the posterior of its measurement
        (``trial_of`` simulates one). What is said then holds for images that are exchangeable with
        them; for draws of the prior otherwise.
    folder: where each trial is kept when it is done; the same call goes on with what is there.

    Raises ``ValueError`` for a method that refuses the problem, for fewer than 10 trials, and for a
    folder that holds another calibration.
    """
    work = _Work(posterior.at_work(), method, n, steps, grid, antithetic, seed, pairs, trials)
    place = None if folder is None else Path(folder)
    if place is None:
        return work.judged(work.drawn(None, progress))
    with locked(place, ".calibration.lock"):
        work.enter(place)
        found = work.judged(work.drawn(place / "trials", progress))
        write_json(place / RECORD, {"of": work.said} | found.record())
    return found


class _Work:
    """One call of ``calibrate``."""

    def __init__(
        self,
        post: Posterior,
        method: Method[Any],
        n: int,
        steps: int | None,
        grid: grids.GridName | Tensor | None,
        antithetic: bool,
        seed: int,
        pairs: Sequence[Trial] | None,
        trials: int,
    ) -> None:
        count = trials if pairs is None else len(pairs)
        if count < FEWEST_TRIALS:
            raise ValueError(f"a calibration needs at least {FEWEST_TRIALS} truths, got {count}")
        if refusal := method.refuses(post):
            raise ValueError(refusal)
        for k, pair in enumerate(pairs or ()):
            if pair.truth.shape != post.given.A.in_shape:
                raise ValueError(
                    f"truth {k} has the shape {tuple(pair.truth.shape)}, images of this problem "
                    f"have {tuple(post.given.A.in_shape)}"
                )
        self.post, self.method, self.n, self.grid, self.seed = post, method, n, grid, seed
        self.steps, self.pairs, self.count = steps_of(method, steps), pairs, count
        check_counts(n)
        check_pairs(antithetic, n, method=method)
        self.antithetic = antithetic
        self.ranked = max(n // 2 if antithetic else n, FEWEST)
        self.samples = 2 * self.ranked if antithetic else self.ranked
        config = describe(
            post, method, n=n, first=0, seed=seed, steps=self.steps, antithetic=antithetic
        )
        self.about = about_run(config, n)
        identity = {k: v for k, v in config["identity"].items() if k != "y"}
        grid_said = grid.tolist() if isinstance(grid, Tensor) else grid
        self.said: dict[str, Any] = json.loads(
            json.dumps(
                {"run": self.about, "identity": identity, "grid": grid_said, "seed": seed}
                | {"samples": self.samples, "trials": count}
                | {"pairs": None if pairs is None else [_digest(pair) for pair in pairs]}
            )
        )

    def enter(self, place: Path) -> None:
        """Raise ``ValueError`` where the folder holds another calibration."""
        file = place / RECORD
        if file.exists():
            found = list(changes(read_json(file).get("of"), self.said))
            if found:
                raise ValueError(
                    f"{place} holds another calibration, so it cannot be gone on with "
                    f"({'; '.join(found)[:600]}); choose another folder by --out"
                )
        write_json(file, {"of": self.said})

    def drawn(self, place: Path | None, progress: bool) -> list[dict[str, Any]]:
        """The record of each trial; {"reason": ...} for one that has none."""
        records: dict[int, dict[str, Any]] = {}
        for k in range(self.count):
            file = None if place is None else place / f"{k:05d}.json"
            if file is not None and file.exists():
                records[k] = read_json(file)
        bar = Progress("trials", self.count, progress)
        missing = [k for k in range(self.count) if k not in records]
        bar.at(len(records))
        pairs = self.trials_of(place) if missing else []
        size = max(1, min(TOGETHER, batch_rows(self.post, self.method, 4096) // self.samples))
        # Whole blocks, also after an interruption: a batch decides how sums are rounded.
        for start in sorted({k - k % size for k in missing}):
            some = range(start, min(start + size, self.count))
            for k, run in zip(some, self.runs(some, pairs), strict=True):
                records[k] = self.scored(run, k, pairs)
                if place is not None:
                    place.mkdir(parents=True, exist_ok=True)
                    write_json(place / f"{k:05d}.json", records[k])
            bar.at(len(records))
        bar.close()
        return [records[k] for k in range(self.count)]

    def trials_of(self, place: Path | None) -> Sequence[Trial]:
        if self.pairs is not None:
            return self.pairs
        file = None if place is None else place / "truths.safetensors"
        return simulated_trials(self.post, self.count, self.seed, file)

    def runs(self, which: range, pairs: Sequence[Trial]) -> list[Run]:
        with quiet():
            return sample_each(
                self.post.prior,
                [pairs[k].posterior.given for k in which],
                self.method,
                n=self.samples,
                steps=self.steps,
                grid=self.grid,
                antithetic=self.antithetic,
                seed=self.seed + 1 + which[0],
            )

    def scored(self, run: Run, k: int, pairs: Sequence[Trial]) -> dict[str, Any]:
        if len(run.samples) < self.samples:
            lost = next(status for status in run.status if not status.ok)
            return {"reason": f"{self.samples - len(run.samples)} samples lost: {lost}"}
        trial, other = pairs[k], pairs[(k + 1) % len(pairs)].truth
        alone = run.independent()
        samples = equal_weights(alone, self.ranked, self.seed + k)
        truth = trial.truth.cpu()
        home = trial.posterior.at_work("cpu")
        record = scored_trial(samples, truth, home, other.cpu().to(samples), self.seed + k)
        first = slice(self.n)
        part = replace(
            run, samples=run.samples[first], log_w=run.log_w[first], status=run.status[first]
        )
        try:
            record["ratios"] = ratios_of(part.mean, part.std, truth).tolist()
            error, freedom = part.predictive()
            alike = freedom + 1  # so many independent samples tell as much
            plain = student(part.mean, error / (1 + 1 / alike) ** 0.5, alike, truth, 0.9)
            record["plain"] = plain
        except ValueError as error:
            record["no_intervals"] = str(error)
        return record | {"seconds": run.seconds, "calls": run.counts}

    def judged(self, records: list[dict[str, Any]]) -> Calibration:
        kept = [record for record in records if "reason" not in record]
        lost = len(records) - len(kept)
        line = Finding(
            "complete",
            "fail" if lost else "pass",
            f"{len(kept)} of {len(records)} trials",
            "no sample lost",
            next((r["reason"] for r in records if "reason" in r), ""),
        )
        if len(kept) < FEWEST_TRIALS:
            return Calibration((line,), None, len(kept), self.pairs is None, line.remedy)
        findings = (line, *diagnose(kept, ranked_count(self.ranked)))
        why = next((r["no_intervals"] for r in kept if "no_intervals" in r), None)
        if lost:
            why = "a trial lost samples, and those that remain are not like the run"
        conformal = None
        if why is None:
            ratios = torch.tensor([r["ratios"] for r in kept], dtype=torch.float64)
            conformal = Conformal(ratios, self.about)
        return Calibration(
            (*findings, _intervals_line(conformal, kept, why)),
            conformal,
            len(kept),
            self.pairs is None,
            why,
            tuple(kept),
        )


def _intervals_line(
    conformal: Conformal | None, records: Sequence[dict[str, Any]], why: str | None
) -> Finding:
    if conformal is None:
        return Finding("intervals", "skip", "not scaled", remedy=why or "")
    level = 0.9 if len(records) >= 9 else 0.5
    plain = sum(record["plain"] for record in records) / len(records)
    top = 100 * min(1.0, level + conformal.bound())
    return Finding(
        "intervals",
        "pass",
        f"mean +- {conformal.factor(level):.2f} std for {100 * level:.0f} %; "
        f"without scaling they hold {100 * plain:.0f} %",
        f"{100 * level:.0f} to {top:.0f} % of a further image, on average over images",
    )


def _digest(pair: Trial) -> list[str]:
    return [digest(pair.truth), digest(pair.posterior.given.y)]
