"""The measurements of the study guidance-strength: DPS with its guidance swept over three decades,
on a mixture and on a photograph."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

import torch
from torch import Tensor

from posteriori import priors
from posteriori.driver import sample
from posteriori.evaluation.calibration import coverage
from posteriori.evaluation.distances import sliced_wasserstein
from posteriori.evaluation.exact import exact_posterior
from posteriori.evaluation.images import lpips
from posteriori.experiments import Cell, Row
from posteriori.experiments.photographs import ASTRAY, lpips_missing
from posteriori.likelihood import Likelihood, Posterior
from posteriori.linalg import cosines
from posteriori.methods.explicit.dps import DPS
from posteriori.noise import Gaussian
from posteriori.operators import Blur, Identity, LinearOperator, gaussian_kernel
from posteriori.priors.base import Prior
from posteriori.priors.mixture import GaussianMixture
from posteriori.problem_file import simulate
from posteriori.tasks.photographs import RANGE, photograph

SIGMA, LEVEL, REFERENCE = 0.025, 0.8, 1000
# The paper's setting: 0.3 for blur, on images of 256 x 256 pixels in three colours, in 1000 steps.
PUBLISHED, PUBLISHED_NUMBERS, PUBLISHED_STEPS = 0.3, 3 * 256 * 256, 1000
BED_SHAPES = {"mixture": (1, 8, 8), "photograph": (3, 32, 32)}
BED_SAMPLES = {"mixture": 99, "photograph": 9}
SWEEP_PROBLEMS = ("denoising", "deblurring")
GUIDANCES = (0.03, 0.055, 0.1, 0.17, 0.3, 0.55, 1.0, 1.7, 3.0, 5.5, 10.0, 17.0, 30.0)
SWEEP_SCORES = (
    "error",
    "error_one",
    "spread",
    "coverage",
    "nominal",
    "distance",
    "lpips_one",
    "lpips_pairs",
)

COLUMNS = {
    "bed": "mixture (8 x 8 pixels, posterior known) or photograph (32 x 32 pixels, three colours)",
    "problem": "denoising or deblurring",
    "weighting": (
        "published (the paper's step), "
        "bounded (the principled one) or exact (draws of the known posterior, no method)"
    ),
    "guidance": (
        "strength of the guidance: with bounded its factor, 1 as derived; "
        "with published rho, converted to 256 x 256 pixels in three colours and 1000 steps"
    ),
    "scale": (
        "the number that the method was given: "
        "for the published step rho at this image size and number of steps"
    ),
    "steps": "noise levels visited",
    "seed": "of the truth (mixture), of the measurement's noise and of the samples",
    "samples": "samples asked for",
    "lost": "how many of them diverged",
    "outcome": (
        "finished; diverged (no scores); partly diverged (scores of the samples left); "
        f"astray (finite, but more than {ASTRAY:g} widths of [0, 1] away from its middle)"
    ),
    "error": "root mean square difference of the samples' mean to the truth, in units of [0, 1]",
    "error_one": "the same of a single sample, root mean square over samples",
    "spread": "root of the mean variance of a pixel over samples, in units of [0, 1]",
    "coverage": "share of the truth's pixels inside the samples' central interval",
    "nominal": "the level of that interval, which the coverage of a calibrated sampler has",
    "distance": (
        "sliced 1-Wasserstein distance to 1000 exact draws, in units of [0, 1]; mixture only"
    ),
    "lpips_one": (
        "mean LPIPS of a sample to the truth, enlarged to 64 x 64 pixels; "
        "photograph only, where its weights are installed"
    ),
    "lpips_pairs": "mean LPIPS between neighbouring samples, as lpips_one",
}


def sweep_plan(quick: bool) -> list[Cell]:
    """Reference and sweep on the mixture, then the sweep on the photograph; with the printed 0.3 as
    it stands as one guidance more."""
    cells: list[Cell] = []
    for bed, seeds in (("mixture", 2 if quick else 6), ("photograph", 1)):
        full = {
            "mixture": {"published": PUBLISHED_STEPS, "bounded": 100},
            "photograph": {"published": 60, "bounded": 60},
        }[bed]
        steps = {
            name: (100 if bed == "mixture" else 8) if quick else count
            for name, count in full.items()
        }
        chosen = GUIDANCES[4:9:2] if quick else GUIDANCES if bed == "mixture" else GUIDANCES[::2]
        for problem in SWEEP_PROBLEMS:
            settings: list[tuple[str, float | None]] = [("exact", None)] if bed == "mixture" else []
            settings += [(name, guidance) for name in steps for guidance in chosen] + [
                ("published", as_printed(bed))
            ]
            for weighting, guidance in settings:
                for seed in range(seeds):
                    about = {
                        "bed": bed,
                        "problem": problem,
                        "weighting": weighting,
                        "guidance": guidance,
                    }
                    cells.append({**about, "steps": steps.get(weighting), "seed": seed})
    return cells


def as_printed(bed: str) -> float:
    """What 0.3 in 1000 steps amounts to on the images of a bed."""
    return PUBLISHED * math.sqrt(PUBLISHED_NUMBERS / math.prod(BED_SHAPES[bed]))


def guidance_scale(cell: Cell) -> float:
    """The guidance in the units of the method.

    The published step moves an image by rho J^T A^T r / ||r||: a vector whose length does not grow
    with the image, so that a pixel of d moves by rho / sqrt(d); and the sum of the moves is that of
    the number of steps.
    """
    if cell["weighting"] == "bounded":
        return float(cell["guidance"])
    return float(
        cell["guidance"]
        * math.sqrt(math.prod(BED_SHAPES[cell["bed"]]) / PUBLISHED_NUMBERS)
        * PUBLISHED_STEPS
        / cell["steps"]
    )


@lru_cache(maxsize=1)
def mixture_prior() -> GaussianMixture:
    """Four Gaussians on 8 x 8 images in [-1, 1]: bright left, right, top or bottom, with one
    covariance of 1 / frequency^2."""
    side = 8
    transform = torch.kron(cosines(side), cosines(side))
    k = torch.arange(side, dtype=torch.float64)
    power = (1 / (1 + k[:, None] ** 2 + k**2)).flatten()
    covariance = 0.25**2 * transform.T * (power / power.mean()) @ transform
    wave = 0.5 * torch.cos(math.pi * (k + 0.5) / side).expand(side, side)
    means = torch.stack([wave, -wave, wave.T, -wave.T]).reshape(4, -1)
    return GaussianMixture(
        torch.full((4,), 0.25, dtype=torch.float64),
        means,
        covariance[None],
        shape=(1, side, side),
        range=(-1, 1),
    )


@lru_cache(maxsize=1)
def photo_prior() -> priors.Network:
    return priors.photos()


def sweep_problem(cell: Cell) -> tuple[Tensor, Posterior]:
    """The truth in [0, 1] and the posterior of its measurement."""
    shape, law = BED_SHAPES[cell["bed"]], Gaussian(SIGMA)
    if cell["bed"] == "mixture":
        # A run draws from the streams (seed, k): the truth has its own.
        prior: Prior = mixture_prior()
        truth = (mixture_prior().sample(1, cell["seed"] + 2**33)[0] + 1) / 2
    else:
        prior = photo_prior()
        truth = torch.nn.functional.avg_pool2d(photograph("astronaut", 128), 4)
    A: LinearOperator = (
        Identity(shape)
        if cell["problem"] == "denoising"
        else Blur(gaussian_kernel(1.0).to(truth), shape)
    )
    return truth, Posterior(
        prior, Likelihood(simulate(A, truth, law, cell["seed"]), A, law, range=RANGE)
    )


def sweep_measure(cell: Cell) -> list[Row]:
    truth, post = sweep_problem(cell)
    n = BED_SAMPLES[cell["bed"]]
    row: Row = {**dict.fromkeys(COLUMNS), **cell, "samples": n, "lost": 0, "outcome": "finished"}
    if cell["weighting"] == "exact":
        x = exact_posterior(post).sample(n, cell["seed"])
    else:
        row["scale"] = guidance_scale(cell)
        published, n_steps = cell["weighting"] == "published", cell["steps"]
        method = DPS.published(row["scale"]) if published else DPS(scale=row["scale"])
        try:
            with warnings.catch_warnings(action="ignore"):  # of lost rows: the columns say it
                x = sample(
                    post,
                    method,
                    n=n,
                    steps=n_steps,
                    seed=cell["seed"],
                    grid="ddpm" if published else "karras",
                ).samples
        except FloatingPointError:
            return [row | {"lost": n, "outcome": "diverged"}]
        row["lost"] = n - len(x)
    if len(x) < 2:
        return [row | {"outcome": "diverged"}]
    far = float((x - sum(RANGE) / 2).abs().max()) > ASTRAY
    return [
        row
        | sweep_scores(x, truth, post, cell)
        | {"outcome": "partly diverged" if row["lost"] else "astray" if far else "finished"}
    ]


def sweep_scores(x: Tensor, truth: Tensor, post: Posterior, cell: Cell) -> Row:
    """x: (n, *E) and truth E in [0, 1]."""
    mean, interval = x.mean(0), coverage(x, truth, (LEVEL,))[0]
    out: Row = {
        "error": rms(mean - truth),
        "error_one": rms(x - truth),
        "spread": float(x.var(0).mean().sqrt()),
        "coverage": interval.covered,
        "nominal": interval.nominal,
    }
    if cell["bed"] == "mixture":
        reference = exact_posterior(post).sample(REFERENCE, cell["seed"] + 2**20)
        out["distance"] = sliced_wasserstein(x, reference, slices=200)
    elif lpips_missing() is None:
        large, target = (
            image.clamp(*RANGE).repeat_interleave(2, -1).repeat_interleave(2, -2)
            for image in (x, truth)
        )
        out["lpips_one"] = float(lpips(large, target, RANGE).mean())
        out["lpips_pairs"] = float(lpips(large, large.roll(1, 0), RANGE).mean())
    return out


def rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())


def mean_score(rows: list[Row], score: str) -> float:
    """Over seeds: of errors and spreads the root mean square, of the others the mean."""
    values = torch.tensor([row[score] for row in rows], dtype=torch.float64)
    return rms(values) if score in ("error", "error_one", "spread") else float(values.mean())


def sweep(rows: list[Row], bed: str, problem: str, weighting: str) -> dict[float | None, list[Row]]:
    """The rows of each guidance, in increasing order, without those guidances at which samples were
    lost."""
    mine = [
        r for r in rows if (r["bed"], r["problem"], r["weighting"]) == (bed, problem, weighting)
    ]
    groups = {
        g: [r for r in mine if r["guidance"] == g]
        for g in sorted({r["guidance"] for r in mine}, key=lambda g: g or 0.0)
    }
    return {
        g: group for g, group in groups.items() if all(r["outcome"] == "finished" for r in group)
    }
