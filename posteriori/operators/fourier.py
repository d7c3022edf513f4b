"""Single-coil magnetic resonance: some points of the Fourier transform (k-space) are measured."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from posteriori.covariances import FourierNoise, NoiseCovariance
from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Spectrum
from posteriori.operators.mask import laid, observed_first, scatter


class MaskedFourier(LinearOperator):
    """y = the sampled points of F x, row by row: complex images (H, W) or (C, H, W) -> (m,) complex
    numbers.

    F is the unitary transform over the last two axes (norm "ortho"), so k-space noise has the same
    level in the image. dims: over the last three with 3, as of a volume (D, H, W) excited as a
    whole.

    mask: boolean, True where sampled; broadcast to ``shape``, for example (1, W) for whole columns.
    centred: True when the zero frequency lies at index (H // 2, W // 2) of k-space and the image's
    origin at the same index, as in measured MR data: F = fftshift fft2 ifftshift. False for both at
    index (0, 0), as ``torch.fft.fft2`` has it.
    """

    order: Tensor

    def __init__(
        self, mask: Tensor, shape: tuple[int, ...], centred: bool = True, dims: Literal[2, 3] = 2
    ) -> None:
        super().__init__(shape, complex_in=True, complex_out=True)
        if len(self.in_shape) < dims:
            kinds = "(H, W) or (C, H, W)" if dims == 2 else "(D, H, W) or (C, D, H, W)"
            raise ValueError(f"MaskedFourier takes images of shape {kinds}, got {self.in_shape}")
        self.centred, self.dims = centred, dims
        order, self.sampled = observed_first("MaskedFourier", mask, self.in_shape)
        self.register_buffer("order", order)

    @property
    def inverse(self) -> Tensor:
        """The permutation that undoes ``order``."""
        return kept(self, "inverse", lambda: torch.argsort(self.order), self.order)

    def transform(self, x: Tensor) -> Tensor:
        """The whole k-space F x of images (..., H, W)."""
        axes = tuple(range(-self.dims, 0))
        if not self.centred:
            return torch.fft.fftn(x, dim=axes, norm="ortho")
        return torch.fft.fftshift(
            torch.fft.fftn(torch.fft.ifftshift(x, axes), dim=axes, norm="ortho"), axes
        )

    def back(self, kspace: Tensor) -> Tensor:
        """F^H of a whole k-space (..., H, W)."""
        axes = tuple(range(-self.dims, 0))
        if not self.centred:
            return torch.fft.ifftn(kspace, dim=axes, norm="ortho")
        return torch.fft.fftshift(
            torch.fft.ifftn(torch.fft.ifftshift(kspace, axes), dim=axes, norm="ortho"), axes
        )

    def select(self, kspace: Tensor) -> Tensor:
        """The sampled points of whole k-spaces: (..., *E) -> (..., m)."""
        if tuple(kspace.shape[-len(self.in_shape) :]) != self.in_shape:
            raise ValueError(
                f"select takes k-spaces of shape (..., {', '.join(map(str, self.in_shape))}), "
                f"got {tuple(kspace.shape)}"
            )
        return kspace.flatten(-len(self.in_shape))[..., self.order[: self.sampled]]

    def fill(self, y: Tensor) -> Tensor:
        """Whole k-spaces with 0 where nothing was sampled: (..., m) -> (..., *E)."""
        if y.shape[-1] != self.sampled:
            raise ValueError(
                f"fill takes {self.sampled} sampled points (..., {self.sampled}), "
                f"got {tuple(y.shape)}"
            )
        full = scatter(y.reshape(-1, self.sampled), self.order[: self.sampled], self.in_shape)
        return full.view(*y.shape[:-1], *self.in_shape)

    def layout(self, y: Tensor) -> Tensor:
        return laid(y, self.order[: self.sampled], self.in_shape)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.select(self.transform(x))

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return self.back(self.fill(y))

    def posterior_covariance(self, r2: float, s2: float) -> NoiseCovariance | None:
        if self.dims != 2:
            return super().posterior_covariance(r2, s2)
        seen = torch.arange(self.order.numel(), device=self.order.device) < self.sampled
        grid = seen[self.inverse].view(self.in_shape).double()
        if self.centred:
            grid = torch.fft.ifftshift(grid, (-2, -1))
        return FourierNoise(1 / (1 / r2 + grid / s2))

    def spectrum(self) -> Spectrum:
        return Spectrum(
            torch.ones(self.sampled, device=self.order.device),
            V=lambda c: self.back(c[:, self.inverse].reshape(-1, *self.in_shape)),
            Vh=lambda x: self.transform(x).flatten(1)[:, self.order],
            U=lambda c: c,
            Uh=lambda y: y,
        )
