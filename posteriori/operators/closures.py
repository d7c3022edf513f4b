"""Closure quantities of an interferometer: what unknown phases and gains of its stations leave of
visibilities."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator, Operator
from posteriori.operators.loops import Loops, loops
from posteriori.settings import Positive


class _Kind(NamedTuple):
    """Closure phases, or logarithmic closure amplitudes: names of their buffers."""

    places: str
    signs: str
    whiten: str


_PHASES = _Kind("phase_places", "phase_signs", "phase_whiten")
_AMPLITUDES = _Kind("power_places", "power_signs", "power_whiten")


class Closures(Operator):
    """By how much closure phases and logarithmic closure amplitudes of an image differ from those
    measured, in standard deviations: images of ``sky`` -> (k,) real numbers. They were measured to
    be 0, with noise of standard deviation 1.

        V = sky(x),   what is measured: y_ij = g_i conj(g_j) V_ij + noise
        psi_ijk  = arg (V_ij V_jk V_ki / (y_ij y_jk y_ki)),  in (-pi, pi]
        a_ijkl   = log |V_ij V_kl / (V_ik V_jl)| - log |y_ij y_kl / (y_ik y_jl)|
        A(x)     = (L^-1 psi, M^-1 a, (sum x - F) / dF),   L L^T and M M^T their covariances

    The complex gain g_i of a station at a moment cancels in each. Of the triangles and quadrangles
    of a moment as many are taken as are independent, those with the least noise first; they share
    baselines, so that L and M are of blocks, one for each moment, by the variances sigma^2 / |y|^2
    of the phase and of the logarithm of one visibility. That is the first order in noise over
    signal: below a ratio of about 3 neither is Gaussian, and ``least_ratio`` leaves such
    visibilities out. The place of the image is not told, nor its total flux, which ``flux`` adds. A
    visibility of exactly 0, which has no phase, counts as 1.

    sky: linear, real images to (n,) complex visibilities. measured: y, complex (n,). sigma: (n,),
    the standard deviation of each real part. stations: (n, 2) integers i, j. moment: (n,) integers,
    the same where stations had the same gains: one time and channel. flux: F and its standard
    deviation dF, known from elsewhere.
    Raises ``ValueError`` for shapes that do not fit, a station paired with itself, a pair twice in
    one moment, and where no triangle or quadrangle is left.
    Source: Chael, Johnson, Bouman, Blackburn, Akiyama, Narayan, Interferometric imaging directly
    with closure phases and closure amplitudes, 2018; the covariances as in Blackburn, Pesce,
    Johnson, Wielgus, Chael, Christian, Doeleman, Closure statistics in interferometric data, 2020.
    """

    measured: Tensor

    def __init__(
        self,
        sky: LinearOperator,
        measured: Tensor,
        sigma: Tensor,
        stations: Tensor,
        moment: Tensor,
        least_ratio: Positive = 3.0,
        flux: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(sky.in_shape, complex_in=sky.complex_in)
        _check(sky, measured, sigma, stations, moment)
        ratio = (sigma / measured.abs()).double()
        kept = ratio * least_ratio <= 1
        found = loops(ratio.square(), stations, moment, kept)
        if not found.phases.total + found.amplitudes.total:
            raise ValueError(
                f"Closures: {int(kept.sum())} of {len(kept)} visibilities are at least "
                f"{least_ratio:g} times their noise, and no three or four stations are joined by "
                "them at one moment: lower least_ratio, or average over longer times"
            )
        self.sky, self.least_ratio, self.used = sky, float(least_ratio), int(kept.sum())
        self.phases, self.amplitudes = found.phases.total, found.amplitudes.total
        one = torch.ones((), dtype=measured.dtype, device=measured.device)
        self.register_buffer("measured", torch.where(kept, measured, one))
        self._keep(_PHASES, found.phases)
        self._keep(_AMPLITUDES, found.amplitudes)
        if flux is not None and not (math.isfinite(flux[0]) and 0 < flux[1] < math.inf):
            raise ValueError(f"Closures: flux is (value, standard deviation > 0), got {flux}")
        self.flux = flux
        count = self.phases + self.amplitudes + (flux is not None)
        self.__dict__["_out_shape"] = (count,)

    def _keep(self, kind: _Kind, part: Loops) -> None:
        for name, value in zip(kind, (part.places, part.signs, part.whiten), strict=True):
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        V = self.sky(x)
        V = torch.where(V == 0, torch.ones_like(V), V)
        gap = (V / self.measured.to(V.dtype)).log()
        turns = self._summed(_PHASES, gap.imag)
        turns = turns - 2 * math.pi * (turns / (2 * math.pi)).round().detach()
        parts = [
            self._white(_PHASES, turns),
            self._white(_AMPLITUDES, self._summed(_AMPLITUDES, gap.real)),
        ]
        if self.flux is not None:
            parts.append((x.flatten(1).sum(1, keepdim=True) - self.flux[0]) / self.flux[1])
        return torch.cat(parts, 1)

    def _summed(self, kind: _Kind, values: Tensor) -> Tensor:
        """The signed sum around each loop: (B, n) -> (B, moments, loops of one)."""
        signs: Tensor = getattr(self, kind.signs)
        return (values[:, getattr(self, kind.places)] * signs.to(values.dtype)).sum(-1)

    def _white(self, kind: _Kind, values: Tensor) -> Tensor:
        """Loops of unit noise, those that exist: (B, moments, loops) -> (B, count)."""
        whiten: Tensor = getattr(self, kind.whiten)
        rows = torch.einsum("tij,btj->bti", whiten.to(values.dtype), values)
        return rows[:, whiten.diagonal(dim1=1, dim2=2) > 0]


def _check(sky: LinearOperator, y: Tensor, sigma: Tensor, stations: Tensor, moment: Tensor) -> None:
    if sky.complex_in or not sky.complex_out or len(sky.out_shape) != 1:
        raise ValueError(
            f"Closures takes an operator from real images to complex visibilities (n,), got {sky}"
        )
    n = sky.out_shape[0]
    if not y.is_complex():
        raise ValueError(f"Closures takes complex visibilities, got {y.dtype}")
    shapes = tuple(tuple(t.shape) for t in (y, sigma, stations, moment))
    if shapes != ((n,), (n,), (n, 2), (n,)):
        raise ValueError(
            f"Closures takes measured (n,), sigma (n,), stations (n, 2) and moment (n,) for the "
            f"n = {n} visibilities of {sky.label}, got {', '.join(map(str, shapes))}"
        )
    if not bool((sigma.isfinite() & (sigma > 0)).all()) or not bool(y.abs().isfinite().all()):
        raise ValueError("Closures takes finite visibilities, and noise levels > 0")
    if bool((stations[:, 0] == stations[:, 1]).any()):
        raise ValueError("Closures: a station is paired with itself; leave such visibilities out")
    pairs = torch.cat([stations.sort(1).values, moment[:, None]], 1)
    if len(pairs.unique(dim=0)) != n:
        raise ValueError(
            "Closures: two visibilities are of one pair of stations and one moment: average them, "
            "or give channels moments of their own"
        )
