"""What a method may claim. Every claim has a sentence and a check, which a method that claims it
falsely does not pass.

The laws are checked on Gaussian priors, where the posterior is known: samples are drawn, and the
Kullback-Leibler divergence of their Gaussian from the exact posterior is compared with what so many
exact samples and so many steps have. They are checked on problems of their own, whatever a user's
posterior is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posteriori.driver import sample
from posteriori.evaluation.distances import gaussian_kl, moments
from posteriori.evaluation.exact import exact_posterior
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods.base import Method
from posteriori.noise import Gaussian as GaussianNoise
from posteriori.operators import Dense, Mask, matrix, random_mask
from posteriori.priors.error_spectrum import Covariance
from posteriori.priors.knowledge import Knowledge
from posteriori.priors.mixture import Gaussian
from posteriori.rng import Streams

# In 60 ancestral steps the exact conditional denoiser itself is at 0.03, and 1024 exact samples of
# six numbers at 0.013.
DRAWS, STEPS, LIMIT = 1024, 60, 0.08


@dataclass(frozen=True)
class Claim:
    """sentence: what is claimed. check: raises ``AssertionError``, with numbers, for a method that
    does not hold it."""

    sentence: str
    check: Callable[[Method[Any]], None]


def check_claims(method: Method[Any]) -> None:
    """Check every claim of a method's class on this setting of it. Raises ``AssertionError`` naming
    a claim that is unknown or fails."""
    for claim in sorted(method.claims):
        assert claim in CLAIMS, (
            f"{type(method).__name__} claims {claim!r}, which no check proves; "
            f"known: {'; '.join(CLAIMS)}"
        )
        CLAIMS[claim].check(method)


def divergence(method: Method[Any], post: Posterior, *, steps: int = STEPS) -> float:
    """KL( Gaussian of the samples || exact posterior ) in nats; infinite where the samples have no
    spread or the run is lost."""
    exact = exact_posterior(post)
    try:
        with warnings.catch_warnings(action="ignore"):
            run = sample(post, method, n=DRAWS, steps=steps, seed=0)
        if len(run.samples) < DRAWS:
            return float("inf")
        return float(
            gaussian_kl(*moments(run.samples, run.log_w), exact.mean.flatten(), exact.covariance)
        )
    except (ValueError, FloatingPointError):
        return float("inf")


def gaussian_problem(*, white: bool, flat: bool = False) -> Posterior:
    """Six numbers seen through four: a prior that is white, or has a covariance with eigenvalues
    from 0.3 to 2; noise 0.1, or 1e7."""
    g = torch.Generator().manual_seed(0)
    V, U, axes = (
        torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))[0] for n in (6, 4, 6)
    )
    covariance = (axes * torch.linspace(0.3, 2, 6, dtype=torch.float64)) @ axes.T
    prior = Gaussian(
        torch.linspace(-0.5, 0.5, 6, dtype=torch.float64),
        torch.tensor(0.8, dtype=torch.float64) if white else covariance,
    )
    A = Dense((U * torch.tensor([1.5, 0.7, 0.3, 0.05], dtype=torch.float64)) @ V[:, :4].T)
    y = A(prior.sample(1, 3))[0] + 0.1 * torch.randn(4, generator=g, dtype=torch.float64)
    return Posterior(prior, Likelihood(y, A, GaussianNoise(1e7 if flat else 0.1)))


class Waves(Gaussian):
    """A Gaussian prior of 6 x 6 pixels whose variances fall with the frequency; ``told``: it offers
    the error of its denoiser."""

    def __init__(self, told: bool) -> None:
        f = torch.arange(6, dtype=torch.float64)
        C = Covariance((1 + f[:, None] + f).pow(-3.0)[None])
        super().__init__(torch.full((1, 6, 6), 0.2, dtype=torch.float64), C(_basis()).flatten(1))
        self.variances, self.told = C.variances, told

    def know(self) -> Knowledge:
        return replace(super().know(), covariance=self.error_by_frequency if self.told else None)

    def error_by_frequency(self, sigma: Tensor | float, shape: tuple[int, ...]) -> Covariance:
        s2 = float(sigma) ** 2
        return Covariance(self.variances * s2 / (self.variances + s2))


def _basis() -> Tensor:
    return torch.eye(36, dtype=torch.float64).view(36, 1, 6, 6)


def _samples_follow(
    what: str, *, inner: int | None = None, **problem: bool
) -> Callable[[Method[Any]], None]:
    """inner: the ``prior_steps`` with which it is checked, of a method that runs the prior at every
    level."""

    def check(method: Method[Any]) -> None:
        if inner is not None:
            assert hasattr(method, "prior_steps"), (
                f"{type(method).__name__} has no prior_steps of which there could be more"
            )
            changed: dict[str, Any] = {"prior_steps": inner}
            method = replace(method, **changed)
        post = gaussian_problem(**problem)
        refusal = method.refuses(post)
        assert refusal is None, f"a claim about {what} cannot be checked: {refusal}"
        found = divergence(method, post, steps=STEPS if inner is None else STEPS // 3)
        assert found <= LIMIT, (
            f"{type(method).__name__}: samples lie at KL {found:.3g} from {what}, "
            f"allowed are {LIMIT}"
        )

    return check


def _moves_in_range(learned: bool) -> Callable[[Method[Any]], None]:
    """From the same state and random numbers another y moves a step's result only within A^T, or
    within C A^T where C is known."""

    def check(method: Method[Any]) -> None:
        for told in (False, True):
            prior, sigma = Waves(told), torch.tensor(0.7, dtype=torch.float64)
            A = Mask(random_mask((6, 6), 0.4, 0), (1, 6, 6))
            given = Likelihood(A(prior.sample(1, 3))[0] + 0.05, A, GaussianNoise(0.1))
            other = replace(
                given, y=given.y + torch.linspace(0.5, 2, given.y.numel(), dtype=torch.float64)
            )
            x = prior.start(
                Streams(1, range(3 * method.group)).normal(
                    prior.mean.new_zeros(3 * method.group, 1, 6, 6)
                ),
                sigma,
            )
            ends = []
            for likelihood in (given, other):
                post, rng = Posterior(prior, likelihood), Streams(0, range(3), method.group)
                state = method.init(post, x, rng)
                ends.append(
                    method.rows(method.step(post, state, sigma, 0.6 * sigma, rng)[0]).flatten(1)
                )
            moved, span = ends[1] - ends[0], matrix(A).T
            C = prior.error_by_frequency(sigma, (1, 6, 6)) if learned and told else None
            span = span if C is None else C(_basis()).flatten(1) @ span
            Q = torch.linalg.qr(span)[0]
            outside = float((moved - moved @ Q @ Q.T).norm() / moved.norm().clamp(min=1e-30))
            where = "A^T" if C is None else "C A^T"
            assert outside < 1e-5, (
                f"{type(method).__name__}: "
                f"of what another y moves {100 * outside:.2g} % lie outside the range of {where}"
            )

    return check


CLAIMS = {
    "flat likelihood gives the prior": Claim(
        "Under a measurement that says nothing samples follow the prior.",
        _samples_follow("the prior under a flat likelihood", white=False, flat=True),
    ),
    "with more prior_steps a flat likelihood gives the prior": Claim(
        "Under a measurement that says nothing samples follow the prior "
        "as the prior's own run at each level gets more steps.",
        _samples_follow("the prior under a flat likelihood", inner=80, white=False, flat=True),
    ),
    "exact for a white Gaussian prior": Claim(
        "For a prior N(m, c I), linear A and Gaussian noise samples follow "
        "the posterior as steps are added.",
        _samples_follow("the posterior of a white Gaussian prior", white=True),
    ),
    "exact for a Gaussian prior": Claim(
        "For a prior N(m, C) with any C, "
        "linear A and Gaussian noise samples follow the posterior as steps are added.",
        _samples_follow("the posterior of a Gaussian prior", white=False),
    ),
    "moves only in the range of A^T": Claim(
        "What y changes in a step lies in the range of A^T: what A does not see is the prior's.",
        _moves_in_range(learned=False),
    ),
    "of C A^T where C is measured, else of A^T: moves only in that range": Claim(
        "What y changes in a step lies in the range of C A^T "
        "where the prior has measured its error's covariance C, else of A^T.",
        _moves_in_range(learned=True),
    ),
}
