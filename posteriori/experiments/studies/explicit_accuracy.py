"""How far each explicit approximation is from the conditional mean it approximates, what that means
on photographs, and what it costs.

Every method here guides by an estimate D_y(x, sigma) of E[x0 | x, y]. A DDIM step without fresh
noise is linear in it,

    x' = x + (s - sigma) / sigma (x - D_y),   so that   D_y = x - sigma / (sigma - s) (x - x')

gives the estimate of any method from its own step. For a mixture prior E[x0 | x, y] is known in
closed form.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from posteriori import priors
from posteriori.driver import sample
from posteriori.evaluation.exact import exact_posterior
from posteriori.evaluation.images import lpips, psnr, ssim
from posteriori.experiments import Cell, Row
from posteriori.experiments.photographs import ASTRAY, lpips_missing
from posteriori.experiments.studies.base import Study
from posteriori.experiments.studies.explicit_figure import PARTS, draw_accuracy, error_ratio, mean
from posteriori.experiments.timing import timed
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods.explicit.dps import DPS
from posteriori.methods.explicit.mmps import MMPS
from posteriori.methods.explicit.pigdm import PiGDM
from posteriori.methods.explicit.tmpd import TMPD
from posteriori.methods.transitions import DDIM
from posteriori.methods.unconditional import Unconditional
from posteriori.noise import Gaussian
from posteriori.operators import Blur, Compose, Downsample, LinearOperator, gaussian_kernel
from posteriori.problem_file import simulate
from posteriori.rng import Streams
from posteriori.tasks.photographs import photograph

GUIDED_METHODS: dict[str, Any] = {
    "no guidance": Unconditional(),
    "DPS as written": DPS("likelihood"),
    "DPS bounded": DPS(),
    "PiGDM c = 1": PiGDM(variance=1.0),
    "PiGDM c = spread^2": PiGDM(),
    "moments by row sums": TMPD("row sum"),
    "moments by diagonal": TMPD("diagonal"),
    "moments by CG": MMPS(solver="cg"),
    "moments by GMRES": MMPS(),
}
GUIDED = [name for name in GUIDED_METHODS if name != "no guidance"]
SIGMAS = (20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
NOISE, DRAWS, SIDE, MIXTURE_SIDE, STEPS = 0.05, 100, 40, 16, 20
COLUMNS = {
    "part": "mixture (error of the estimate at each noise level) or photo (whole runs)",
    "method": "the approximation; see the setting",
    "sigma": "noise level of x, in the data's range [-1, 1]; mixture only",
    "error": (
        "root mean square over draws of x and pixels of D_y(x, sigma) - E[x0 | x, y], "
        "in units of [0, 1]; mixture only"
    ),
    "photo": "photograph; photo only",
    "steps": "noise levels of the run; photo only",
    "seed": (
        "mixture: of the truth, the measurement's noise and the draws of x; photo: of the sample"
    ),
    "outcome": (
        "finished; not finite (no error); "
        "diverged or astray (values beyond 5 ranges from the middle): no scores"
    ),
    "psnr": "PSNR of one sample against the photograph, dB",
    "ssim": "SSIM of the same",
    "lpips": "LPIPS of the same, where its weights are installed",
    "chi2": (
        "mean squared residual over the noise variance; 1 fits the measurement as its noise allows"
    ),
    "denoisers": "denoiser calls of a step",
    "vjps": "vector-Jacobian products of a step",
    "denoiser_seconds": "wall-clock seconds of a step spent in the denoiser (with its graph)",
    "vjp_seconds": "seconds of a step spent in vector-Jacobian products",
    "solve_seconds": (
        "seconds of a step spent in everything else: operator, adjoint, linear solve, transition"
    ),
}


def _operator(channels: int, side: int) -> LinearOperator:
    """A Gaussian blur of standard deviation 2 pixels, of which every fourth pixel in each direction
    is measured."""
    shape = (channels, side, side)
    return Compose(Downsample(shape, 4, "stride"), Blur(gaussian_kernel(2.0), shape))


@lru_cache(maxsize=1)
def _mixture() -> priors.GaussianMixture:
    """Eight components on grey 16 x 16 images in [-1, 1]: smooth means, and stationary 1/f^2
    covariances of their own strength."""
    n, g = MIXTURE_SIDE, torch.Generator().manual_seed(0)
    f = torch.fft.fftfreq(n, dtype=torch.float64)
    power = 1 / (f[:, None].square() + f.square() + 1 / n**2)
    power = power / power.mean()
    basis = torch.fft.fft2(
        torch.eye(n * n, dtype=torch.float64).view(-1, n, n), norm="ortho"
    ).flatten(1)
    covariance = ((basis.conj() * power.flatten()) @ basis.T).real
    means = torch.fft.ifft2(
        power.sqrt() * torch.fft.fft2(torch.randn(8, n, n, generator=g, dtype=torch.float64))
    ).real.flatten(1)
    strengths = torch.logspace(-2.5, -1, 8, dtype=torch.float64)
    return priors.GaussianMixture(
        torch.ones(8, dtype=torch.float64),
        0.4 * means,
        strengths[:, None, None] * covariance,
        shape=(1, n, n),
    )


def estimate(post: Posterior, method: Any, x: Tensor, sigma: float) -> Tensor:
    """D_y(x, sigma), the guided denoised image of a method with a ``transition``, from its own
    step: (B, *E), in the prior's range."""
    level = torch.tensor(sigma, dtype=torch.float64)
    s = torch.tensor(sigma / 2, dtype=torch.float64)
    with torch.no_grad():
        ahead, _ = replace(method, transition=DDIM(0.0)).step(
            post, x, level, s, Streams(0, range(len(x)))
        )
    return x - 2 * (x - ahead)


