"""Convolution of an image and a kernel that are both unknown: blind deblurring."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from posteriori.operators.blur import Blur, Boundary
from posteriori.operators.parametric import Parametric


class BlindConvolution(Parametric):
    """y(i) = sum_j kernel(j) image(i - j + c), c = (kh // 2, kw // 2): ``Blur`` of any kernel.

    shape: (C, H, W) of the image. kernel_shape: (kh, kw). boundary: as of ``Blur``. The parts are
    "image" and "kernel"; y is linear in each of them, not in both. ``at(kernel)`` is a ``Blur``.
    Raises as ``Blur`` does for a kernel too large for the boundary.
    """

    bilinear = True

    def __init__(
        self,
        shape: tuple[int, ...],
        kernel_shape: tuple[int, int],
        boundary: Boundary = "circular",
    ) -> None:
        kh, kw = kernel_shape
        # ``Blur`` refuses what does not fit.
        Blur(torch.full((kh, kw), 1 / (kh * kw)), shape, boundary)
        super().__init__(shape, "kernel", (kh, kw))
        self.boundary = boundary

    @property
    def reach(self) -> tuple[int, int]:
        kh, kw = self.parameters_shape
        return (0, 0) if self.boundary == "valid" else (kh // 2, kw // 2)

    def apply(self, x: Tensor, phi: Tensor) -> Tensor:  # type: ignore[override]
        return convolved(x, phi, self.boundary)

    def feasible(self, phi: Tensor) -> Tensor:
        """Taps >= 0 of sum 1; even ones where none is above 0."""
        taps = phi.clamp(min=0)
        total = taps.sum((-2, -1), keepdim=True)
        even = torch.full_like(taps, 1 / math.prod(self.parameters_shape))
        return torch.where(total > 0, taps / torch.where(total > 0, total, 1.0), even)

    def in_the_middle(self, x: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Where the image repeats beyond its border, kernel and image moved by whole pixels so that
        the centre of mass of the kernel lies in its middle. Taps that would leave are dropped."""
        if self.boundary != "circular":
            return x, phi
        mass, (kh, kw) = self.feasible(phi), self.parameters_shape
        rows, columns = (torch.arange(n).to(phi) - n // 2 for n in (kh, kw))
        down = (mass.sum(2) @ rows).round().long().tolist()
        right = (mass.sum(1) @ columns).round().long().tolist()
        moved = []
        for image, kernel, i, j in zip(x, phi, down, right, strict=True):
            wide = torch.nn.functional.pad(kernel, (kw, kw, kh, kh))
            k = wide[kh + i : 2 * kh + i, kw + j : 2 * kw + j]
            moved.append((image.roll((i, j), (-2, -1)), k))
        return torch.stack([image for image, _ in moved]), torch.stack([k for _, k in moved])

    def gram(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """From the correlations of x with itself and with y where the image repeats."""
        if self.boundary != "circular":
            return super().gram(x, y)
        (kh, kw), (H, W) = self.parameters_shape, x.shape[-2:]
        fx, fy, sides = torch.fft.rfft2(x.double()), torch.fft.rfft2(y.double()), (H, W)
        own = torch.fft.irfft2(fx.abs().square().sum(1), s=sides).flatten(1)
        across = torch.fft.irfft2((fx.conj() * fy).sum(1), s=sides).flatten(1)
        rows = (torch.arange(kh, device=x.device) - kh // 2).repeat_interleave(kw)
        columns = (torch.arange(kw, device=x.device) - kw // 2).repeat(kh)
        apart = (rows[:, None] - rows) % H * W + (columns[:, None] - columns) % W
        return own[:, apart], across[:, rows % H * W + columns % W]

    def read(self, phi: Tensor) -> dict[str, Tensor]:
        """Sum, and root mean square distance of the taps from their centre of mass along rows and
        columns, of the taps without their sign."""
        mass = phi.abs() / phi.abs().sum((-2, -1), keepdim=True).clamp(min=1e-30)
        out = {"sum of the kernel": phi.sum((-2, -1))}
        for axis, along in ((-2, "rows"), (-1, "columns")):
            t = torch.arange(phi.shape[axis]).to(phi)
            line = mass.sum(-1 if axis == -2 else -2)
            middle = (line * t).sum(-1, keepdim=True)
            spread = (line * (t - middle).square()).sum(-1).sqrt()
            out[f"width of the kernel along {along} (pixels)"] = spread
        return out

    def at(self, phi: Tensor) -> Blur:
        return Blur(phi.detach(), self.image_shape, self.boundary)


def convolved(x: Tensor, kernels: Tensor, boundary: Boundary) -> Tensor:
    """Images (B, C, H, W) convolved as by ``Blur``, with one kernel (kh, kw) or one for each row
    (B, kh, kw); differentiable in both."""
    kernels = kernels.expand(len(x), *kernels.shape[-2:])
    B, C, H, W = x.shape
    kh, kw = kernels.shape[1:]
    if boundary == "circular":
        transfer = torch.fft.rfft2(on_ring(kernels, H, W)[:, None])
        return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, s=(H, W))
    if boundary != "valid":
        (top, bottom), (left, right) = ((k - 1 - k // 2, k // 2) for k in (kh, kw))
        mode = "reflect" if boundary == "reflect" else "constant"
        x = F.pad(x, (left, right, top, bottom), mode=mode)
    weights = kernels.flip(1, 2).repeat_interleave(C, 0)[:, None]
    y = F.conv2d(x.reshape(1, B * C, *x.shape[2:]), weights, groups=B * C)
    return y.view(B, C, *y.shape[2:])


def on_ring(kernels: Tensor, H: int, W: int) -> Tensor:
    """Kernels (B, kh, kw) as images (B, H, W) that repeat beyond their border, with the middle tap
    at 0, 0."""
    B, kh, kw = kernels.shape
    rows = (torch.arange(kh, device=kernels.device) - kh // 2) % H
    columns = (torch.arange(kw, device=kernels.device) - kw // 2) % W
    places = (rows[:, None] * W + columns).flatten()
    return kernels.new_zeros(B, H * W).index_add(1, places, kernels.flatten(1)).view(B, H, W)
