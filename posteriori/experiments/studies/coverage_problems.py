"""What the study of posterior coverage samples: two priors, their measurements, the test functions,
the methods; and all of it in words."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from posteriori import methods, priors
from posteriori.driver import sample
from posteriori.evaluation.distances import flat
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods.base import Method
from posteriori.noise import Gaussian
from posteriori.operators import Dense, LinearOperator, Mask
from posteriori.operators.base import closed_spectrum
from posteriori.priors.mixture import GaussianMixture
from posteriori.problem_file import simulate

# A run draws from the streams (seed, k) of its problem: truths have seeds of their own.
TRUTH, TRUTH_STEPS, NOISE = 2**33, 80, {"mixture": 0.2, "digits": 0.1}
GROUPS = {
    "seen": slice(0, 3),
    "unseen": slice(3, 6),
    "norm": slice(6, 7),
    "fit": slice(7, 8),
    "all": slice(0, 8),
}
# What few levels cost, at the price of 16 ancestral steps; they stand beside the methods and are
# not counted among them.
FEW_STEPS = ("oracle, 16 ancestral", "oracle, 8 midpoint", "MMPS, 16 ancestral", "MMPS, 8 midpoint")
EXACT_AND_BASELINES = ("exact", "oracle", "prior", *FEW_STEPS)
PRIOR, ANCESTRAL, MIDPOINT = methods.Unconditional(), methods.DDIM(1.0), methods.Midpoint()

# Method, steps and problems. On the mixture a cloud gives one sample, on the digits all of its
# particles.
SETUPS: dict[str, dict[str, tuple[Method[Any], int, int]]] = {
    "mixture": {
        "exact": (PRIOR, 0, 600),
        "oracle": (PRIOR, 60, 600),
        "prior": (PRIOR, 60, 600),
        FEW_STEPS[0]: (methods.Unconditional(ANCESTRAL), 16, 600),
        FEW_STEPS[1]: (methods.Unconditional(MIDPOINT), 8, 600),
        FEW_STEPS[2]: (methods.MMPS(iterations=3, rtol=1e-8, transition=ANCESTRAL), 16, 200),
        FEW_STEPS[3]: (methods.MMPS(iterations=3, rtol=1e-8, transition=MIDPOINT), 8, 200),
        "DPS": (methods.DPS(), 60, 600),
        "PiGDM": (methods.PiGDM(), 60, 600),
        "MMPS": (methods.MMPS(iterations=3, rtol=1e-8), 30, 600),
        "DDRM/DDNM+": (methods.DDRM(), 60, 600),
        "DAPS": (methods.DAPS(), 60, 600),
        "PnPDM": (methods.PnPDM(), 60, 600),
        "DiffPIR": (methods.DiffPIR(), 60, 600),
        "REDDiff": (methods.REDDiff(), 60, 600),
        "ScorePriorVI": (
            methods.ScorePriorVI(draws=64, updates=5, polish=200, couplings=4, hidden=16),
            20,
            40,
        ),
        "TDS": (methods.TDS(32, single=True), 60, 100),
        "MCGDiff": (methods.MCGDiff(32, single=True), 60, 600),
        "FPS": (methods.FPS(32, single=True), 60, 600),
        "MomentSMC": (methods.MomentSMC(32, single=True), 20, 32),
    },
    "digits": {
        "prior": (PRIOR, 20, 16),
        "DPS": (methods.DPS(), 20, 10),
        "PiGDM": (methods.PiGDM(), 20, 10),
        "DDRM/DDNM+": (methods.DDRM(), 20, 16),
        "DAPS": (methods.DAPS(), 20, 16),
        "PnPDM": (methods.PnPDM(prior_steps=8), 10, 8),
        "DiffPIR": (methods.DiffPIR(), 20, 16),
        "REDDiff": (methods.REDDiff(), 20, 16),
        "TDS": (methods.TDS(19, twist="pigdm"), 20, 4),
        "MCGDiff": (methods.MCGDiff(19), 20, 10),
        "FPS": (methods.FPS(19), 20, 10),
    },
}

COVERAGE_SETTING = """
Simulation-based calibration: a truth is drawn from the prior, a measurement of it is simulated, and
n samples of the posterior are drawn by a method. Were they exact and independent, the rank of any
function of the truth among those of the samples would be uniform on 0..n, and the central interval
from the i-th smallest to the i-th largest would hold it with probability exactly (n + 1 - 2 i) /
(n + 1).

Mixture: four Gaussians in R^8, weights 0.4, 0.3, 0.2, 0.1, one covariance with random axes and
eigenvalues log-spaced from 0.05 to 1; means are 3 times standard normal, their part along the three
measured directions divided by 4. A has these three orthonormal directions (random) as rows times 1,
0.5 and 0.2; noise 0.2; many posteriors have more than one mode. Truths are exact draws; n = 39.

Digits: the shipped network prior of 32 x 32 pixels; the upper half is measured with noise 0.1 of
[0, 1]. Truths are samples of this prior drawn in 80 ancestral steps. n = 9, so that of the levels
only 80 % can be stated; 19 for clouds.