def _plan(quick: bool) -> list[Cell]:
    photos = ("astronaut",) if quick else ("astronaut", "chelsea")
    seeds, steps = range(1 if quick else 5), 3 if quick else STEPS
    cells: list[Cell] = [
        {"part": "mixture", "method": name, "seed": seed}
        for seed in seeds
        for name in GUIDED_METHODS
    ]
    return cells + [
        {"part": "photo", "method": name, "photo": photo, "steps": steps, "seed": 0}
        for photo in photos
        for name in GUIDED
    ]


def _measure(cell: Cell) -> list[Row]:
    blank: Row = dict.fromkeys(COLUMNS) | {"outcome": "finished"} | cell
    return _on_mixture(blank) if cell["part"] == "mixture" else [_on_photo(blank)]


def _on_mixture(blank: Row) -> list[Row]:
    prior, A, seed = _mixture(), _operator(1, MIXTURE_SIDE), blank["seed"]
    truth = prior.sample(1, seed)[0]
    # The measurement's noise is that of the photographs in [0, 1], where this prior's range is
    # twice as wide.
    post = Posterior(
        prior,
        Likelihood(simulate(A, truth, Gaussian(2 * NOISE), seed=seed), A, Gaussian(2 * NOISE)),
    )
    exact = exact_posterior(post)
    rows = []
    for k, sigma in enumerate(SIGMAS):
        x0 = exact.sample(DRAWS, 100 * seed + k)
        x = x0 + sigma * Streams(100 * seed + k, range(DRAWS)).normal(x0)
        gap = estimate(post, GUIDED_METHODS[blank["method"]], x, sigma) - exact.denoise(x, sigma)
        error = float(gap.square().mean().sqrt())
        lost = not math.isfinite(error)
        rows.append(
            blank
            | {
                "sigma": sigma,
                "error": None if lost else error / 2,
                "outcome": "not finite" if lost else "finished",
            }
        )
    return rows


