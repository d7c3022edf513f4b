"""Non-Cartesian parallel magnetic resonance: radial, spiral and other trajectories through
k-space."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from posteriori.extras import require_extra
from posteriori.linalg import real_view
from posteriori.operators.base import LinearOperator
from posteriori.settings import Positive


class NonCartesianFourier(LinearOperator):
    """y_c(k) = (H W)^(-1/2) sum_r S_c(r) x(r) exp(-2 pi i k . (r - o)): complex images (H, W) ->
    (coils, n) complex numbers.

    o = (H // 2, W // 2) at every size, so that on the Cartesian grid k = ((i - H // 2) / H,
    (j - W // 2) / W) it is ``MultiCoilFourier``: unitary, fftshift fft2 ifftshift with norm
    "ortho". No density weighs the samples: the adjoint is the exact transpose, and no regridding.

    sensitivities: S, complex (coils, H, W); ones (1, H, W) for a single coil.
    trajectory: k, real (n, 2), along rows and along columns, in cycles per pixel, each in
    [-1/2, 1/2]. Radians per pixel are 2 pi times these, cycles per field of view H (or W) times.
    engine: "finufft", the non-uniform fast Fourier transform of that library (extra ``mri``) on
    one thread of the CPU, both directions with the tolerance eps, so that they stay transposes to
    rounding; images on another device are copied there and back. "sum": the sum as it stands,
    coils n H W products, exact.
    eps: the relative error of the transform that finufft is asked for; single precision reaches
    about 1e-6 at best.

    Raises ``ValueError`` for other shapes and places outside [-1/2, 1/2], ``ImportError`` where
    finufft is missing.
    Source: Barnett, Magland and af Klinteberg, A parallel nonuniform fast Fourier transform
        library, 2019.
    """

    sensitivities: Tensor
    trajectory: Tensor

    def __init__(
        self,
        sensitivities: Tensor,
        trajectory: Tensor,
        eps: Positive = 1e-6,
        engine: Literal["finufft", "sum"] = "finufft",
    ) -> None:
        if sensitivities.ndim != 3 or not sensitivities.is_complex():
            raise ValueError(
                "NonCartesianFourier needs complex sensitivities (coils, H, W), got "
                f"{sensitivities.dtype} of shape {tuple(sensitivities.shape)}"
            )
        if not bool(real_view(sensitivities).isfinite().all()):
            raise ValueError(
                "NonCartesianFourier: the sensitivities hold values that are not finite; "
                "set them to 0 outside the object"
            )
        super().__init__(tuple(sensitivities.shape[1:]), complex_in=True, complex_out=True)
        _check_places(trajectory)
        if engine == "finufft":
            require_extra("mri", "NonCartesianFourier (engine 'sum' needs nothing)", "finufft")
        self.eps, self.engine = float(eps), engine
        self.register_buffer("sensitivities", sensitivities.resolve_conj())
        self.register_buffer("trajectory", trajectory)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        coils = self.sensitivities.to(x.dtype) * x[:, None]
        if self.engine == "finufft":
            return self._fast(coils, self.in_shape, "nufft2d2")
        down, across = self._waves(x.dtype)
        return torch.einsum("bchw,nh,nw->bcn", coils, down, across) / self._size

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        if self.engine == "finufft":
            coils = self._fast(y, self.in_shape, "nufft2d1")
        else:
            down, across = (wave.conj() for wave in self._waves(y.dtype))
            coils = torch.einsum("bcn,nh,nw->bchw", y, down, across) / self._size
        return (self.sensitivities.conj().to(y.dtype) * coils).sum(1)

    @property
    def _size(self) -> float:
        return math.sqrt(math.prod(self.in_shape))

    def _waves(self, dtype: torch.dtype) -> list[Tensor]:
        """exp(-2 pi i k (r - o)) along rows (n, H) and along columns (n, W)."""
        waves = []
        for axis, side in enumerate(self.in_shape):
            place = torch.arange(side, device=self.trajectory.device) - side // 2
            turns = -2 * math.pi * self.trajectory[:, axis, None].double() * place
            waves.append(torch.polar(torch.ones_like(turns), turns).to(dtype))
        return waves

    def _fast(self, t: Tensor, sides: tuple[int, ...], name: str) -> Tensor:
        """Both types of the transform: 2 from images (B, coils, H, W) to samples, 1 back."""
        import finufft

        values = t.detach().cpu().resolve_conj().flatten(0, 1).numpy()
        rows, columns = (
            (2 * math.pi * self.trajectory[:, axis].double()).cpu().numpy() for axis in (0, 1)
        )
        real = np.float64 if t.dtype == torch.complex128 else np.float32
        # One thread adds in one order, so that a run can be repeated to the last digit.
        settings: dict[str, Any] = {
            "eps": self.eps,
            "isign": -1 if name == "nufft2d2" else 1,
            "modeord": 0,
            "nthreads": 1,
        }
        if name == "nufft2d1":
            settings["n_modes"] = sides
        found = getattr(finufft, name)(
            rows.astype(real), columns.astype(real), np.ascontiguousarray(values), **settings
        )
        out = sides if name == "nufft2d1" else (len(rows),)
        return torch.from_numpy(found).view(*t.shape[:2], *out).to(t.device) / self._size


def _check_places(trajectory: Tensor) -> None:
    if trajectory.ndim != 2 or trajectory.shape[1] != 2 or not trajectory.is_floating_point():
        raise ValueError(
            "NonCartesianFourier takes a real trajectory (n, 2), along rows and along columns, "
            f"got {trajectory.dtype} of shape {tuple(trajectory.shape)}"
        )
    furthest = float(trajectory.abs().max()) if len(trajectory) else math.nan
    if not furthest <= 0.5:
        raise ValueError(
            "NonCartesianFourier: the trajectory is in cycles per pixel, within [-0.5, 0.5], and "
            f"reaches {furthest:.6g}; divide radians per pixel by 2 pi, and cycles per field of "
            "view by the pixels of the side"
        )
