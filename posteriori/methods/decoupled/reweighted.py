"""Reweighted: a method for Gaussian noise takes noise with outliers, each measured number with a
precision of its own."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from posteriori.likelihood import Likelihood, Posterior
from posteriori.linalg import per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.decoupled.pnpdm import PnPDM
from posteriori.noise import ComplexGaussian, Gaussian, NoiseLaw
from posteriori.operators.base import LinearOperator
from posteriori.operators.weighted import Weighted
from posteriori.rng import Rng

# The median of the absolute value of a standard normal number.
_MEDIAN = 0.674490


class Reweighing(NamedTuple):
    """The state of the method within, and the precisions w (B, *O)."""

    inner: Any
    weights: Tensor


@dataclass(frozen=True)
class Reweighted(Method[Reweighing]):
    """A method for Gaussian noise under a law that is Gaussian at given precisions: Laplace,
    Student's, Huber's, numbers that are lost, a level that is not known.

        y_i = (A x)_i + core w_i^(-1/2) z_i

        x, x0   a step of the method with sqrt(w) y, sqrt(w) A and the noise level ``core``
        w       given the errors e of an image, by the law

    precisions "drawn": w ~ p(w | e), e = y - A x with the rows x of the method after its step. In
    ``PnPDM``, whose rows are images that were drawn given y, this is a further step of its Gibbs
    sampler: at a fixed rho its target is exactly

        (p * N(0, rho^2 I))(x) p(y | x)

    with the law's own density. Huber's law is no mixture of Gaussians, its w is what is expected.

    precisions "expected": w = E[w | e core / c], e = y - A D(x, sigma) before the step, where
    c = max(core, median |e| / 0.6745): while D is far from the image all numbers are, and those are
    outliers that lie farther from it than most. For any method whose rows are noised images: an
    iteratively reweighted fit that goes along with the run, of which no law is exact.

    method: the method within, for linear A and Gaussian noise, whose rows stand alone; ``PnPDM`` by
        default.
    precisions: "drawn" (default) or "expected", as above.

    Under Gaussian noise it is the method within. The trace "weight" is the mean of w.

    Reference: Geweke, Bayesian treatment of the independent Student-t linear model, 1993; weights
        that are expected, Holland, Welsch, Robust regression using iteratively reweighted
        least-squares, 1977.
    Cost per step: that of the method within, and an operator; with expected weights a denoiser as
        well. Solves are by conjugate gradients.
    Assumes: linear A; one of the laws named, or Gaussian noise.
    Exact when: drawn weights, ``PnPDM`` and its conditions; the law any but Huber's.
    """

    method: Method[Any] = PnPDM()
    precisions: Literal["drawn", "expected"] = "drawn"

    reference: ClassVar[str] = "geweke1993student"
    family: ClassVar[str] = "decoupled"
    needs: ClassVar[frozenset[str]] = frozenset({"linear"})
    cost: ClassVar[str] = "that of the method within; 1 denoiser more with expected weights"

    def refuses(self, post: Posterior) -> str | None:
        law, name = post.given.noise, "Reweighted"
        if not isinstance(post.given.A, LinearOperator):
            return f"{name}: this needs a linear operator, {post.given.A.label} is not linear"
        if law.core is None and post.likelihood.noise.std is None:
            return (
                f"{name}: {type(law).__name__} noise is not Gaussian at given precisions; Laplace, "
                "StudentT, Huber, Outliers and UnknownGaussian are"
            )
        if self.method.group > 1:
            return f"{name}: rows of {type(self.method).__name__} do not stand alone"
        plain = as_gaussian(post)
        if law.core is not None:
            like = plain.likelihood
            plain = weighed(plain, torch.ones_like(like.y.real)[None])
        said = self.method.refuses(plain)
        return None if said is None else f"{name}: {said}"

    def levels(self, post: Posterior, steps: int) -> Tensor | None:
        return self.method.levels(as_gaussian(post), steps)

    def phase(self, post: Posterior, sigma: Tensor, s: Tensor) -> Hashable:
        return self.method.phase(as_gaussian(post), sigma, s)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Reweighing:
        y, shape = post.likelihood.y, (len(x), *post.likelihood.A.out_shape)
        ones = torch.ones(shape, dtype=y.real.dtype, device=y.device)
        return Reweighing(self.method.init(as_gaussian(post), x, rng), ones)

    def rows(self, state: Reweighing) -> Tensor:
        return self.method.rows(state.inner)

    def finish(self, post: Posterior, state: Reweighing, rng: Rng) -> tuple[Tensor, Tensor]:
        return self.method.finish(as_gaussian(post), state.inner, rng)

    def step(
        self, post: Posterior, state: Reweighing, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Reweighing, Info]:
        plain = post.once(as_gaussian)
        core, w = post.given.noise.core, state.weights
        if core is None:
            inner, info = self.method.step(plain, state.inner, sigma, s, rng)
            return Reweighing(inner, w), info
        law = post.given.noise.scaled(plain.likelihood.std / core)
        if self.precisions == "expected":
            x0 = post.prior.denoise(self.rows(state), sigma)
            w = _expected(law, plain.likelihood.residual(x0))
        inner, info = self.method.step(weighed(plain, w), state.inner, sigma, s, rng)
        if self.precisions == "drawn" and float(s) > 0:
            error = plain.likelihood.residual(self.method.rows(inner))
            w = law.precision(error, rng).expand_as(w).to(w)
        return Reweighing(inner, w), info | {"weight": w.flatten(1).mean(1)}


def as_gaussian(post: Posterior) -> Posterior:
    """This posterior under the Gaussian noise that its law is of at the precision 1; itself under
    Gaussian noise."""
    core = post.given.noise.core
    if core is None:
        return post
    plain = (ComplexGaussian if post.given.y.is_complex() else Gaussian)(core)
    like = post.chart.pull(replace(post.given, noise=plain, check=False))
    A = post.likelihood.A.counting(like.A)
    return post.with_likelihood(replace(like, A=A, check=False))


def weighed(post: Posterior, w: Tensor) -> Posterior:
    """With sqrt(w) y and sqrt(w) A in place of y and A, w (B, *O) for the rows of a batch."""
    like: Likelihood = post.likelihood
    root = w.sqrt()
    return post.for_rows(root * like.y, Weighted(like.linear, root))


def _expected(law: NoiseLaw, error: Tensor) -> Tensor:
    core = law.core
    assert core is not None  # a law of precisions, by ``step``
    c = (error.abs().flatten(1).median(1).values / _MEDIAN).clamp(min=core)
    return law.precision(error * per_row(core / c, error)).expand(error.shape).to(error.real)