def _on_photo(row: Row) -> Row:
    A, truth, law = _operator(3, SIDE), photograph(row["photo"], SIDE), Gaussian(NOISE)
    given = Likelihood(simulate(A, truth, law, seed=0), A, law, range=(0.0, 1.0))
    prior, spent = timed(priors.photos())
    post = Posterior(prior, given)
    # The first call of a network sets up what later ones use.
    blank = torch.zeros(1, 3, SIDE, SIDE)
    prior.linearize(blank, torch.tensor(1.0))[1](blank)
    spent.update(denoiser=0.0, vjp=0.0)
    steps, began = row["steps"], time.perf_counter()
    try:
        run = sample(post, GUIDED_METHODS[row["method"]], steps=steps, seed=row["seed"])
    except FloatingPointError:
        return row | {"outcome": "diverged"}
    rest = time.perf_counter() - began - sum(spent.values())
    row |= {f"{kind}_seconds": value / steps for kind, value in (*spent.items(), ("solve", rest))}
    row |= {"denoisers": run.counts["denoiser"] / steps, "vjps": run.counts["vjp"] / steps}
    x = run.samples
    if float((x - 0.5).abs().max()) > ASTRAY:
        return row | {"outcome": "astray"}
    return row | {
        "psnr": float(psnr(x, truth, 1.0)),
        "ssim": float(ssim(x, truth, (0.0, 1.0))),
        "lpips": None if lpips_missing() else float(lpips(x.clamp(0, 1), truth[None], (0.0, 1.0))),
        "chi2": float(given.chi2(x)),
    }


def _findings(rows: list[Row]) -> tuple[str, str, str]:
    photos = [r for r in rows if r["part"] == "photo"]
    return _about_estimates(rows), _about_photos(photos), _about_time(photos)


def _about_estimates(rows: list[Row]) -> str:
    at = (SIGMAS[0], 1.0, 0.1)
    ratios = {name: [error_ratio(rows, name, sigma) for sigma in SIGMAS] for name in GUIDED}
    known = {
        name: [v for v in values if v is not None]
        for name, values in ratios.items()
        if None not in values
    }
    listed = "; ".join(
        f"{name} {' / '.join(f'{known[name][SIGMAS.index(s)]:.2g}' for s in at)}"
        for name in sorted(known, key=lambda n: max(known[n]))
    )
    harm = [f"{name} at {n}" for name, values in known.items() if (n := sum(v > 1 for v in values))]
    return (
        "Error of the guided estimate to the exact conditional mean on the mixture, "
        f"as a ratio to the error of not guiding, at sigma = {' / '.join(f'{s:g}' for s in at)}: "
        f"{listed}. Of {len(SIGMAS)} noise levels, "
        f"guiding is worse than not guiding for {', '.join(harm) if harm else 'no method at any'}."
    )


def _about_photos(photos: list[Row]) -> str:
    lost = {name: sum(r["method"] == name and r["psnr"] is None for r in photos) for name in GUIDED}
    scores = {
        name: v
        for name in GUIDED
        if not lost[name] and (v := mean(photos, name, "psnr")) is not None
    }
    listed = ", ".join(
        f"{name} {scores[name]:.1f}"
        for name in sorted(scores, key=scores.__getitem__, reverse=True)
    )
    gone = ", ".join(f"{name} ({n})" for name, n in lost.items() if n)
    of = len({r["photo"] for r in photos})
    return (
        f"On photographs after {photos[0]['steps']} steps, "
        f"mean PSNR of one sample in dB, best first: {listed or 'none'}. "
        f"Runs that diverged, of {of} for each method: {gone or 'none'}."
    )


def _about_time(photos: list[Row]) -> str:
    found = {name: [mean(photos, name, f"{part}_seconds") for part in PARTS] for name in GUIDED}
    known = {
        name: [1000 * v for v in values if v is not None]
        for name, values in found.items()
        if None not in values
    }
    fast, slow = (choose(known, key=lambda name: sum(known[name])) for choose in (min, max))
    listed = "; ".join(
        f"{name} {' + '.join(f'{v:.1f}' for v in values)}" for name, values in known.items()
    )
    return (
        f"Time of a step in ms, denoiser + VJPs + solve and rest: {listed}. "
        f"{slow} takes {sum(known[slow]) / sum(known[fast]):.0f} times as long as {fast}; "
        "what lies outside the network is at most "
        f"{max(v[2] / sum(v) for v in known.values()):.0%} of a step."
    )


