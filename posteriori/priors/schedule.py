"""What a network is told: from a noise level sigma in VE coordinates to the network's own scale and
noise label.

    x_net = a x = a x0 + a sigma z

    DiscreteVP     a = 1 / sqrt(1 + sigma^2)   label: the timestep t of 0 .. T - 1 with
                                               sqrt((1 - abar_t) / abar_t) = sigma
    ContinuousVP   a = 1 / sqrt(1 + sigma^2)   label: t with 1 + sigma^2
                                               = exp(beta_min t + (beta_max - beta_min) t^2 / 2)
    RectifiedFlow  a = 1 / (1 + sigma)         label: t = sigma / (1 + sigma), or 1 - t where
                                               t = 1 is data
    VE             a = 1                       label: sigma or ln(sigma)

Coefficients are double precision numbers. A discrete timestep is never rounded: between two of them
the label is a fraction, linear in ln(sigma), and a network that knows integers only is asked at
both neighbours.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from posteriori.settings import Checked

RUNGS = 1000  # of a schedule in continuous time: as many as DDPM's


class Level(NamedTuple):
    """One noise level as a network sees it.

    a, sigma: x_net = a x0 + a sigma z.
    labels, weights: the network's output is sum_i weights[i] F(x_net, labels[i]); integer labels
    are Python ``int``.
    rates: da/dt and d(a sigma)/dt along the time of a velocity network; None where the schedule has
    no such time.
    """

    a: float
    sigma: float
    labels: tuple[float, ...]
    weights: tuple[float, ...] = (1.0,)
    rates: tuple[float, float] | None = None


class Schedule(metaclass=Checked):
    """The noise levels that a network was trained for. Sub-classes are frozen dataclasses of plain
    numbers.

    Attributes
    ----------
    sigma_min, sigma_max: the smallest and largest level it may be asked for.
    name: what a person calls it, for messages.
    """

    sigma_min: float
    sigma_max: float
    name: str

    @abstractmethod
    def level(self, sigma: float) -> Level:
        """Scale and label at sigma. Raises ``ValueError`` naming level and range when sigma lies
        outside by more than 1e-6 of itself."""

    @abstractmethod
    def ladder(self) -> Tensor:
        """Finite levels from sigma_min to sigma_max at equal distances in the schedule's own time,
        (K,) float64: all of a discrete one's, 1000 of a continuous one's."""

    @property
    def pure_noise(self) -> bool:
        """Whether the noisiest label means no signal at all (sigma infinite), where noise and score
        say nothing about x0."""
        return False

    def inside(self, sigma: float) -> float:
        """sigma, moved by at most 1e-6 of itself into the range. Raises ``ValueError`` when it is
        further away."""
        top = math.inf if self.pure_noise else self.sigma_max
        if not self.sigma_min * (1 - 1e-6) <= sigma <= top * (1 + 1e-6) or sigma == math.inf:
            raise ValueError(
                f"the noise level {sigma:.6g} lies outside {self.sigma_min:.6g} to {top:.6g}, "
                f"the range of the {self.name} schedule; "
                "use a grid between the prior's sigma_min and sigma_max"
            )
        return min(max(sigma, self.sigma_min), top)


@dataclass(frozen=True)
class VE(Schedule):
    """x_net = x. ``label``: the network is told sigma, or its natural logarithm."""

    sigma_min: float
    sigma_max: float
    label: Literal["sigma", "log"] = "sigma"
    name: str = field(default="VE", repr=False)

    def __post_init__(self) -> None:
        if self.label not in ("sigma", "log") or not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"VE needs 0 < sigma_min < sigma_max and a label 'sigma' or 'log', got {self}"
            )

    def level(self, sigma: float) -> Level:
        sigma = self.inside(sigma)
        return Level(1.0, sigma, (sigma if self.label == "sigma" else math.log(sigma),))

    def ladder(self) -> Tensor:
        return torch.from_numpy(np.geomspace(self.sigma_min, self.sigma_max, RUNGS))


@dataclass(frozen=True)
class DiscreteVP(Schedule):
    """Discrete-time diffusion with T steps.

    Parameters
    ----------
    alphas_cumprod: abar_0 .. abar_(T-1), strictly decreasing within (0, 1); the last may be 0
        (zero terminal signal-to-noise).
    integer: the network accepts integer timesteps only; between two of them its two outputs are
        mixed, at twice the cost.
    name: for messages.

    Raises ``ValueError`` naming the first bad value. Warns when the chain does not reach noise
    (last abar above 0.01) and when its last level is beyond 1000, where a network's error is
    multiplied by as much.
    """

    alphas_cumprod: tuple[float, ...] = field(repr=False)
    integer: bool = False
    name: str = "given"
    sigma_min: float = field(init=False)
    sigma_max: float = field(init=False)
    sigmas: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        abar = np.asarray([float(v) for v in self.alphas_cumprod])
        inner = abar[:-1] if len(abar) and abar[-1] == 0 else abar
        bad = ~((inner > 0) & (inner < 1)) | ~(np.diff(inner, prepend=np.inf) < 0)
        if len(inner) < 2 or bad.any():
            where = (
                f"entry {int(bad.argmax())} is {inner[int(bad.argmax())]!r}"
                if bad.any()
                else f"got {len(abar)} entries"
            )
            raise ValueError(
                f"the {self.name} schedule needs at least 2 alphas_cumprod, "
                f"strictly decreasing within (0, 1); {where}"
            )
        sigmas = np.sqrt((1 - inner) / inner)
        found = {
            "alphas_cumprod": abar,
            "sigmas": sigmas if len(inner) == len(abar) else np.append(sigmas, np.inf),
        }
        for key, values in found.items():
            object.__setattr__(self, key, tuple(values.tolist()))
        object.__setattr__(self, "sigma_min", float(sigmas[0]))
        object.__setattr__(self, "sigma_max", float(sigmas[-1]))
        if abar[-1] > 0.01:
            warnings.warn(
                f"the {self.name} schedule never reaches noise: "
                f"its last alphas_cumprod is {abar[-1]:.3g}, above 0.01",
                stacklevel=3,
            )
        if not self.pure_noise and self.sigma_max > 1000:
            warnings.warn(
                f"the {self.name} schedule ends at sigma {self.sigma_max:.0f}, above 1000; "
                "give the prior a smaller sigma_max",
                stacklevel=3,
            )

    @classmethod
    def from_betas(
        cls,
        betas: Sequence[float] | Tensor | np.ndarray,
        *,
        integer: bool = False,
        name: str = "given",
    ) -> DiscreteVP:
        """abar_t = prod_(i <= t) (1 - beta_i), in double precision. Raises ``ValueError`` for a
        beta outside (0, 1]."""
        values = np.asarray([float(b) for b in betas])
        bad = ~((values > 0) & (values <= 1))
        if bad.any():
            raise ValueError(
                f"betas must lie in (0, 1], entry {int(bad.argmax())} "
                f"of the {name} schedule is {values[int(bad.argmax())]!r}"
            )
        return cls(tuple(np.cumprod(1 - values).tolist()), integer, name)

    @classmethod
    def linear(
        cls, steps: int = 1000, first: float = 1e-4, last: float = 0.02, *, integer: bool = False
    ) -> DiscreteVP:
        """Betas linear from ``first`` to ``last``. Source: Ho, Jain, Abbeel 2020, section 4; the
        defaults are meant for 1000 steps."""
        return cls.from_betas(
            np.linspace(first, last, steps), integer=integer, name=f"linear (T={steps})"
        )

    @classmethod
    def scaled_linear(
        cls,
        steps: int = 1000,
        first: float = 0.00085,
        last: float = 0.012,
        *,
        integer: bool = False,
    ) -> DiscreteVP:
        """Square roots of the betas linear. Source: Rombach et al., latent diffusion models,
        2022."""
        return cls.from_betas(
            np.linspace(first**0.5, last**0.5, steps) ** 2,
            integer=integer,
            name=f"scaled linear (T={steps})",
        )

    @classmethod
    def cosine(
        cls, steps: int = 1000, offset: float = 0.008, cap: float = 0.999, *, integer: bool = False
    ) -> DiscreteVP:
        """abar(t) = cos^2(pi / 2 (t / T + offset) / (1 + offset)), betas at most ``cap``. Source:
        Nichol and Dhariwal 2021, equation 17."""
        abar = np.cos(np.pi / 2 * (np.linspace(0, 1, steps + 1) + offset) / (1 + offset)) ** 2
        return cls.from_betas(
            np.minimum(1 - abar[1:] / abar[:-1], cap), integer=integer, name=f"cosine (T={steps})"
        )

    def zero_terminal(self) -> DiscreteVP:
        """sqrt(abar) shifted and scaled so that the first stays and the last is 0. Source: Lin et
        al. 2024, algorithm 1."""
        root = np.sqrt(self.alphas_cumprod)
        abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return DiscreteVP(
            tuple(abar.tolist()), self.integer, f"{self.name}, rescaled to zero terminal SNR"
        )

    @property
    def pure_noise(self) -> bool:
        return self.alphas_cumprod[-1] == 0

    def ladder(self) -> Tensor:
        return torch.tensor(
            [sigma for sigma in self.sigmas if sigma < math.inf], dtype=torch.float64
        )

    def timestep(self, sigma: float) -> float:
        """The fractional timestep of a level: linear in ln(sigma); from the last finite level to
        infinity linear in a."""
        finite = self.sigmas[:-1] if self.pure_noise else self.sigmas
        if sigma <= finite[-1]:
            return float(np.interp(math.log(sigma), np.log(finite), np.arange(len(finite))))
        return len(finite) - math.sqrt((1 + finite[-1] ** 2) / (1 + sigma**2))

    def level(self, sigma: float) -> Level:
        sigma = self.inside(sigma)
        a, t = 1 / math.sqrt(1 + sigma**2), self.timestep(sigma)
        if not self.integer:
            return Level(a, sigma, (t,))
        below, share = math.floor(t), t - math.floor(t)
        if min(share, 1 - share) < 1e-6:
            return Level(a, sigma, (round(t),))
        return Level(a, sigma, (below, below + 1), (1 - share, share))

    def learned_variance(self, v: Tensor, t: float) -> Tensor:
        """Var[x0 | x_t] from a network's second output v at timestep t, a fraction of which mixes
        the logarithms of its two neighbours.

        v tells the variance of the step t -> t - 1, log var = f log beta + (1 - f) log beta~ with
        f = (v + 1) / 2, beta~ the part of it that a known x0 leaves. The rest is x0's:
        (var - beta~) / c^2, c = sqrt(abar_(t-1)) beta / (1 - abar_t); at least 1e-6.
        Sources: Nichol and Dhariwal 2021, equation 15; Peng et al. 2024.
        """
        below, share = math.floor(t), t - math.floor(t)
        if share > 0:
            lower, upper = self.learned_variance(v, below), self.learned_variance(v, below + 1)
            return lower.pow(1 - share) * upper.pow(share)
        f = (v + 1) / 2
        now = self.alphas_cumprod[below]
        before = self.alphas_cumprod[below - 1] if below else 1.0
        beta = 1 - now / before
        if below == 0:  # beta~ is 0 there, and training puts that of timestep 1 in its place
            after = self.alphas_cumprod[1]
            floor = (1 - after / now) * (1 - now) / (1 - after)
            return (f * math.log(beta) + (1 - f) * math.log(floor)).exp().clamp(min=1e-6)
        rest = beta * (1 - before) / (1 - now)
        # log(beta / beta~), written so that it does not cancel where the two are nearly equal.
        ratio = math.log1p((before - now) / (1 - before))
        return (torch.expm1(f * ratio) * (rest * ((1 - now) / beta) ** 2 / before)).clamp(min=1e-6)


@cache
def linear_ddpm() -> DiscreteVP:
    """``DiscreteVP.linear()``, on whose levels a prior without a schedule of its own is run. Made
    once: a prior is asked for it at every step."""
    return DiscreteVP.linear()


@dataclass(frozen=True)
class ContinuousVP(Schedule):
    """Continuous-time diffusion: beta(t) = beta_min + (beta_max - beta_min) t for t in [t_min, 1];
    the label is ``label_scale`` t.

    Networks of Song et al. 2021 were trained with ``label_scale=999`` (then t_min = 1e-5), discrete
    ones continued in time likewise.
    Source: Song et al., Score-based generative modeling through stochastic differential equations,
    2021, equation 33.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    label_scale: float = 1.0
    t_min: float = 1e-3
    name: str = field(default="continuous VP", repr=False)
    sigma_min: float = field(init=False)
    sigma_max: float = field(init=False)

    def __post_init__(self) -> None:
        if (
            not 0 < self.beta_min < self.beta_max
            or not 0 < self.t_min < 1
            or not self.label_scale > 0
        ):
            raise ValueError("ContinuousVP needs 0 < beta_min < beta_max, "
                             f"0 < t_min < 1 and label_scale > 0, got {self.beta_min=}, "
                             f"{self.beta_max=}, {self.t_min=}, {self.label_scale=}")  # fmt: skip
        object.__setattr__(self, "sigma_min", self.sigma_at(self.t_min))
        object.__setattr__(self, "sigma_max", self.sigma_at(1.0))
        abar = 1 / (1 + self.sigma_max**2)
        if abar > 0.01:
            warnings.warn(
                f"the {self.name} schedule never reaches noise: "
                f"alphas_cumprod at t = 1 is {abar:.3g}, above 0.01",
                stacklevel=3,
            )

    def sigma_at(self, t: float) -> float:
        """The level at time t."""
        return math.sqrt(math.expm1(self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2))

    def ladder(self) -> Tensor:
        return torch.tensor(
            [self.sigma_at(t) for t in np.linspace(self.t_min, 1, RUNGS)], dtype=torch.float64
        )

    def level(self, sigma: float) -> Level:
        sigma = self.inside(sigma)
        integral, slope = math.log1p(sigma**2), self.beta_max - self.beta_min
        # The root of slope t^2 / 2 + beta_min t = integral, in the form that does not cancel for
        # small t.
        t = 2 * integral / (self.beta_min + math.sqrt(self.beta_min**2 + 2 * slope * integral))
        a, beta = 1 / math.sqrt(1 + sigma**2), self.beta_min + slope * t
        rates = (-0.5 * beta * a, 0.5 * beta * a / sigma)
        return Level(a, sigma, (self.label_scale * t,), rates=rates)


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """x_t = (1 - t) x0 + t z, velocity dx_t/dt = z - x0; the label is ``label_scale`` t.

    flip: t = 1 is data (flow matching papers); the label is then ``label_scale`` (1 - t) and the
        velocity x0 - z. Without it t = 1 is noise (the Stable Diffusion 3 family, whose
        ``label_scale`` is 1000).
    sigma_min, sigma_max: t = 1 exactly is infinite noise; the default range is t from 0.001 to
        0.999.
    shift: k of the network's training, whose times are t = k u / (1 + (k - 1) u) for even u. It
        moves ``ladder`` alone. Source: Esser et al., Scaling rectified flow transformers, 2024,
        equation 23.
    """

    flip: bool = False
    label_scale: float = 1.0
    sigma_min: float = 1e-3
    sigma_max: float = 1e3
    shift: float = field(default=1.0, kw_only=True)
    name: str = field(default="rectified flow", repr=False)

    def __post_init__(self) -> None:
        if (
            not 0 < self.sigma_min < self.sigma_max < math.inf
            or not self.label_scale > 0
            or not self.shift > 0
        ):
            raise ValueError(
                "RectifiedFlow needs 0 < sigma_min < sigma_max < inf, "
                f"label_scale > 0 and shift > 0, got {self}"
            )

    def level(self, sigma: float) -> Level:
        sigma = self.inside(sigma)
        a = 1 / (1 + sigma)
        t, rates = (a, (1.0, -1.0)) if self.flip else (a * sigma, (-1.0, 1.0))
        return Level(a, sigma, (self.label_scale * t,), rates=rates)

    def ladder(self) -> Tensor:
        k = self.shift
        first, last = (
            t / (k - (k - 1) * t)
            for t in (level / (1 + level) for level in (self.sigma_min, self.sigma_max))
        )
        u = torch.from_numpy(np.linspace(first, last, RUNGS))
        t = k * u / (1 + (k - 1) * u)
        return t / (1 - t)


