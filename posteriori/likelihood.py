"""A measurement, an operator and a noise law make a likelihood; a prior and a likelihood make a
posterior.

    y = A(x) + noise,   x expressed in the likelihood's declared ``range``

The sampler may move other coordinates u, as images in another range or several tensors packed into
one vector: a ``Posterior`` holds the prior's chart x = push(u), by which the likelihood is stated
in u and samples are handed back as x.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from posteriori.chart import Chart
from posteriori.linalg import dot, real_view
from posteriori.memo import kept
from posteriori.noise import ComplexGaussian, Gaussian, NoiseLaw
from posteriori.operators.base import LinearOperator, Operator, dot_test, repeat_test, solve
from posteriori.operators.compose import Chain
from posteriori.operators.dense_matrix import log_det
from posteriori.operators.gain import gain
from posteriori.operators.whitened import Whitened, Whitener
from posteriori.packing import pack
from posteriori.priors.base import Prior, check_shape, placed

if TYPE_CHECKING:
    from posteriori.methods.base import Method
    from posteriori.plan import Plan

Range = tuple[float, float]
# First and end of the rows and of the columns of an image.
Frame = tuple[tuple[int, int], tuple[int, int]]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Likelihood:
    """p(y | x) = noise(y | A x).

    Parameters
    ----------
    y: one measurement, shape O (or (1, *O)); floating point or complex, finite.
    A: the operator.
    noise: the law, its level in the units of y.
    range: the range in which A expects x, for example (0, 1); None for a prior without a range of
        its own.
    r2: extra uncertainty r2 of x itself: y ~ N(A x, noise + r2 A A^H). For Gaussian noise and
        linear A.
    frame: the rows and columns of x, each (first, end), in which results are shown and scored,
        where x is larger than what was measured; samples hold all of x, ``Run.in_frame`` is the run
        within it. None: all of x.
    check: call A twice on one image, and compare ``A.adjoint`` with a linear A, once per operator
        (two to four operator calls).

    Raises ``TypeError`` when y, A and the noise are not of one kind of number, ``ValueError`` when
    two calls of A differ, and ``AdjointError`` when its adjoint does not match.
    """

    y: Tensor
    A: Operator
    noise: NoiseLaw
    range: Range | None = None
    r2: Tensor | float = 0.0
    check: bool = True
    frame: Frame | None = None

    def __post_init__(self) -> None:
        y, wanted = self.y, self.A.out_shape
        if not isinstance(y, Tensor) or not (y.is_floating_point() or y.is_complex()):
            kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(
                f"y must be a floating point or complex tensor in physical units, got {kind}; "
                "convert it, e.g. y.float() / 255"
            )
        y = y.resolve_conj().resolve_neg()
        object.__setattr__(self, "y", y)
        if tuple(y.shape) == (1, *wanted):
            object.__setattr__(self, "y", y[0])
        elif tuple(y.shape) != wanted:
            raise ValueError(
                f"y has shape {tuple(y.shape)}, "
                f"but {type(self.A).__name__} makes measurements of shape {wanted}"
            )
        if y.is_complex() != self.A.complex_out:
            want, got = ("complex", "real") if self.A.complex_out else ("real", "complex")
            raise TypeError(
                f"{type(self.A).__name__} makes {want} measurements, y is {got} ({y.dtype})"
            )
        bad = ~(real_view(y).isfinite().all(-1) if y.is_complex() else y.isfinite())
        if bool(bad.any()):
            first = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"y has {int(bad.sum())} values that are not finite, the first at {first}; "
                "mask them out with an operator"
            )
        self.noise.check_kind(y)
        _check_frame(self.frame, self.A.in_shape)
        if self.check:
            real = y.real.dtype
            kept(self.A, ("call tests", real), lambda: _test_calls(self.A, real))

    @property
    def std(self) -> float:
        """The noise level of a Gaussian law. Raises ``TypeError`` for another law."""
        if self.noise.std is None:
            cure = "" if self.noise.core is None else ", which Reweighted makes of it"
            raise TypeError(
                f"this needs Gaussian noise{cure}, the likelihood has "
                f"{type(self.noise).__name__} noise"
            )
        return self.noise.std

    @property
    def linear(self) -> LinearOperator:
        """A, when it is linear. Raises ``TypeError`` otherwise."""
        if not isinstance(self.A, LinearOperator):
            raise TypeError(f"this needs a linear operator, {type(self.A).__name__} is not linear")
        return self.A

    @property
    def each(self) -> Tensor:
        """y as a batch: (1, *O), or (B, *O) where each row of a batch has a measurement of its own,
        see ``for_rows``."""
        return self.y if self.y.ndim > len(self.A.out_shape) else self.y[None]

    def for_rows(self, y: Tensor, A: Operator | None = None) -> Likelihood:
        """This likelihood with the measurement y[k] for row k of a batch, (B, *O), and by A, a
        ``RowWise`` where rows have operators of their own: what ``sample_each`` gives to
        methods."""
        return _unchecked(self, y=y, A=self.A if A is None else A)

    @property
    def conjugate(self) -> bool:
        """Whether A is linear and the noise Gaussian: p(y | x) is then a Gaussian function of x."""
        return isinstance(self.A, LinearOperator) and self.noise.std is not None

    def residual(self, x0: Tensor) -> Tensor:
        """y - A(x0): (B, *E) -> (B, *O)."""
        return self.y - self.A(x0)

    def log_prob(self, x0: Tensor) -> Tensor:
        """log p(y | x0), normalised over y: (B,)."""
        if not isinstance(self.r2, Tensor) and self.r2 == 0:
            return self.noise.log_prob(self.y, self.A(x0))
        residual = self.residual(x0)
        quadratic = dot(residual, solve(self.linear, residual, self.r2, self.std**2))
        channels = 2 if residual.is_complex() else 1
        determinant = log_det(self.linear, self.r2, self.std**2).to(quadratic)
        logs = determinant + residual[0].numel() * math.log(2 * math.pi)
        return -0.5 * (quadratic + channels * logs)

    def score(self, x0: Tensor) -> Tensor:
        """grad_x0 log p(y | x0): (B, *E). With r2 > 0: A^H (r2 A A^H + sigma^2 I)^-1 (y - A x0)."""
        if not isinstance(self.r2, Tensor) and self.r2 == 0:
            clean, pull = self.A.linearize(x0)
            return pull(self.noise.score(self.y, clean))
        return gain(self.linear, self.residual(x0), self.r2, self.std**2)

    def whitened(self) -> Likelihood:
        """This likelihood with white noise: g W y, g W A and a level of g, where W makes the noise
        white and det(g W) = 1; itself where the noise is white, or not Gaussian."""
        W = self.noise.whitening(self.y)
        if W is None:
            return self
        law = ComplexGaussian if self.y.is_complex() else Gaussian
        whitener = Whitener(W, self.A.out_shape, self.A.complex_out).to(self.y.device)
        A = (
            Whitened(self.A, whitener)
            if isinstance(self.A, LinearOperator)
            else Chain(whitener, self.A)
        )
        y = whitener(self.y[None])[0]
        return replace(self, y=y, A=A, noise=law(whitener.level), check=False)

    def widen(self, r2: Tensor | float) -> Likelihood:
        """The likelihood of a point known only up to variance r2: y ~ N(A x, noise + r2 A A^H)."""
        return _unchecked(self, r2=r2)

    def chi2(self, x0: Tensor) -> Tensor:
        """Mean squared residual over the noise variance, (B,): about 1 for the truth, and for a
        posterior sample. Of noise that is not white, of the residual made white."""
        if self.noise.whitening(self.y) is not None:
            return self.whitened().chi2(x0)
        residual = self.residual(x0)
        real = real_view(residual)
        variance = self.noise.variance(self.y)
        if residual.is_complex() and variance.ndim:
            variance = variance[..., None]
        return (real.square() / variance).flatten(1).mean(1)


def _unchecked(likelihood: Likelihood, **changes: Any) -> Likelihood:
    # The checks of __post_init__ have been passed already; this runs once per sampling step.
    twin = object.__new__(Likelihood)
    for name, value in (vars(likelihood) | changes).items():
        object.__setattr__(twin, name, value)
    return twin


def framed(image: Tensor, frame: Frame | None) -> Tensor:
    """An image cut to a frame; one that is no larger than the frame as it is."""
    if frame is None or tuple(image.shape[-2:]) == tuple(end - first for first, end in frame):
        return image
    (top, bottom), (left, right) = frame
    return image[..., top:bottom, left:right]


def _check_frame(frame: Frame | None, shape: tuple[int, ...]) -> None:
    if frame is not None and (
        len(shape) < 2
        or any(not 0 <= a < b <= n for (a, b), n in zip(frame, shape[-2:], strict=True))
    ):
        raise ValueError(
            f"frame {frame} must be the (first, end) "
            f"of some rows and of some columns of images of shape {shape}"
        )


def _test_calls(A: Operator, dtype: torch.dtype) -> None:
    rtol = 1e-3 if dtype != torch.float64 else 1e-6
    repeat_test(A, rtol, dtype)
    if isinstance(A, LinearOperator):
        dot_test(A, rtol, dtype)


def _check_images(prior: Prior, A: Operator) -> None:
    if prior.complex == A.complex_in:
        return
    models, takes = ("complex", "real") if prior.complex else ("real", "complex")
    cure = (
        f"for a prior of two real channels use {A.label}(...) @ ComplexChannels((2, H, W)), "
        "or priors.ComplexImages(prior)"
    )
    if prior.complex:
        cure = (
            "give an operator on complex images, "
            f"or the prior of two real channels with {A.label} on them"
        )
    raise TypeError(f"the prior models {models} images, {A.label} takes {takes} ones; {cure}")


@dataclass(frozen=True, eq=False, repr=False)
class Posterior:
    """p(x | y) of a prior and a likelihood, in the prior's coordinates u.

    ``chart`` maps u to the user's x; ``given`` is the likelihood that the user stated,
    ``likelihood`` the same as a function of u, and with white noise where it is Gaussian.
    Raises ``ValueError`` when a prior with a range meets a likelihood that states none, and when
    shapes do not fit; ``TypeError`` when one of prior and operator has real images and the other
    complex ones.
    """

    prior: Prior
    likelihood: Likelihood
    given: Likelihood = field(init=False)
    chart: Chart = field(init=False)
    _answers: dict[Any, Any] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", self.likelihood)
        A = self.likelihood.A
        chart = self.prior.chart(self.likelihood.range, A.in_shape)
        check_shape(self.prior, chart.shape)
        _check_images(self.prior, A)
        object.__setattr__(self, "chart", chart)
        object.__setattr__(self, "likelihood", chart.pull(self.likelihood.whitened()))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.likelihood.A.in_shape

    def to_given(self, u: Tensor) -> Tensor:
        """x (B, *E) as the user's A takes it: of a chart of several parts, these packed."""
        return pack(self.chart.push(u))

    @property
    def log_volume(self) -> float:
        """log p(y) as y was measured, less that in the sampler's coordinates: the chart's
        ``log_volume`` of each real number of y that it has rescaled."""
        y, each = self.likelihood.y, self.chart.log_volume
        return (
            (y.numel() * (2 if y.is_complex() else 1)) * each
            if each is not None and self.likelihood.conjugate
            else 0.0
        )

    def at_work(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Posterior:
        """This posterior on one device and in one precision: itself where nothing changes.

        device: by default that of the prior's tensors, or of y when the prior has none. dtype: of
        the real numbers that images are made of, float32 or float64; by default that of y, at least
        float32. y and the prior are cast to it and operators cast themselves; a network keeps the
        precision of its own. Raises ``ValueError`` for another dtype, and naming a device that is
        not there.
        """
        y = self.given.y
        held = next((t for t in [*self.prior.parameters(), *self.prior.buffers()]), None)
        place = (y.device if held is None else held.device) if device is None else _device(device)
        real = y.real.dtype if dtype is None else dtype
        real = torch.float32 if dtype is None and real in (torch.float16, torch.bfloat16) else real
        if real not in (torch.float32, torch.float64):
            raise ValueError(
                f"images are worked on in float32 or float64, got dtype={dtype}; "
                "a network may have a precision of its own"
            )
        prior, A = placed(self.prior, place, real), self.given.A
        if any(t.device != place for t in [*A.parameters(), *A.buffers()]):
            A = copy.deepcopy(A).to(place)
        kind = real.to_complex() if y.is_complex() else real
        if prior is self.prior and A is self.given.A and (y.device, y.dtype) == (place, kind):
            return self
        return Posterior(
            prior, replace(self.given, y=y.to(device=place, dtype=kind), A=A, check=False)
        )

    def once(self, make: Callable[[Posterior], T]) -> T:
        """``make(self)``. Within a run it is made at the first call and kept as long as the run;
        outside it is made anew, since an operator may have been changed in between."""
        if self._answers is None:
            return make(self)
        if make not in self._answers:
            self._answers[make] = make(self)
        return self._answers[make]

    def for_rows(self, y: Tensor, A: Operator | None = None) -> Posterior:
        """This posterior with the measurement y[k], in the prior's coordinates, for row k of a
        batch, and by A where it is given; what it is asked ``once`` is new."""
        return self._with(likelihood=self.likelihood.for_rows(y, A))

    def with_likelihood(self, likelihood: Likelihood) -> Posterior:
        """This prior under another likelihood in the prior's coordinates."""
        return self._with(likelihood=likelihood)

    def under(self, prior: Prior) -> Posterior:
        """This likelihood under another prior of images in the same coordinates: a part of this
        one, as ``know().views`` gives, or this one at other leaves."""
        return self._with(prior=prior)

    def _with(self, **changes: Any) -> Posterior:
        twin = object.__new__(Posterior)
        changes |= {"_answers": None if self._answers is None else {}}
        for name, value in (vars(self) | changes).items():
            object.__setattr__(twin, name, value)
        return twin

    def plan(
        self, method: Method[Any] | None = None, n: int = 1, steps: int | None = None, **how: Any
    ) -> Plan:
        """What ``sample`` with these arguments would do and take, after one timed step; see
        ``posteriori.plan``.

        method: without one that of a problem file that names none, and the plan's first note says
        why: by operator, noise, number of numbers and prior (``posteriori.problem_file.advice``).
        """
        from posteriori.plan import plan

        if method is not None:
            return plan(self, method, n=n, steps=steps, **how)
        from posteriori.problem_file.advice import choose

        choice = choose(self, steps)
        if choice.levels is not None:
            how = {"grid": choice.levels} | how
        found = plan(self, choice.method, n=n, steps=choice.steps or steps, **how)
        return replace(found, notes=(str(choice), *found.notes))

    def __repr__(self) -> str:
        law = ", ".join(
            f"{name}={value if isinstance(value, str) else format(value, 'g')}"
            for name, value in self.given.noise.levels.items()
        )
        unit = (
            f", range [{self.given.range[0]:g}, {self.given.range[1]:g}]"
            if self.given.range is not None
            else ""
        )
        measured = f"y {list(self.given.y.shape)} {str(self.given.y.dtype).removeprefix('torch.')}"
        return (
            f"Posterior({self.prior!r}, {measured} = {self.given.A!r} + "
            f"{type(self.given.noise).__name__}({law}){unit})"
        )


def _device(name: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the second
        raise ValueError(
            f"device {str(name)!r} is not available here: {str(error).splitlines()[0]}"
        ) from None