Eight fixed test functions: three random unit directions within what is measured and three
orthogonal to it, the length of the image, and the length of the residual y - A x, which depends on
y as well. Without the last, samples of the prior itself would pass.

Methods: the defaults of this library, which use the noise level and differ from the published
settings, on Karras' levels from the prior's largest to its smallest (MCGDiff, FPS and MomentSMC
choose their own); steps and problems are columns. MMPS steps by Midpoint, with two denoisers a
step, the others with a transition ancestrally; rows named after a number of steps and a transition
say what few levels cost. DDRM and DDNM+ are one rule with their usual settings (eta 0.85, eta_b 1),
hence one row. MMPS solves to 1e-8 in up to three iterations. PnPDM has 20 prior levels, 8 on the
digits. ScorePriorVI fits a RealNVP of 4 couplings with 16 hidden units for each problem, in 5
updates for each of 20 levels and 200 at the end, with batches of 64; its draws are used without
their weights. On the mixture clouds have 32 particles and give one sample each, so that samples are
independent; on the digits one cloud of 19 gives all 19, copies included. TDS has the twist with the
denoiser's Jacobian on the mixture, PiGDM's on the digits. Problem k has seed k for its samples,
2^33 + k for truth and noise.

Coverage is the share of pairs of a problem and a function. Its standard error takes problems as
independent and functions of one problem as dependent, and is never below that of independent
functions of a calibrated sampler. Verdict of each group of functions: over-confident when the
coverage of a level lies more than 3 standard errors below it, but off-centre when more than nine in
ten truths outside the 80 % intervals lie on one side; under-confident when a coverage lies more
than 3 above, uneven when both happen; otherwise not uniform when the p-value is below 0.001, else
no fault found. Exact samplers are blamed in up to 5 of 100 cases (simulated).
"""


def samples(bed: str, name: str) -> int:
    """Samples of each problem: n + 1 is a multiple of ten, so that ranks fall into ten equal
    bins."""
    method = SETUPS[bed][name][0]
    return 39 if bed == "mixture" else method.returned if method.family == "smc" else 9


@lru_cache(maxsize=1)
def coverage_mixture() -> tuple[GaussianMixture, LinearOperator]:
    """Four Gaussians in R^8 and three measured numbers that tell them apart badly."""
    g = torch.Generator().manual_seed(0)
    means, basis, axes = (torch.randn(n, 8, generator=g, dtype=torch.float64) for n in (4, 8, 8))
    basis, axes = torch.linalg.qr(basis)[0], torch.linalg.qr(axes)[0]
    means = 3 * means @ basis * torch.tensor([0.25] * 3 + [1.0] * 5, dtype=torch.float64) @ basis.T
    covariance = (axes * torch.logspace(-1.3, 0, 8, dtype=torch.float64)) @ axes.T
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    A = Dense(torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)[:, None] * basis[:, :3].T)
    return GaussianMixture(weights, means, covariance[None]), A


@lru_cache(maxsize=1)
def coverage_digits() -> tuple[priors.Prior, LinearOperator]:
    """The digit network, and an operator that hides the lower half."""
    return priors.digits(), Mask((torch.arange(32) < 16)[:, None], (1, 32, 32))


@lru_cache(maxsize=256)
def drawn_problem(bed: str, index: int) -> tuple[Tensor, Posterior]:
    """A truth drawn from the prior, exactly or in 80 ancestral steps, and the posterior of its
    measurement."""
    law, seed = Gaussian(NOISE[bed]), TRUTH + index
    if bed == "mixture":
        gaussians, A = coverage_mixture()
        truth = gaussians.sample(1, seed)[0]
        return truth, Posterior(gaussians, Likelihood(simulate(A, truth, law, seed), A, law))
    prior, A = coverage_digits()
    blind = Posterior(prior, Likelihood(torch.zeros(A.out_shape), A, law, range=(0, 1)))
    truth = sample(blind, PRIOR, steps=TRUTH_STEPS, seed=seed).samples[0]
    return truth, Posterior(prior, Likelihood(simulate(A, truth, law, seed), A, law, range=(0, 1)))


@lru_cache(maxsize=2)
def directions(bed: str) -> Tensor:
    """Six random unit vectors (6, d): three of the row space of A, three orthogonal to it."""
    A = (coverage_mixture() if bed == "mixture" else coverage_digits())[1]
    spectrum, g = closed_spectrum(A), torch.Generator().manual_seed(1)
    c, m = torch.randn(6, A.coordinates, generator=g, dtype=torch.float64), len(spectrum.s)
    c[:3, m:], c[3:, :m] = 0, 0
    v = flat(spectrum.V(c))
    return v / v.norm(dim=1, keepdim=True)


def functions(bed: str, post: Posterior, x: Tensor) -> Tensor:
    """The eight test functions of images x (n, *E), (n, 8) in the order of ``GROUPS``. The last
    looks at y."""
    v = flat(x).double()
    fit = flat(post.given.residual(x)).double().norm(dim=1) / post.given.std
    return torch.cat([v @ directions(bed).T, v.norm(dim=1)[:, None], fit[:, None]], 1)