SCHEDULE_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (VE, DiscreteVP, ContinuousVP, RectifiedFlow)
}


def schedule_record(schedule: Schedule) -> dict[str, Any]:
    """A schedule as plain JSON values. Raises ``TypeError`` for a class that ``from_record`` would
    not make."""
    kind = type(schedule).__name__
    if SCHEDULE_KINDS.get(kind) is not type(schedule):
        raise TypeError(
            f"a {kind} schedule cannot be written to a card; use one of {sorted(SCHEDULE_KINDS)}"
        )
    fields = SCHEDULE_KINDS[kind].__dataclass_fields__.values()
    return {"kind": kind} | {f.name: getattr(schedule, f.name) for f in fields if f.init}


def from_record(values: dict[str, Any]) -> Schedule:
    """The inverse of ``record``. Raises ``ValueError`` naming an unknown kind or unfitting
    values."""
    rest = dict(values)
    kind = rest.pop("kind", None)
    if kind not in SCHEDULE_KINDS:
        raise ValueError(f"unknown schedule {kind!r}; known are {sorted(SCHEDULE_KINDS)}")
    try:
        return SCHEDULE_KINDS[kind](**rest)
    except TypeError as error:
        raise ValueError(
            f"the {kind} schedule cannot be made from {sorted(rest)}: {error}"
        ) from None
