"""Posteriors with several modes: which methods find all of them, and in the right proportions."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from posteriori import methods, priors
from posteriori.driver import sample
from posteriori.evaluation.distances import sliced_wasserstein
from posteriori.evaluation.exact import exact_posterior
from posteriori.evaluation.images import lpips
from posteriori.experiments import Cell, Row
from posteriori.experiments.photographs import lpips_missing
from posteriori.experiments.studies.base import Study
from posteriori.experiments.studies.multimodal_figure import draw_modes, mode_findings
from posteriori.likelihood import Likelihood, Posterior
from posteriori.noise import Gaussian
from posteriori.operators import Dense, Mask, Null
from posteriori.priors.mixture import GaussianMixture
from posteriori.problem_file import simulate

SEPARATIONS, N, REFERENCE = (4.0, 8.0, 16.0), 256, 4000
# Of the digit: samples, noise in units of [0, 1], rows hidden at the top, and the seed with which
# the prior draws a 4.
FEW, NOISE, HIDDEN, DIGIT = 8, 0.1, 15, 41
SIDE, HOLE = 32, 3
CORNERS = ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))

COLUMNS = {
    "part": (
        "mixture (posterior known) or digit (the upper half of a 4 hidden, posterior not known)"
    ),
    "method": (
        "method; of sequential Monte Carlo, one cloud that gives all samples, "
        "or as many independent clouds as samples"
    ),
    "separation": "distance of neighbouring modes in standard deviations of a mode; mixture only",
    "steps": "noise levels visited",
    "seed": "of the samples",
    "samples": "samples asked for",
    "outcome": (
        "finished, diverged (some or all samples were lost, no scores) or refused "
        "(the method does not treat the problem)"
    ),
    "reason": "of a refusal or a divergence",
    "weight_error": (
        "half the sum over the four modes of |share of the samples - posterior weight|, "
        "from 0 to 1; mixture only"
    ),
    "found": (
        "how many of the four modes hold at least a quarter of their posterior weight; mixture only"
    ),
    "distance": (
        "sliced 1-Wasserstein distance to 4000 exact draws, "
        "in standard deviations of a mode; mixture only"
    ),
    "diversity": (
        "root mean square difference of two samples, averaged over pairs. "
        "mixture: over all numbers, divided by that of exact draws; "
        "digit: over the hidden pixels, in units of [0, 1]"
    ),
    "lpips_pairs": (
        "LPIPS of two samples, enlarged to 64 x 64 pixels, averaged over pairs; "
        "digit only, where its weights are installed"
    ),
    "open": "share of samples that enclose no region, as a 4 with an open top; digit only",
    "closed": (
        "share of samples that enclose one region, as a 9 or a 4 with a closed top; digit only"
    ),
    "chi2": (
        "mean squared residual of the visible pixels over the noise variance, "
        "averaged over samples, about 1 when they fit; digit only"
    ),
    "denoiser": "denoiser calls per sample",
    "vjp": "vector-Jacobian products per sample",
}


def _build(name: str, part: str) -> methods.Method[Any] | None:
    """A method by its name, None for exact draws. One cloud, or one fit, gives all the samples of a
    row."""
    if part == "digit":
        n, whole, share, small = FEW, 64, 8, 8
        fit: dict[str, Any] = {"draws": n, "updates": 5, "polish": 1}
        rates = {"RealNVP": 1e-2, "diagonal": 5e-2, "low-rank": 5e-2}
    else:
        n, whole, share, small = N, N, 32, 16
        fit = {"draws": n, "polish": 300}
        rates = {"RealNVP": 3e-3, "diagonal": 1e-2, "low-rank": 1e-2}
    made: dict[str, methods.Method[Any]] = {
        "prior draws": methods.Unconditional(),
        "FPS, one cloud": methods.FPS(particles=whole),
        "FPS, clouds": methods.FPS(particles=share, single=True),
        "TDS, one cloud": methods.TDS(particles=whole),
        "TDS, clouds": methods.TDS(particles=share, single=True),
        "MomentSMC, one cloud": methods.MomentSMC(particles=whole),
        "MomentSMC, clouds": methods.MomentSMC(particles=small, single=True),
        "VI, RealNVP": methods.ScorePriorVI(rate=rates["RealNVP"], **fit),
        "VI, low-rank Gaussian": methods.ScorePriorVI(
            "low-rank", rank=3, rate=rates["low-rank"], **fit
        ),
        "VI, diagonal Gaussian": methods.ScorePriorVI("diagonal", rate=rates["diagonal"], **fit),
        "DPS": methods.DPS(),
        "DAPS": methods.DAPS(),
    }
    return made.get(name)


CLOUDS = tuple(
    f"{name}, {how}" for name in ("FPS", "TDS", "MomentSMC") for how in ("one cloud", "clouds")
)
_NAMES = (
    "exact draws",
    "prior draws",
    *CLOUDS,
    "VI, RealNVP",
    "VI, low-rank Gaussian",
    "VI, diagonal Gaussian",
    "DPS",
    "DAPS",
)


def _plan(quick: bool) -> list[Cell]:
    """The mixture at every separation and seed, then the digit once; the quick run leaves out what
    takes long."""
    left_out = ("MomentSMC, clouds", "TDS, clouds", "VI, low-rank Gaussian") if quick else ()
    cells: list[Cell] = []
    for separation in (4.0, 16.0) if quick else SEPARATIONS:
        for seed in range(1 if quick else 4):
            for name in _NAMES:
                steps = (20 if quick else 60) if name.startswith("VI") else 100
                cells.append(
                    {
                        "part": "mixture",
                        "method": name,
                        "separation": separation,
                        "seed": seed,
                        "steps": steps,
                    }
                )
    cells = [cell for cell in cells if cell["method"] not in left_out]
    skipped = ("exact draws", "prior draws", "MomentSMC, clouds", "VI, low-rank Gaussian")
    digit = (
        ("FPS, one cloud", "MomentSMC, one cloud", "DPS", "DAPS")
        if quick
        else [name for name in _NAMES if name not in skipped]
    )
    for name in digit:
        steps = 12 if quick else 30 if name.startswith("VI") else 40
        cells.append(
            {"part": "digit", "method": name, "separation": None, "seed": 0, "steps": steps}
        )
    return cells


def four_modes(separation: float) -> Posterior:
    """Four modes on the corners of a square in (x1, x2); y_i = 2 x_i / separation + x_(i+2) + noise
    turns their weights around."""
    corners = torch.tensor(CORNERS)
    means = torch.cat([separation / 2 * corners, torch.zeros(4, 2)], 1)
    prior = GaussianMixture(torch.tensor([0.4, 0.3, 0.2, 0.1]), means, 1.0)
    matrix = torch.cat([2 / separation * torch.eye(2), torch.eye(2)], 1)
    return Posterior(prior, Likelihood(torch.tensor([0.9, 0.7]), Dense(matrix), Gaussian(0.5)))


def quadrant(x: Tensor) -> Tensor:
    """The mode of each sample, (n,): its quadrant of the first two numbers, in the order of
    CORNERS."""
    return 2 * (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def mode_masses(post: Posterior) -> Tensor:
    """The exact posterior weight of each quadrant, (4,), of a mixture whose components have
    independent first two numbers."""
    exact = exact_posterior(post).mixture
    z = exact.means[:, :2] / exact.covariances.diagonal(dim1=1, dim2=2)[:, :2].sqrt()
    sides = torch.stack([torch.special.ndtr(-z), torch.special.ndtr(z)], 2)
    return torch.einsum("k,ka,kb->ab", exact.weights, sides[:, 0], sides[:, 1]).flatten()


def regions(x: Tensor) -> Tensor:
    """How many regions of at least 3 pixels each picture (n, 1, h, w) encloses by pixels above 0.5,
    which touch also at corners: (n,)."""
    from skimage.measure import label, regionprops

    counts = []
    for picture in torch.nn.functional.pad(x[:, 0] > 0.5, (1, 1, 1, 1)):
        parts = regionprops(label((~picture).numpy(), connectivity=1))
        counts.append(sum(part.area >= HOLE for part in parts) - 1)
    return torch.tensor(counts)


@lru_cache(maxsize=1)
def digit() -> Posterior:
    """The lower part of a 4 that the digits prior draws."""
    prior, shape = priors.digits(), (1, SIDE, SIDE)
    blank = Null(shape)
    nothing = Posterior(
        prior, Likelihood(torch.zeros(blank.out_shape), blank, Gaussian(1.0), range=(0, 1))
    )
    truth = sample(nothing, methods.Unconditional(), steps=25, seed=DIGIT).samples[0].clamp(0, 1)
    A, law = Mask(torch.arange(SIDE)[:, None].expand(SIDE, SIDE) >= HIDDEN, shape), Gaussian(NOISE)
    return Posterior(prior, Likelihood(simulate(A, truth, law, seed=0), A, law, range=(0, 1)))


def _measure(cell: Cell) -> list[Row]:
    known = cell["part"] == "mixture"
    post, n = (four_modes(cell["separation"]), N) if known else (digit(), FEW)
    row: Row = {**dict.fromkeys(COLUMNS), **cell, "samples": n, "outcome": "finished"}
    method = _build(cell["method"], cell["part"])
    if method is None:
        # The draws of another seed than those of the reference.
        return [
            row
            | {"denoiser": 0.0, "vjp": 0.0}
            | mixture_scores(exact_posterior(post).sample(n, cell["seed"]), post)
        ]
    refusal = method.refuses(post)
    if refusal:
        return [row | {"outcome": "refused", "reason": refusal}]
    try:
        # Warnings of lost rows and of fits that miss a mode: the columns say both.
        with warnings.catch_warnings(action="ignore"):
            run = sample(
                post,
                method,
                n=n,
                steps=cell["steps"],
                seed=cell["seed"],
                batch=2**15 if known else None,
            )
    except FloatingPointError as error:
        return [row | {"outcome": "diverged", "reason": str(error)}]
    row |= {kind: float(run.counts[kind]) for kind in ("denoiser", "vjp")}
    if len(run.samples) < n:
        return [
            row
            | {"outcome": "diverged", "reason": f"{n - len(run.samples)} of {n} samples were lost"}
        ]
    return [row | (mixture_scores(run.samples, post) if known else digit_scores(run.samples, post))]


def pairwise_spread(x: Tensor) -> float:
    """Root mean square difference of two rows, averaged over pairs."""
    flat = x.flatten(1).double()
    return float(torch.pdist(flat).mean()) / math.sqrt(flat.shape[1])


def mixture_scores(x: Tensor, post: Posterior) -> Row:
    """x: (n, 4)."""
    weights, reference = mode_masses(post), exact_posterior(post).sample(REFERENCE, 2**20)
    shares = torch.bincount(quadrant(x), minlength=4) / len(x)
    return {
        "weight_error": float((shares - weights).abs().sum() / 2),
        "found": int((shares >= weights / 4).sum()),
        "distance": sliced_wasserstein(x, reference, slices=200),
        "diversity": pairwise_spread(x) / pairwise_spread(reference[:1000]),
    }


def digit_scores(x: Tensor, post: Posterior) -> Row:
    """x: (n, 1, 32, 32) in [0, 1]."""
    enclosed = regions(x)
    out: Row = {
        "diversity": pairwise_spread(x[:, :, :HIDDEN]),
        "open": float((enclosed == 0).double().mean()),
        "closed": float((enclosed == 1).double().mean()),
        "chi2": float(post.given.chi2(x).mean()),
    }
    if lpips_missing() is None:
        large = x.clamp(0, 1).repeat_interleave(2, -1).repeat_interleave(2, -2)
        pairs = torch.combinations(torch.arange(len(x)))
        out["lpips_pairs"] = float(lpips(large[pairs[:, 0]], large[pairs[:, 1]], (0.0, 1.0)).mean())
    return out


_SETTING = """
Mixture. Prior in R^4: 0.4, 0.3, 0.2 and 0.1 times unit Gaussians (covariance I) with means
(-d/2, -d/2), (-d/2, d/2), (d/2, -d/2) and (d/2, d/2) in the first two numbers and 0 in the others;
d is the separation: 4, 8 or 16. Two numbers are measured,
y_i = 2 x_i / d + x_(i+2) + 0.5 z_i, and y = (0.9, 0.7): the posterior weights are about 0.12, 0.27,
0.25 and 0.36 at every separation, so that a sampler that does not let y choose among modes gets
them wrong. A sample belongs to the mode in whose quadrant of (x_1, x_2) it lies; the exact weight
of a quadrant is known. 256 samples a row, four seeds; "exact draws" is the same number of exact
samples (what chance alone does), "prior draws" ignores y.

