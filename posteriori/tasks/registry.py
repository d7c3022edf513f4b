"""The one registry of benchmark problems.

gmm25         25 Gaussians in R^d behind a random wide matrix; known in closed form
gaussian      a Gaussian prior in R^8 seen through 5 numbers; known in closed form
bipsda        three Gaussians in R^10 behind a mask, X-rays or a phase-less matrix; exact draws
ksd           14 of 16 coordinates seen weakly, two modes in the others; known in closed form
mixture256    8 Gaussians in R^256 seen through 128 numbers; known in closed form
kernels       24 pixels on a ring behind one of four blurs; the blur's probabilities are known
photographs   a crop of a photograph, degraded, with the prior that ships; not known
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from posteriori import grid, priors
from posteriori.likelihood import Posterior
from posteriori.noise import NoiseLaw
from posteriori.operators.base import Operator
from posteriori.priors.base import Prior
from posteriori.settings import suggestion
from posteriori.tasks.beds import Bed, gaussian_bed, gmm25, ksd_toy, mixture256
from posteriori.tasks.bipsda import bipsda
from posteriori.tasks.kernels import kernels
from posteriori.tasks.photographs import scene
from posteriori.tasks.references import reference_samples


@dataclass(frozen=True, eq=False)
class BenchmarkTask:
    """A problem of the registry, with the measurement that its settings and its seed draw.

    name, settings: what ``get`` makes it from again. bed: posterior, limits of the noise levels,
    and the image that was measured where it is kept. spacing: of the levels between these limits.
    """

    name: str
    settings: dict[str, Any]
    bed: Bed
    spacing: Literal["log", "karras"]

    @property
    def posterior(self) -> Posterior:
        return self.bed.posterior

    @property
    def prior(self) -> Prior:
        return self.posterior.prior

    @property
    def operator(self) -> Operator:
        return self.posterior.given.A

    @property
    def noise(self) -> NoiseLaw:
        """In the range of the measurement, as ``truth`` is."""
        return self.posterior.given.noise

    @property
    def truth(self) -> Tensor | None:
        """The image (E) that was measured; None where it is not kept."""
        return self.bed.truth

    def exact(self, n: int, seed: int) -> Tensor:
        """n independent draws (n, *E) of p(x | y), float64; different seeds are independent.

        Raises ``TypeError`` where the posterior is not known, ``ValueError`` for n < 1.
        """
        return reference_samples(self.bed, n, seed)

    def levels(self, steps: int) -> Tensor:
        """The (steps + 1,) noise levels on which methods are compared, down to 0."""
        return grid.make(self.spacing, steps, self.bed.sigma_max, self.bed.sigma_min)


def _photographs(image: str = "astronaut", problem: str = "blur", side: int = 128) -> Bed:
    about, prior = scene(image, problem, side), priors.photos()
    return Bed(Posterior(prior, about.given), prior.sigma_max, prior.sigma_min, about.truth)


def _gmm25(d: int = 8, measured: int = 2, seed: int = 0, schedule: str = "original") -> Bed:
    return gmm25(d, measured, seed, schedule)


def _gaussian(kind: str = "general", seed: int = 0) -> Bed:
    return gaussian_bed(kind, seed)


def _bipsda(problem: str = "inpainting-low", seed: int = 0, schedule: str = "original") -> Bed:
    return bipsda(problem, seed, schedule)


def _ksd(sigma: float = 0.2, seed: int = 0) -> Bed:
    return ksd_toy(sigma, seed)


def _mixture256(seed: int = 0) -> Bed:
    return mixture256(seed)


def _kernels(sigma: float = 0.3, seed: int = 0) -> Bed:
    return kernels(sigma, seed)


# How a bed is made from its settings, and the spacing of its noise levels.
TASKS: dict[str, tuple[Callable[..., Bed], Literal["log", "karras"]]] = {
    "gmm25": (_gmm25, "log"),
    "gaussian": (_gaussian, "karras"),
    "bipsda": (_bipsda, "log"),
    "ksd": (_ksd, "karras"),
    "mixture256": (_mixture256, "log"),
    "kernels": (_kernels, "karras"),
    "photographs": (_photographs, "karras"),
}


def get(name: str, **settings: Any) -> BenchmarkTask:
    """A benchmark problem by name; the same settings make the same measurement.

    gmm25: d, measured, seed, schedule. gaussian: kind, seed. bipsda: problem, seed, schedule.
    ksd: sigma, seed. mixture256: seed. kernels: sigma, seed. photographs: image, problem, side.
    Raises ``ValueError`` for an unknown name, and for a value that the task does not have;
    ``TypeError`` for a setting that it does not have; ``ImportError`` for a photograph without
    scikit-image.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; {suggestion(name, TASKS)}")
    make, spacing = TASKS[name]
    known = inspect.signature(make).parameters
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise TypeError(f"{name} has no setting {unknown[0]!r}; {suggestion(unknown[0], known)}")
    whole = {key: parameter.default for key, parameter in known.items()} | settings
    return BenchmarkTask(name, whole, make(**whole), spacing)
