"""The BIPSDA problems: a mixture of three Gaussians in R^10 behind a mask, an X-ray beam and a
phase-less matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.likelihood import Likelihood, Posterior
from posteriori.noise import Gaussian, NoiseLaw, Poisson
from posteriori.operators.base import Operator
from posteriori.operators.mask import Mask
from posteriori.priors.mixture import GaussianMixture
from posteriori.rng import Streams
from posteriori.tasks.beds import Bed

PROBLEMS = ("inpainting-low", "inpainting-high", "ct", "phase")
SIGMA_MIN, SIGMA_MAX = 0.01, 10.0
BIPSDA_SCHEDULES = {"original": SIGMA_MAX, "extended": 10 * SIGMA_MAX}
UNSEEN = (3, 8)


class Squares(Operator):
    """y = (M x)^2, number by number, for x (d,) and M (m, d): real phase retrieval. Not linear."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__((matrix.shape[1],))
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return (x @ self.matrix.T.to(x)).square()


class PhotonShare(Operator):
    """y = exp(-M (x + shift)), the share of photons that pass along each of m rays: x (d,), M
    (m, d) lengths. Not linear."""

    matrix: Tensor

    def __init__(self, matrix: Tensor, shift: float = 0.0) -> None:
        super().__init__((matrix.shape[1],))
        self.register_buffer("matrix", matrix)
        self.shift = float(shift)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return torch.exp(-(x + self.shift) @ self.matrix.T.to(x))


def prior() -> GaussianMixture:
    """0.4 N(-5, I) + 0.3 N(0, D) + 0.3 N(5, Q D Q^T), D = diag(1, ..., 2) evenly spaced, Q a fixed
    random rotation."""
    one, spread = torch.eye(10, dtype=torch.float64), torch.linspace(1, 2, 10, dtype=torch.float64)
    Q = torch.linalg.qr(
        torch.randn(10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )[0]
    means = torch.tensor([-5.0, 0.0, 5.0], dtype=torch.float64)[:, None].expand(3, 10).contiguous()
    return GaussianMixture(
        torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64),
        means,
        torch.stack([one, spread.diag(), (Q * spread) @ Q.T]),
    )


def bipsda(problem: str, seed: int, schedule: str = "original") -> Bed:
    """One of four problems; ``seed`` draws the truth from ``prior`` and the measurement's noise,
    prior and instrument are fixed.

    "inpainting-low", "inpainting-high": eight of ten numbers (not the fourth and the ninth) with
    Gaussian noise of 0.1, of 5. "ct": 15 rays with lengths uniform in [0.01, 0.05], 1000 photons
    each: counts / 1000 ~ Poisson(1000 exp(-M (x + 10))) / 1000. "phase": the squares of 5 random
    projections with Gaussian noise of 25: (M x)^2 + 25 z, M standard normal.

    schedule: "original" (sigma from 10, which does not drown means that are 16 from the origin) or
    "extended" (from 100), both down to 0.01. The paper draws 10 000 samples for each of 100
    measurements.
    Raises ``ValueError`` for another problem or schedule.
    Source: Crafts and Villa, Benchmarking diffusion annealing-based Bayesian inverse problem
    solvers, 2025, and its published configuration; random numbers, and with them Q and M, are this
    library's own.
    """
    if problem not in PROBLEMS or schedule not in BIPSDA_SCHEDULES:
        known = f"the problems {list(PROBLEMS)} and schedules {list(BIPSDA_SCHEDULES)}"
        raise ValueError(f"bipsda knows {known}, got {problem!r} and {schedule!r}")
    A, noise = _instrument(problem)
    belief = prior()
    truth = belief.sample(1, seed)
    y = noise.sample(A(truth), Streams(seed + 2**33, [0]))[0]
    return Bed(
        Posterior(belief, Likelihood(y, A, noise)), BIPSDA_SCHEDULES[schedule], SIGMA_MIN, truth[0]
    )


def _instrument(problem: str) -> tuple[Operator, NoiseLaw]:
    g = torch.Generator().manual_seed(0)
    if problem == "ct":
        return PhotonShare(
            0.01 + 0.04 * torch.rand(15, 10, generator=g, dtype=torch.float64), 10.0
        ), Poisson(1000.0)
    if problem == "phase":
        return Squares(torch.randn(5, 10, generator=g, dtype=torch.float64)), Gaussian(25.0)
    seen = torch.ones(10, dtype=torch.bool)
    seen[list(UNSEEN)] = False
    return Mask(seen), Gaussian(0.1 if problem == "inpainting-low" else 5.0)