STUDY = Study(
    name="explicit-accuracy",
    question="How far are DPS, PiGDM and moment matching from the exact conditional mean, "
    "and what does a better approximation cost?",
    setting=f"""One linear problem: a circular Gaussian blur of standard deviation 2 pixels, of
which every fourth pixel in each direction is measured, plus Gaussian noise of standard deviation
{NOISE} of the range [0, 1].

Each method is an estimate of E[x0 | x, y]. With D = D(x, sigma), J = dD/dx, v the noise level and
V = sigma^2 A J A^T it is D_y = D + sigma^2 J^T A^T W^-1 (y - A D). DPS, as written: W = v^2 I;
bounded: W = (v^2 + r2 ||A||^2) I. PiGDM: W = v^2 I + r2 A A^T. There
r2 = c sigma^2 / (c + sigma^2), where c = spread^2 is the prior's largest variance along any
direction (for the photograph prior the square of its largest sigma, 400, as its spread is not
known), and c = 1 is the literature's. Moments, row sums (TMPD): W = v^2 I + diag(V 1), a row
sum <= 0 replaced by r2 ||A||^2; diagonal: W = v^2 I + diag(V), exactly; CG and GMRES (MMPS):
W = v^2 I + V, by at most 5 iterations to a relative residual of 1e-4, preconditioned by the same
matrix with a white J.

Mixture: 8 equally likely Gaussians on grey {MIXTURE_SIDE} x {MIXTURE_SIDE} images in [-1, 1]; means
are random fields of spectrum 1 / (f^2 + 1 / {MIXTURE_SIDE}^2) and standard deviation 0.4,
covariances stationary with that spectrum and variances from 0.003 to 0.1 in equal ratios; the truth
is a draw. For each of 5 seeds (1 in the quick run) and each of {len(SIGMAS)} sigmas from
{SIGMAS[0]:g} to {SIGMAS[-1]:g}, {DRAWS} images x = x0 + sigma z with x0 from the exact posterior;
D_y, read off a DDIM step (eta = 0) of the method to sigma / 2, is compared with the closed form in
float64.

Photographs: crops of {SIDE} x {SIDE} pixels of astronaut and chelsea, which come with scikit-image,
the shipped photograph prior, {STEPS} steps (3 in the quick run) on Karras levels (rho = 7) from
sigma 20 to 0.002, ancestral sampling (eta = 1), one sample with seed 0; PSNR and SSIM are of that
sample, LPIPS (AlexNet) only where its weights are installed. Times are of that run, one row in
single precision: the denoiser with the graph that its derivatives need, the products with that
graph, everything else.""",
    columns=COLUMNS,
    plan=_plan,
    measure=_measure,
    draw=draw_accuracy,
    shows=(
        "method",
        "sigma",
        "error",
        "photo",
        "psnr",
        "denoiser_seconds",
        "vjp_seconds",
        "solve_seconds",
    ),
    caption="Top: root mean square error of each guided estimate on the mixture, over draws "
    "and seeds, divided by that of the prior's denoiser without guidance, against noise level; "
    "above 1 guiding does harm, below 1e-4 is cut off. Below left: "
    "PSNR of one sample on each photograph. Below right: mean wall-clock time of a step by part.",
    findings=_findings,
    limits=(
        "The error is measured where the exact posterior puts x. "
        "A method's own x lies elsewhere once it has erred: errors can add up or cancel.",
        "One problem of mild ill-conditioning; "
        "with A A^T proportional to I, DPS bounded and PiGDM with the same c are the same method.",
        "Two small crops and one sample of each: "
        "a few tenths of a dB are not resolved, and PSNR of a sample favours little variety.",
        "Times hold for this network, image size and machine; "
        "a larger network makes everything but its own calls cheaper by comparison.",
    ),
)
