"""Any pretrained diffusion or flow network as a denoiser.

Every parametrisation is an affine function of the network's output: with x_net = a x and s = a
sigma (see ``schedule``),

    D(x, sigma) = skip x + gain F(a x, label)

    eps     noise z                        skip 1                    gain -sigma
    x0      the image                      skip 0                    gain 1
    v       a z - s x0                     skip 1 / (1 + sigma^2)    gain -sigma / (a (1 + sigma^2))
    score   d log p(x_net) / d x_net       skip 1                    gain a sigma^2
    flow    velocity u = a' x0 + s' z      skip a s' / w             gain -s / w,  w = a s' - a' s
    edm     see ``posteriori.priors.edm``  (no schedule: the label is ln(sigma) / 4)

The v row holds for any a; with a^2 + s^2 = 1 it is the usual D = a x_net - s v.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from posteriori.priors import edm
from posteriori.priors.base import Prior
from posteriori.priors.error_spectrum import ErrorSpectrum
from posteriori.priors.knowledge import Knowledge, levels_within, white_error
from posteriori.priors.leaves import PriorAt, check_rows, rows_of_leaves
from posteriori.priors.network_under import NetworkUnder
from posteriori.priors.schedule import DiscreteVP, Level, Schedule, linear_ddpm
from posteriori.priors.text import TextEncoder

Parametrization = Literal["edm", "eps", "v", "x0", "score", "flow"]
Precision = Literal["bfloat16", "float16"]


def coefficients(parametrization: Parametrization, level: Level) -> tuple[float, float]:
    """skip and gain of the table above, in double precision. Raises ``ValueError`` for "edm", which
    is not of this form."""
    a, sigma = level.a, level.sigma
    if parametrization == "eps":
        return 1.0, -sigma
    if parametrization == "x0":
        return 0.0, 1.0
    if parametrization == "v":
        return 1 / (1 + sigma**2), -sigma / (a * (1 + sigma**2))
    if parametrization == "score":
        return 1.0, a * sigma**2
    if parametrization == "flow" and level.rates is not None:
        da, ds = level.rates
        width = a * ds - da * a * sigma
        return a * ds / width, -a * sigma / width
    raise ValueError(
        f"no coefficients for the parametrisation {parametrization!r} with time rates {level.rates}"
    )


class Network(Prior):
    """A prior made of a network F(x_net, label).

    Parameters
    ----------
    net: called with x_net (B, *E) and labels (B,); returns a tensor, or an object whose ``sample``
        is one. Labels are float32 (float64 for a float64 network), or int64 under a schedule with
        ``integer=True``. Its parameters are frozen. x is cast to their dtype and the result back.
    shape: E; None for a side of any length, as in (3, None, None).
    parametrization: what F returns, see the table in this module.
    schedule: what F was trained with; none for "edm".
    sigma_data: the constant that an "edm" network was trained with, the standard deviation of one
        number of its images: required there, for a wrong one gives wrong images at every level (0.5
        is that of Karras et al., for photographs in [-1, 1]); none elsewhere.
    range: the range of the images that F was trained on.
    variance: variance of one number of an image; sigma_data^2 when None, or 0.25 without one.
    sigma_min, sigma_max: ends of sampling grids; the schedule's when None, 0.002 and 80 for "edm".
    multiple: what height and width must be divisible by.
    pad: "reflect" mirrors other images at the lower and right edge and crops the result; None
        refuses them.
    autocast: the precision in which F runs; coefficients and skip connection keep that of x.
    train_size: (height, width) when F is only known to work at the size it was trained on: another
        size warns once. None: any size.
    errors: pairs (sigma, mean squared error per number) measured on images, increasing in sigma:
        what ``know().error`` interpolates.
    spectrum: the same by colour and frequency, as ``error_spectrum.measure`` finds it: what
        ``know().covariance`` interpolates.
    conditions: the arguments that net takes beside image and label (a class label, an embedding),
        by name, with the shape of one: {"class_labels": ()}. ``prior.at(class_labels=c)`` gives
        them, one for all rows or one per row; without, net has its default.
    text: what turns a sentence into ``conditions``, for ``prior.conditioned(text=...)``; none for a
        network that reads none.

    Outputs with twice the channels (a learned variance) are cut in half, which is said once.
    Raises ``ValueError`` for "edm" without sigma_data, and when parts do not fit each other: an
    "eps" or "score" network with a schedule that ends in pure noise, "flow" with a schedule that
    has no velocity, limits outside the schedule.
    """

    own_precision: bool = True

    def __init__(
        self,
        net: Callable[[Tensor, Tensor], Any],
        *,
        shape: tuple[int | None, ...],
        parametrization: Parametrization = "edm",
        schedule: Schedule | None = None,
        sigma_data: float | None = None,
        range: tuple[float, float] | None = (-1.0, 1.0),
        variance: float | None = None,
        sigma_max: float | None = None,
        sigma_min: float | None = None,
        multiple: int = 1,
        pad: Literal["reflect"] | None = "reflect",
        autocast: Precision | None = None,
        train_size: tuple[int, int] | None = None,
        errors: tuple[tuple[float, float], ...] | None = None,
        spectrum: ErrorSpectrum | None = None,
        conditions: dict[str, tuple[int | None, ...]] | None = None,
        text: TextEncoder | None = None,
    ) -> None:
        low, high = _limits(parametrization, schedule, sigma_min, sigma_max)
        if sigma_data is None and schedule is None:
            raise ValueError(
                "an 'edm' network needs sigma_data, the standard deviation of one number "
                "of the images it was trained on: the constant of its preconditioning "
                "(0.5 for photographs in [-1, 1] by Karras et al. 2022)"
            )
        if sigma_data is not None and not 0 < sigma_data < math.inf:
            raise ValueError(f"sigma_data must be a finite number > 0, got {sigma_data}")
        variance = (
            (0.5 if sigma_data is None else sigma_data) ** 2 if variance is None else variance
        )
        super().__init__(shape, range=range, variance=variance, sigma_max=high, sigma_min=low)
        if multiple < 1 or (multiple > 1 and len(shape) != 3):
            raise ValueError(
                f"images {shape} cannot be padded to multiples: pad={pad!r}, multiple={multiple}"
            )
        self.net = net
        self.parametrization, self.schedule = parametrization, schedule
        self.sigma_data = None if sigma_data is None else float(sigma_data)
        self.multiple = int(multiple)
        self.pad = pad
        self.autocast = autocast
        self.train_size = train_size
        self.errors = (
            None
            if errors is None
            else tuple((float(level), float(value)) for level, value in errors)
        )
        if self.errors is not None and (
            len(self.errors) < 2
            or any(a >= b or e <= 0 for (a, e), (b, _) in pairwise(self.errors))
        ):
            raise ValueError(
                "errors must be at least two pairs (sigma, error > 0) "
                f"with increasing sigma, got {self.errors}"
            )
        self.spectrum = spectrum
        self.conditions = dict(conditions or {})
        self.given: dict[str, Tensor] = {}
        self._text = text
        self._said: set[str] = set()
        self.eval().requires_grad_(False)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        self._check_size(tuple(x.shape[1:]))
        precision = getattr(torch, self.autocast) if self.autocast else None
        if self.schedule is None:
            assert self.sigma_data is not None  # the constructor asks for it
            return edm.denoise(self._run, x, sigma, self.sigma_data, precision)
        level = self.schedule.level(float(sigma))
        skip, gain = coefficients(self.parametrization, level)
        with torch.autocast(
            x.device.type, dtype=precision or torch.bfloat16, enabled=precision is not None
        ):
            parts = [
                weight * self._run(level.a * x, self._label(label, x))
                for label, weight in zip(level.labels, level.weights, strict=True)
            ]
        out = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return out.mul(gain).add(x, alpha=skip)

    def know(self) -> Knowledge:
        """As of every prior: ``errors``, ``spectrum`` and the levels of ``schedule`` where they
        were given, and a learned variance."""
        return replace(
            super().know(),
            error=self._error,
            ladder=self._ladder,
            covariance=None if self.spectrum is None else self.spectrum.at,
            predicted=self._moments,
            anisotropic=NetworkUnder(self),
            text=self._text,
        )

    def _moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """``Knowledge.predicted`` from a network with twice the channels under a ``DiscreteVP``.
        Raises ``TypeError`` for any other."""
        self._check_size(tuple(x.shape[1:]))
        if not isinstance(self.schedule, DiscreteVP):
            raise TypeError(
                "a learned variance belongs to a network trained with a DiscreteVP schedule; "
                "this one has another"
            )
        level = self.schedule.level(float(sigma))
        skip, gain = coefficients(self.parametrization, level)
        precision = getattr(torch, self.autocast) if self.autocast else None
        means, logs = [], []
        for label, weight in zip(level.labels, level.weights, strict=True):
            with torch.autocast(
                x.device.type, dtype=precision or torch.bfloat16, enabled=precision is not None
            ):
                out = self._run(level.a * x, self._label(label, x), whole=True)
            if out.shape[1] != 2 * x.shape[1]:
                raise TypeError(
                    f"the network returns {out.shape[1]} channels for {x.shape[1]}: "
                    "it predicts no variance"
                )
            mean, v = out.split(x.shape[1], dim=1)
            means.append(weight * mean)
            logs.append(weight * self.schedule.learned_variance(v, label).log())
        return torch.stack(means).sum(0).mul(gain).add(x, alpha=skip), torch.stack(logs).sum(
            0
        ).exp()

    def _error(self, sigma: Tensor | float) -> float:
        """As for every prior; interpolated in log-log between the measured ``errors`` where there
        are some."""
        if self.errors is None:
            return white_error(self.variance, sigma)
        levels, values = zip(*self.errors, strict=True)
        # Below the first level the error is nearly that of the noise itself: never above sigma^2.
        measured = math.exp(
            float(np.interp(math.log(float(sigma)), np.log(levels), np.log(values)))
        )
        return min(measured, float(sigma) ** 2)

    def _ladder(self) -> Tensor:
        """The levels of the network's own schedule that lie between sigma_min and sigma_max; a
        linear-beta DDPM's for "edm"."""
        schedule = linear_ddpm() if self.schedule is None else self.schedule
        return levels_within(schedule.ladder(), self.sigma_min, self.sigma_max)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Also refuses a size that is not a multiple when ``pad`` is None, and warns of one that F
        was not trained on."""
        super()._check_shape(shape)
        self._check_size(shape)

    def _check_size(self, shape: tuple[int, ...]) -> None:
        size = shape[-2:]
        if self.pad is None and any(n % self.multiple for n in size):
            nearest = tuple(max(1, round(n / self.multiple)) * self.multiple for n in size)
            raise ValueError(
                f"the network takes sides that are multiples of {self.multiple}, "
                f"got {size[0]}x{size[1]}; the nearest size is {nearest[0]}x{nearest[1]}, "
                "or set pad='reflect'"
            )
        if self.train_size is not None and size != tuple(self.train_size):
            trained = f"{self.train_size[0]}x{self.train_size[1]}"
            self._say_once(
                f"the network was trained on {trained} images and runs on {size[0]}x{size[1]}: "
                "its images may be poor at this size"
            )

    def _label(self, label: float, x: Tensor) -> Tensor:
        dtype = torch.int64 if isinstance(label, int) else torch.float64
        return torch.full((len(x),), label, dtype=dtype, device=x.device)

    def _run(
        self,
        x: Tensor,
        label: Tensor,
        colour: Tensor | None = None,
        shrunk: Tensor | None = None,
        *,
        whole: bool = False,
    ) -> Tensor:
        """F with everything around it that is not mathematics: dtype, padding, output container,
        learned variance (kept when ``whole``). label: (B,), or a map of them (B, H, W). colour: of
        the noise, (B, COLOURS), and shrunk, like x, for networks that take them."""
        kind = next((p.dtype for p in self.parameters()), x.dtype)
        inner = x.to(kind)
        if self.multiple > 1:
            for dim in (-2, -1):
                side = -(-x.shape[dim] // self.multiple) * self.multiple
                inner = mirrored(inner, dim, side)
                label = mirrored(label, dim, side) if label.ndim > 1 else label
                shrunk = None if shrunk is None else mirrored(shrunk, dim, side)
        if label.is_floating_point():  # half precision cannot tell timestep 999 from 1000
            label = label.to(torch.float64 if kind == torch.float64 else torch.float32)
        told = {} if colour is None else {"colour": colour.to(label)}
        if shrunk is not None:
            told["shrunk"] = shrunk.to(inner)
        out = self.net(inner, label, **self._conditions(inner), **told)
        out = out if isinstance(out, Tensor) else out.sample
        out = out if whole else self._image(out, inner)
        if out.shape[2:] != x.shape[2:]:
            out = out[..., : x.shape[-2], : x.shape[-1]]
        return out.to(x.dtype)

    def _conditions(self, x: Tensor) -> dict[str, Tensor]:
        """What ``at`` gave, for each row of x, in its precision where it is no whole number."""
        out = {}
        for name, value in self.given.items():
            if value.ndim == len(self.conditions[name]):
                value = value.expand(len(x), *value.shape)
            check_rows("Network.at", len(value), x)
            if value.ndim == x.ndim and self.multiple > 1:  # a picture beside the picture
                for dim in (-2, -1):
                    value = mirrored(value, dim, x.shape[dim])
            out[name] = value.to(x) if value.is_floating_point() else value.to(x.device)
        return out

    def at(self, /, **leaves: Tensor) -> Prior:
        """With the ``conditions`` given, and other parameters of the network."""
        rows = rows_of_leaves(self, leaves)
        twin = copy.copy(self)
        if any(own and name not in self.conditions for name, own in rows.items()):
            twin.given = {}
            return PriorAt(twin, self.given | leaves)
        twin.given = self.given | {
            name: value for name, value in leaves.items() if name in self.conditions
        }
        rest = {name: value for name, value in leaves.items() if name not in self.conditions}
        return PriorAt(twin, rest) if rest else twin

    def _leaves_known(self) -> dict[str, tuple[int | None, ...]]:
        return self.conditions | super()._leaves_known()

    def _image(self, out: Tensor, x: Tensor) -> Tensor:
        if out.shape == x.shape:
            return out
        channels = x.shape[1]
        if out.shape == (len(x), 2 * channels, *x.shape[2:]):
            self._say_once(
                f"the network returns {2 * channels} channels for {channels}: "
                "the second half (its learned variance) is left out"
            )
            return out[:, :channels]
        raise ValueError(
            f"the network returned {tuple(out.shape)} for images {tuple(x.shape)}; expected "
            f"the same shape, or twice the channels ({2 * channels}) for a learned variance"
        )

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            warnings.warn(text, stacklevel=4)


def mirrored(x: Tensor, dim: int, size: int) -> Tensor:
    """x lengthened to ``size`` along ``dim`` by reflection at its far edge, again and again where
    one reflection is too short."""
    while (missing := size - x.shape[dim]) > 0:
        n = x.shape[dim]
        take = min(missing, max(n - 1, 1))
        x = torch.cat([x, x.narrow(dim, max(n - 1 - take, 0), take).flip(dim)], dim)
    return x


def _limits(
    parametrization: Parametrization,
    schedule: Schedule | None,
    sigma_min: float | None,
    sigma_max: float | None,
) -> tuple[float, float]:
    """The prior's sigma_min and sigma_max, after checking that parametrisation and schedule fit."""
    if (parametrization == "edm") != (schedule is None):
        need = (
            "takes no schedule"
            if schedule is not None
            else "needs the schedule it was trained with, e.g. DiscreteVP.linear()"
        )
        raise ValueError(f"a network of parametrization {parametrization!r} {need}")
    if schedule is None:
        return (0.002 if sigma_min is None else sigma_min), (
            80.0 if sigma_max is None else sigma_max
        )
    if parametrization in ("eps", "score") and schedule.pure_noise:
        raise ValueError(
            f"an {parametrization!r} network says nothing about the image at pure noise, "
            f"where the {schedule.name} schedule ends: the image would be 0/0. "
            "Use a 'v' or 'x0' network, or the schedule that this network was really trained with"
        )
    low = schedule.sigma_min if sigma_min is None else schedule.inside(sigma_min)
    high = schedule.sigma_max if sigma_max is None else schedule.inside(sigma_max)
    if parametrization == "flow" and schedule.level(high).rates is None:
        raise ValueError(
            "a 'flow' network needs a schedule with a velocity (RectifiedFlow or ContinuousVP), "
            f"not {schedule.name}"
        )
    return low, high
