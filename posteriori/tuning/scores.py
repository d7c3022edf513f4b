"""The scores of one candidate on some trials."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from posteriori.each import sample_each
from posteriori.evaluation.calibration import student
from posteriori.evaluation.distances import effective_size, resample
from posteriori.evaluation.ensembles import crps, energy_score
from posteriori.evaluation.images import lpips, psnr
from posteriori.likelihood import Posterior
from posteriori.methods.courses import steps_of
from posteriori.problem_file.file import USUAL_STEPS
from posteriori.run import Run
from posteriori.trials import Trial
from posteriori.tuning.space import Candidate

ScoreName = Literal["energy", "crps", "psnr", "lpips"]
# What each is called in a table, and whether less is better.
SCORE_NAMES: dict[str, str] = {
    "energy": "energy score",
    "crps": "CRPS",
    "psnr": "PSNR of the mean, dB",
    "lpips": "LPIPS of a sample",
}
# What one candidate may raise without ending the others.
CANDIDATE_ERRORS = (
    ArithmeticError,
    ValueError,
    TypeError,
    RuntimeError,
    NotImplementedError,
    MemoryError,
)


def score_block(
    candidate: Candidate, trials: Sequence[Trial], *, n: int, seed: int, perceptual: bool = False
) -> dict[str, Any]:
    """One JSON record: the scores of each trial as lists, calls and seconds a sample; or why there
    are none as ``reason``. seed: of the first trial's samples, the next has the next, so that every
    candidate meets the same random numbers."""
    home = trials[0].posterior
    try:
        with warnings.catch_warnings(action="ignore"):
            runs = sample_each(
                home.prior,
                [trial.posterior.given for trial in trials],
                candidate.method,
                n=n,
                steps=steps_of(candidate.method, candidate.steps, USUAL_STEPS),
                grid=candidate.entry.grid,
                seed=seed,
            )
        for run in runs:
            if len(run.samples) < n:
                lost = next(status for status in run.status if not status.ok)
                return {"reason": f"{n - len(run.samples)} of {n} samples lost: {lost}"}
        scores = [
            scores_of(run, trial, perceptual) for run, trial in zip(runs, trials, strict=True)
        ]
    except CANDIDATE_ERRORS as error:
        return {"reason": f"{type(error).__name__}: {error}"}
    return {key: [score[key] for score in scores] for key in scores[0]} | {
        "network": sum(run.counts["denoiser"] + run.counts["vjp"] for run in runs) / len(runs),
        "seconds": sum(run.seconds for run in runs) / (n * len(runs)),
    }


def scores_of(run: Run, trial: Trial, perceptual: bool) -> dict[str, float | None]:
    """energy, crps; inside: share within 80 % intervals by Student's t, None for complex images;
    chi2 of the samples, None without noise; psnr of the mean, lpips of a sample, where there is a
    range and it was asked for."""
    truth = trial.truth.to(run.samples)
    size = effective_size(run.log_w)
    whole = len(run.samples)
    samples = run.samples if size > whole - 1e-6 else resample(run.samples, run.log_w)
    given, picture = trial.posterior.given, trial.posterior.given.range
    real = not samples.is_complex()
    x, t = (samples, truth) if real else (samples.abs(), truth.abs())
    home = trial.posterior.at_work("cpu")
    shown = picture is not None and real
    return {
        "energy": energy_score(samples, truth),
        "crps": crps(x, t),
        "inside": student(run.mean, run.std, size, truth, 0.8) if real and size > 1.01 else None,
        "chi2": float(home.given.chi2(samples).mean()) if given.noise.std != 0 else None,
        "psnr": psnr_of(run.mean, truth, home) if shown else None,
        "lpips": lpips_of(samples, truth, home) if shown and perceptual else None,
    }


def psnr_of(mean: Tensor, truth: Tensor, post: Posterior) -> float:
    assert post.given.range is not None  # it was asked before
    low, high = post.given.range
    return float(psnr(mean[None], truth[None], high - low))


def lpips_of(samples: Tensor, truth: Tensor, post: Posterior) -> float:
    assert post.given.range is not None  # it was asked before
    whole = truth[None].expand_as(samples)
    return float(lpips(samples, whole, post.given.range).mean())