Digit. The shipped 32 x 32 digits prior, the 4 that it draws with seed 41 in 25 ancestral steps, its
upper 15 rows hidden, Gaussian noise of 0.1 of [0, 1] on the 544 visible pixels. The lower part fits
a 4 and a 9. Eight samples of each method, one seed. A completion is told by the number of regions
of at least 3 pixels that the strokes (pixels above 0.5) enclose: none for an open 4, one for a 9 or
a closed 4. There is no reference: the posterior shares of the two are not known.

Methods. Defaults of this library unless stated; 100 noise levels on the mixture and 40 on the digit
(variational: 60 and 30). FPS in its consistent form; TDS with twist "auto" (moments on the mixture,
PiGDM's on the digit). Mixture: one cloud has 256 particles; of 256 clouds with 32 particles
(MomentSMC: 16) one sample each is taken. Digit: one cloud of 64 particles of which eight are shown,
or eight clouds of eight, one sample of each. Variational inference fits one distribution from which
all samples are drawn, without importance weights: 10 updates of 256 draws a level and 300 at the
end (learning rates 3e-3 for RealNVP, 1e-2 for Gaussians; low-rank: rank 3); on the digit 5 updates
of eight draws a level (rates 1e-2 and 5e-2). MomentSMC is for at most 512 measured numbers and
refuses the digit. The quick run has fewer levels, seeds and methods.
"""

STUDY = Study(
    name="multimodal",
    question="Which methods find every mode of a posterior, and in the right proportions?",
    setting=_SETTING,
    columns=COLUMNS,
    plan=_plan,
    measure=_measure,
    draw=draw_modes,
    shows=(
        "part",
        "method",
        "separation",
        "outcome",
        "weight_error",
        "diversity",
        "open",
        "closed",
        "chi2",
        "denoiser",
        "vjp",
    ),
    caption="One line a method. From left to right: error of the mode weights on the mixture, "
    "mean over seeds, one marker a separation (dashed: the mean of exact draws); "
    "how the completions of the digit divide into open and closed ones, "
    "with chi-square of the visible pixels written beside; their diversity in the hidden rows; "
    "calls per sample on the mixture (a vector-Jacobian product counts two).",
    findings=mode_findings,
    limits=(
        "The mixture has four dimensions and modes of equal shape. "
        "How many particles an image needs is another matter.",
        "The digit has no reference posterior: its rows tell diversity and fit, not whether shares "
        "of completions are right, and shares of eight samples move in steps of an eighth.",
        "Variational inference has few updates on the digit for reasons of time; "
        "with many more, or another step size, it may fit better. "
        "Its step sizes on the digit, and the digit itself, were chosen in a short trial.",
        "An enclosed region is a rule of thumb for what a digit is: "
        "a broken 9 counts as open, a 4 whose strokes touch as closed.",
    ),
)
