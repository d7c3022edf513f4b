"""Parallel magnetic resonance: every receive coil measures k-space of the image weighted by its own
sensitivity."""

from __future__ import annotations

import warnings

from torch import Tensor

from posteriori.linalg import real_view
from posteriori.operators.base import LinearOperator
from posteriori.operators.fourier import MaskedFourier


class MultiCoilFourier(LinearOperator):
    """y_c = the sampled points of F (S_c x): complex images (H, W) -> (coils, m) complex numbers.

    sensitivities: S, complex (coils, H, W). mask, centred: as in ``MaskedFourier``, the same for
    all coils. The adjoint is sum_c conj(S_c) F^H fill(y_c). No map is normalised here: the norm of
    A is max sqrt(sum_c |S_c|^2) for a full mask.
    Warns when sum_c |S_c|^2 is not 1 within 10 % wherever it is not 0.
    """

    sensitivities: Tensor

    def __init__(self, sensitivities: Tensor, mask: Tensor, centred: bool = True) -> None:
        if sensitivities.ndim != 3 or not sensitivities.is_complex():
            kind = f"{sensitivities.dtype} of shape {tuple(sensitivities.shape)}"
            raise ValueError(
                f"MultiCoilFourier needs complex sensitivities (coils, H, W), got {kind}"
            )
        if not bool(real_view(sensitivities).isfinite().all()):
            raise ValueError(
                "MultiCoilFourier: the sensitivities hold values that are not finite; "
                "set them to 0 outside the object"
            )
        super().__init__(tuple(sensitivities.shape[1:]), complex_in=True, complex_out=True)
        power = sensitivities.abs().square().sum(0)
        inside = power[power > 1e-6 * power.max()]
        low, high = (float(inside.min()), float(inside.max())) if inside.numel() else (1.0, 1.0)
        if low < 0.9 or high > 1.1:
            warnings.warn(
                f"MultiCoilFourier: the sum over coils of |S_c|^2 lies between {low:.3g} "
                f"and {high:.3g} where it is not 0, and is 1 for normalised maps: "
                "divide them by its root, unless the image shall carry their shading",
                stacklevel=3,  # past the constructor and its checks
            )
        self.register_buffer("sensitivities", sensitivities.resolve_conj())
        self.fourier = MaskedFourier(mask, self.in_shape, centred)

    def select(self, kspace: Tensor) -> Tensor:
        """The sampled points of whole k-spaces: (..., coils, H, W) -> (..., coils, m)."""
        return self.fourier.select(kspace)

    def fill(self, y: Tensor) -> Tensor:
        """Whole k-spaces with 0 where nothing was sampled:
        (..., coils, m) -> (..., coils, H, W)."""
        return self.fourier.fill(y)

    def layout(self, y: Tensor) -> Tensor:
        return self.fourier.layout(y)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.select(self.fourier.transform(self.sensitivities.to(x.dtype) * x[:, None]))

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return (self.sensitivities.conj().to(y.dtype) * self.fourier.back(self.fill(y))).sum(1)
