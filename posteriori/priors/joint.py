"""A prior of several independent tensors, such as an image and a blur kernel, as one vector.

Parts x_i of priors p_i, each divided by a unit of its own and packed one behind the other:

    u = (x_1 / c_1, x_2 / c_2, ...),   D(u, sigma) = (D_1(c_1 u_1, c_1 sigma) / c_1, ...)

since u_i + sigma z is x_i + c_i sigma z in that unit. Methods see one vector (B, d) at one noise
level, and need not know.

Source: Chung et al., Parallel diffusion models of operator and image for blind inverse problems,
2023 (independent diffusions of both).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from posteriori import identity
from posteriori.chart import AffineChart, Chart, Pair
from posteriori.covariances import NoiseCovariance, WhiteNoise
from posteriori.packing import Shapes, in_a_row, packed_size, unpack
from posteriori.priors.anisotropic import WhiteOnly
from posteriori.priors.base import Prior, Pull, check_shape
from posteriori.priors.knowledge import Knowledge, Sides
from posteriori.priors.leaves import rows_of_leaves
from posteriori.priors.mixture import GaussianMixture
from posteriori.rng import Rng

Interval = tuple[float, float]


class Joint(Prior):
    """Independent parts, packed: ``Joint({"image": image_prior, "kernel": kernel_prior})``.

    Parameters
    ----------
    parts: name -> prior, in the order in which they are packed; all real, or all complex.
    units: name -> c, what one noise level means in a part: it sees noise c sigma. By default the
        standard deviation of one number of it (sqrt(variance)), so that all parts emerge from the
        noise together.
    ranges: name -> the range in which the operator expects the part; by default that of its prior.
    shapes: name -> shape, for a prior of images of any size.

    The operator takes x = (x_1, x_2, ...) packed, (B, d), each part in its range:
    ``operators.Packed`` makes one of a function of several tensors, ``BlindConvolution`` is one.
    ``Run.samples`` are such x, and ``run.parts`` has a run for each part. A "ddpm" grid is a
    linear-beta DDPM's. Grids reach from the largest sigma_max / c of a part to the smallest
    sigma_min / c, so that a network among the parts may be asked beyond its own limits.

    Raises ``ValueError`` for unknown names, complex beside real parts, a shape that is missing, a
    unit that is not > 0, and a range for a part without one.
    """

    def __init__(
        self,
        parts: Mapping[str, Prior],
        *,
        units: Mapping[str, float] | None = None,
        ranges: Mapping[str, Interval] | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        if not parts or len({prior.complex for prior in parts.values()}) > 1:
            raise ValueError("Joint takes at least one part, and real ones or complex ones only")
        for name in parts:
            if "." in name:
                raise ValueError(
                    f"Joint: a part cannot be called {name!r}: its leaves are PART.LEAF"
                )
        for what, given in (("units", units), ("ranges", ranges), ("shapes", shapes)):
            if given and not set(given) <= set(parts):
                raise ValueError(
                    f"Joint: {what} name {sorted(set(given) - set(parts))}; "
                    f"the parts are {list(parts)}"
                )
        sized = {
            name: _shape_of(name, prior, (shapes or {}).get(name)) for name, prior in parts.items()
        }
        scales = {
            name: float((units or {}).get(name, math.sqrt(prior.variance)))
            for name, prior in parts.items()
        }
        for name, c in scales.items():
            if not 0 < c < math.inf:
                raise ValueError(f"Joint: the unit of {name} must be a finite number > 0, got {c}")
        charts = {
            name: _chart(name, parts[name], (ranges or {}).get(name), shape)
            for name, shape in sized.items()
        }
        within = [(prior, scales[name]) for name, prior in parts.items()]
        d = packed_size(sized)
        total = sum(
            math.prod(sized[name]) * prior.variance / scales[name] ** 2
            for name, prior in parts.items()
        )
        super().__init__(
            (d,),
            variance=total / d,
            sigma_max=max(prior.sigma_max / c for prior, c in within),
            sigma_min=min(prior.sigma_min / c for prior, c in within),
            max_std=max(prior.max_std / c for prior, c in within),
            complex=within[0][0].complex,
        )
        self.names = tuple(parts)
        self.units = tuple(scales.values())
        self.charts = tuple(charts.values())
        self.priors = nn.ModuleList(parts.values())

    @property
    def shapes(self) -> Shapes:
        return {name: chart.shape for name, chart in zip(self.names, self.charts, strict=True)}

    @property
    def members(self) -> list[tuple[Prior, float]]:
        """Each part's prior and unit."""
        return list(zip(self.priors, self.units, strict=True))  # type: ignore[arg-type]

    def chart(self, range: Interval | None, shape: tuple[int, ...]) -> Chart:
        if range is not None:
            raise ValueError(
                f"a Joint prior has a range for each part, the likelihood states {range} for all: "
                "leave it out, and give ranges={name: ...} to Joint "
                "where the operator expects another one than the part's prior"
            )
        check_shape(self, shape)
        return Pair(self.names, self.charts, self.units)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.each(lambda prior, part, level: prior.denoise(part, level), x, sigma)

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        pulls: list[Pull] = []

        def one(prior: Prior, part: Tensor, level: Tensor) -> Tensor:
            x0, pull = prior.linearize(part, level)
            pulls.append(pull)
            return x0

        # d(D_i(c u) / c) / du is J_i itself.
        return self.each(one, x, sigma), lambda u: in_a_row(
            pull(v) for pull, v in zip(pulls, self.split(u), strict=True)
        )

    def at(self, /, **leaves: Tensor) -> Prior:
        """With other leaves of its parts, named PART.LEAF: ``joint.at(**{"kernel.means": m})``."""
        if not leaves:
            return self
        rows_of_leaves(self, leaves)
        own: dict[str, dict[str, Tensor]] = {name: {} for name in self.names}
        for key, value in leaves.items():
            name = next(name for name in self.names if key.startswith(f"{name}."))
            own[name][key.removeprefix(f"{name}.")] = value
        moved = {
            name: prior.at(**own[name])
            for name, (prior, _) in zip(self.names, self.members, strict=True)
        }
        ranges = {
            name: chart.range
            for name, chart in zip(self.names, self.charts, strict=True)
            if chart.range is not None
        }
        return Joint(
            moved,
            units=dict(zip(self.names, self.units, strict=True)),
            ranges=ranges,
            shapes=self.shapes,
        )

    def know(self) -> Knowledge:
        """What follows from what all parts know: predicted variances, or a closed form, where all
        have them. Nothing is said of frequencies."""
        known = [prior.know() for prior, _ in self.members]
        predicted = [one.predicted for one in known]
        closed = [one.closed for one in known]
        return replace(
            super().know(),
            error=self._error,
            leaves=self._leaves,
            adjustable=self._adjustable,
            predicted=None if None in predicted else self._predicted,
            anisotropic=_JointUnder(self),
            closed=None if None in closed else _JointClosed(self),
        )

    def _leaves(self) -> dict[str, Sides]:
        parts = zip(self.names, self.members, strict=True)
        return {
            f"{name}.{leaf}": sides
            for name, (prior, _) in parts
            for leaf, sides in prior.know().leaves().items()
        }

    def _adjustable(self) -> dict[str, Tensor]:
        parts = zip(self.names, self.members, strict=True)
        return {
            f"{name}.{leaf}": value
            for name, (prior, _) in parts
            for leaf, value in prior.know().adjustable().items()
        }

    def _error(self, sigma: Tensor | float) -> float:
        sizes = [math.prod(chart.shape) for chart in self.charts]
        errors = [prior.know().error(c * float(sigma)) / c**2 for prior, c in self.members]
        return sum(n * e for n, e in zip(sizes, errors, strict=True)) / sum(sizes)

    def _predicted(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        found = [
            prior.know().moments(c * v, c * sigma)
            for (prior, c), v in zip(self.members, self.split(x), strict=True)
        ]
        means = in_a_row(x0 / c for (x0, _), c in zip(found, self.units, strict=True))
        return means, in_a_row(
            variance / c**2 for (_, variance), c in zip(found, self.units, strict=True)
        )

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.each(
            lambda prior, part, level: prior.start(part, level), z, sigma, scaled=False
        )

    def sample(
        self, n: int, seed: int = 0, *, steps: int = 50, shape: tuple[int, ...] | None = None
    ) -> Tensor:
        """n draws u (n, d), each part by its own prior, from streams of its own; ``Pair.push``
        makes tensors of them."""
        sizes = self.shapes.values()
        drawn = [
            prior.sample(n, seed + (k << 33), steps=steps, shape=size)
            for k, ((prior, _), size) in enumerate(zip(self.members, sizes, strict=True))
        ]
        return in_a_row(part / c for part, c in zip(drawn, self.units, strict=True))

    def record(self) -> dict[str, Any]:
        inner = {
            name: prior.record() for name, (prior, _) in zip(self.names, self.members, strict=True)
        }
        return identity.content(self) | {"priors": inner}

    def split(self, x: Tensor) -> list[Tensor]:
        """u (B, d) -> that of each part, (B, *shape)."""
        return list(unpack(x, self.shapes).values())

    def each(
        self,
        of: Callable[[Prior, Tensor, Tensor], Tensor],
        x: Tensor,
        sigma: Tensor,
        scaled: bool = True,
    ) -> Tensor:
        """``of`` on each part, in its own unit: prior, images (or standard normal numbers, where
        not ``scaled``) and noise level."""
        parts = zip(self.members, self.split(x), strict=True)
        return in_a_row(
            of(prior, c * part if scaled else part, c * sigma) / c for (prior, c), part in parts
        )


@dataclass(frozen=True)
class _JointUnder:
    """The denoiser of packed parts under noise: under white noise that of each part, else, where
    all parts are known in closed form, that of their mixture."""

    joint: Joint

    def refuses(self, covariance: NoiseCovariance) -> str | None:
        if isinstance(covariance, WhiteNoise):
            return None
        try:
            return mixture_of(self.joint).know().anisotropic.refuses(covariance)
        except TypeError as error:
            return f"a Joint prior knows no denoiser under noise with {covariance.words}: {error}"

    def denoise(self, mu: Tensor, covariance: NoiseCovariance) -> Tensor:
        if isinstance(covariance, WhiteNoise):
            return WhiteOnly(self.joint).denoise(mu, covariance)
        return mixture_of(self.joint).know().anisotropic.denoise(mu, covariance)


@dataclass(frozen=True)
class _JointClosed:
    """The closed form of packed parts, from those of the parts."""

    joint: Joint

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        joint = self.joint
        logs = [
            prior.know().exact("density").log_prob(c * v, c * sigma)
            + v[0].numel() * (1 + joint.complex) * math.log(c)
            for (prior, c), v in zip(joint.members, joint.split(x), strict=True)
        ]
        return torch.stack(logs).sum(0)

    def draw_given(self, x: Tensor, sigma: Tensor, rng: Rng) -> Tensor:
        def one(prior: Prior, part: Tensor, level: Tensor) -> Tensor:
            return prior.know().exact("p(x0 | x)").draw_given(part, level, rng)

        return self.joint.each(one, x, sigma)

    def condition(self, matrix: Tensor, y: Tensor, sigma: float) -> tuple[Prior, float]:
        return mixture_of(self.joint).condition(matrix, y, sigma)

    def sample(
        self, n: int, seed: int = 0, *, steps: int = 50, shape: tuple[int, ...] | None = None
    ) -> Tensor:
        return self.joint.sample(n, seed, steps=steps, shape=shape)


def mixture_of(joint: Joint) -> GaussianMixture:
    """A joint prior as a mixture of all combinations of its parts' components. Raises ``TypeError``
    where a part is no such mixture."""
    logs, means, covariances = torch.zeros(1), torch.zeros(1, 0), torch.zeros(1, 0, 0)
    for name, (prior, c), shape in zip(
        joint.names, joint.members, joint.shapes.values(), strict=True
    ):
        # Given a measurement that says nothing, a posterior is the prior.
        known = prior.know().exact("posterior")
        one, _ = known.condition(torch.zeros(1, math.prod(shape)), torch.zeros(1), 1.0)
        if not isinstance(one, GaussianMixture):
            raise TypeError(
                f"the part {name} is a {type(prior).__name__}, not a mixture of real Gaussians"
            )
        logs, means, covariances = (t.to(one.means) for t in (logs, means, covariances))
        K, L = len(logs), len(one.means)
        logs = (logs[:, None] + one.log_weights).flatten()
        means = torch.cat([means.repeat_interleave(L, 0), one.means.repeat(K, 1) / c], 1)
        pairs = zip(
            covariances.repeat_interleave(L, 0), one.covariances.repeat(K, 1, 1) / c**2, strict=True
        )
        covariances = torch.stack([torch.block_diag(*pair) for pair in pairs])
    return GaussianMixture(logs.softmax(0), means, covariances)


def _shape_of(name: str, prior: Prior, given: tuple[int, ...] | None) -> tuple[int, ...]:
    shape = tuple(n for n in prior.shape if n is not None) if given is None else tuple(given)
    if given is None and len(shape) != len(prior.shape):
        raise ValueError(
            f"Joint: {name} has images of shape {prior.shape}, None being any length: "
            f"say which by shapes={{{name!r}: (...)}}"
        )
    check_shape(prior, shape)
    return shape


def _chart(name: str, prior: Prior, range: Interval | None, shape: tuple[int, ...]) -> AffineChart:
    if prior.range is None and range is not None:
        raise ValueError(
            f"Joint: the prior of {name} has no range of its own that could be changed to {range}"
        )
    chart = prior.chart(prior.range if range is None else range, shape)
    if not isinstance(chart, AffineChart):
        raise ValueError(
            f"Joint: {name} is a {type(prior).__name__}, which is packed itself; "
            "give its parts to this one"
        )
    return chart
