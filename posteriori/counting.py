"""Counting what a run costs. The driver wraps prior and operator once per run, so that a method
cannot forget to count.

A call on a batch of B rows counts B, times ``Knowledge.passes``; a run reports calls per sample.
Closed-form solves through a spectrum are not operator calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from posteriori.covariances import NoiseCovariance
from posteriori.likelihood import Posterior
from posteriori.operators.base import LinearOperator, Map, Operator, Preconditioner, Spectrum
from posteriori.priors.base import Prior, Pull, limits_of
from posteriori.priors.knowledge import Knowledge
from posteriori.priors.pulls import Together, pulled_together

CALL_KINDS = ("denoiser", "vjp", "operator", "adjoint")


class Counter:
    """Row-calls of each kind so far, and what the denoiser was last given and gave, which tells who
    made the first non-finite number."""

    def __init__(self) -> None:
        self.calls = dict.fromkeys(CALL_KINDS, 0)
        self.denoised: tuple[Tensor, Tensor] | None = None

    def per_sample(self, n: int) -> dict[str, float]:
        ratios = {kind: calls / n for kind, calls in self.calls.items()}
        return {kind: int(r) if r == int(r) else r for kind, r in ratios.items()}


class CountedPrior(Prior):
    def __init__(self, inner: Prior, counter: Counter) -> None:
        super().__init__(inner.shape, range=inner.range, complex=inner.complex, **limits_of(inner))
        self.inner, self.counter = inner, counter
        self.passes = inner.know().passes

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.counter.calls["denoiser"] += self.passes * len(x)
        out = self.inner.denoise(x, sigma)
        self.counter.denoised = x, out
        return out

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        self.counter.calls["denoiser"] += self.passes * len(x)
        x0, pull = self.inner.linearize(x, sigma)
        self.counter.denoised = x, x0
        return x0, Together(partial(self._pulled, pull), partial(self._pulled_together, pull))

    def _pulled(self, pull: Pull, u: Tensor) -> Tensor:
        self.counter.calls["vjp"] += self.passes * len(u)
        return pull(u)

    def _pulled_together(self, pull: Pull, u: Tensor) -> Tensor:
        # One pass through the graph, and as many products as vectors.
        self.counter.calls["vjp"] += self.passes * u.shape[0] * u.shape[1]
        return pulled_together(pull, u)

    def know(self) -> Knowledge:
        known = self.inner.know()
        if known.views:
            seen = tuple(CountedPrior(view, self.counter) for view in known.views)
            known = replace(known, views=seen)
        predicted = None if known.predicted is None else self._predicted
        guided = None if known.guided is None else self._guided
        return replace(known, predicted=predicted, anisotropic=_CountedUnder(self), guided=guided)

    def _guided(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Pull]:
        guided = self.inner.know().guided
        assert guided is not None  # ``know`` offers this one where there is one
        self.counter.calls["denoiser"] += 2 * len(x)
        x0, free, pull = guided(x, sigma)
        self.counter.denoised = x, x0

        def counted(u: Tensor) -> Tensor:
            self.counter.calls["vjp"] += 2 * len(u)
            return pull(u)

        return x0, free, counted

    def at(self, /, **leaves: Tensor) -> Prior:
        return CountedPrior(self.inner.at(**leaves), self.counter)

    def _linearize_at(
        self, x: Tensor, sigma: Tensor, leaves: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Pull]]:
        x0, pulls = super()._linearize_at(x, sigma, leaves)
        return x0, {name: partial(self._pulled, pull) for name, pull in pulls.items()}

    def _linearize_leaves(
        self, x: Tensor, sigma: Tensor, leaves: dict[str, Tensor]
    ) -> tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]]:
        # Built on the counted ``at``.
        x0, pull = super()._linearize_leaves(x, sigma, leaves)

        def counted(u: Tensor) -> dict[str, Tensor]:
            self.counter.calls["vjp"] += self.passes * len(u)
            return pull(u)

        return x0, counted

    def _predicted(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        self.counter.calls["denoiser"] += len(x)
        x0, variance = self.inner.know().moments(x, sigma)
        self.counter.denoised = x, x0
        return x0, variance

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.inner.start(z, sigma)

    def _bank(self, n: int, shape: tuple[int, ...]) -> Tensor:
        # Kept with the prior itself, which outlives the run: its calls are made once, for all runs.
        return self.inner._bank(n, shape)


@dataclass(frozen=True)
class _CountedUnder:
    counted: CountedPrior

    def refuses(self, covariance: NoiseCovariance) -> str | None:
        return self.counted.inner.know().anisotropic.refuses(covariance)

    def denoise(self, mu: Tensor, covariance: NoiseCovariance) -> Tensor:
        counter = self.counted.counter
        counter.calls["denoiser"] += self.counted.passes * len(mu)
        out = self.counted.inner.know().anisotropic.denoise(mu, covariance)
        counter.denoised = mu, out
        return out


class CountedOperator(Operator):
    def __init__(self, inner: Operator, counter: Counter) -> None:
        super().__init__(inner.in_shape, complex_in=inner.complex_in, complex_out=inner.complex_out)
        self.inner, self.counter = inner, counter
        self.affine = inner.affine
        self.__dict__["_out_shape"] = inner.out_shape

    def forward(self, x: Tensor) -> Tensor:
        self.counter.calls["operator"] += len(x)
        return self.inner(x)

    def counting(self, other: Operator) -> Operator:
        return _counted_operator(other, self.counter)

    @property
    def label(self) -> str:
        return self.inner.label

    @property
    def steady_norm(self) -> float | None:
        return self.inner.steady_norm

    def surrogate(self) -> Operator | None:
        return self.inner.surrogate()

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.inner.pseudo_inverse(y)

    def linearize(self, x: Tensor) -> tuple[Tensor, Map]:
        calls = self.counter.calls
        calls["operator"] += len(x)
        y, pull = self.inner.linearize(x)

        def counted(u: Tensor) -> Tensor:
            calls["adjoint"] += len(u)
            return pull(u)

        return y, counted

    def differential(self, x: Tensor) -> tuple[Tensor, Map, Map]:
        # Built on the counted ``linearize``: one operator, one adjoint (to be transposed), then one
        # operator for each push.
        y, push, pull = super().differential(x)

        def counted(v: Tensor) -> Tensor:
            self.counter.calls["operator"] += len(v)
            return push(v)

        return y, counted, pull


class CountedLinearOperator(LinearOperator):
    def __init__(self, inner: LinearOperator, counter: Counter) -> None:
        super().__init__(inner.in_shape, complex_in=inner.complex_in, complex_out=inner.complex_out)
        self.inner, self.counter = inner, counter
        self.__dict__["_out_shape"] = inner.out_shape

    def forward(self, x: Tensor) -> Tensor:
        self.counter.calls["operator"] += len(x)
        return self.inner(x)

    def adjoint(self, y: Tensor) -> Tensor:
        self.counter.calls["adjoint"] += len(y)
        return self.inner.adjoint(y)

    def counting(self, other: Operator) -> Operator:
        return _counted_operator(other, self.counter)

    @property
    def label(self) -> str:
        return self.inner.label

    @property
    def steady_norm(self) -> float:
        # Kept with the operator itself: it is measured once, for all runs.
        return self.inner.steady_norm

    def spectrum(self) -> Spectrum | None:
        return self.inner.spectrum()

    def cosine_power(self) -> Tensor | None:
        return self.inner.cosine_power()

    def fourier_power(self) -> Tensor | None:
        return self.inner.fourier_power()

    def measured_power(self) -> Tensor | None:
        return self.inner.measured_power()

    def posterior_covariance(self, r2: float, s2: float) -> NoiseCovariance | None:
        return self.inner.posterior_covariance(r2, s2)

    def preconditioner(self, r2: float, s2: float) -> Preconditioner | None:
        return self.inner.preconditioner(r2, s2)


def _counted_operator(A: Operator, counter: Counter) -> Operator:
    if isinstance(A, LinearOperator):
        return CountedLinearOperator(A, counter)
    return CountedOperator(A, counter)


def counted(post: Posterior, counter: Counter) -> Posterior:
    """The posterior with its prior and operator wrapped, which keeps what is asked of it once a
    run."""
    wrapped = _counted_operator(post.likelihood.A, counter)
    likelihood = replace(post.likelihood, A=wrapped, check=False)
    twin = object.__new__(Posterior)
    wrapped_prior = CountedPrior(post.prior, counter)
    changes = {"prior": wrapped_prior, "likelihood": likelihood, "_answers": {}}
    for name, value in (vars(post) | changes).items():
        object.__setattr__(twin, name, value)
    return twin
