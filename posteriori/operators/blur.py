"""Convolution with a known kernel, and what happens at the border."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from posteriori.covariances import CosineNoise, FourierNoise, NoiseCovariance
from posteriori.linalg import cosine
from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Preconditioner, Spectrum

Boundary = Literal["circular", "reflect", "zero", "valid"]
# Indices far beyond the border, modulo its period, to pixels: about the outermost pixel, and about
# its outer edge.
_MIRRORS = {"reflect": (-2, 0), "symmetric": (0, 1)}


class Blur(LinearOperator):
    """y(i) = sum_j kernel(j) x(i - j + c), every channel alike, with c = (kh // 2, kw // 2) the
    kernel's middle tap.

    kernel: (kh, kw), real. shape: (C, H, W).
    boundary: what x is beyond its border: "circular" (periodic; by Fourier transform, closed-form
    spectrum), "reflect" (mirrored about the outermost pixel), "symmetric" (mirrored about its outer
    edge, so that it comes twice; of a kernel that is its own mirror image along rows and columns
    the cosine transform is a closed-form spectrum), "zero", or "valid" (nothing is assumed and y
    shrinks to (C, H - kh + 1, W - kw + 1), what a camera sees).

    Raises ``ValueError`` for a kernel too large for the boundary ("reflect" and "valid"),
    and for one that sums to 0, which is a filter but no blur. Warns when the sum is not 1 within
    1e-3: the image's brightness is then not kept.
    """

    kernel: Tensor

    def __init__(
        self,
        kernel: Tensor,
        shape: tuple[int, ...],
        boundary: Boundary | Literal["symmetric"] = "circular",
    ) -> None:
        super().__init__(shape)
        if kernel.ndim != 2 or not kernel.is_floating_point() or not bool(kernel.isfinite().all()):
            raise ValueError(
                "Blur needs a finite real kernel (kh, kw), "
                f"got {kernel.dtype} of shape {tuple(kernel.shape)}"
            )
        _check_sum(kernel)
        if len(self.in_shape) != 3:
            raise ValueError(f"Blur takes images of shape (C, H, W), got {self.in_shape}")
        (kh, kw), (H, W) = kernel.shape, self.in_shape[1:]
        limit = {"reflect": (2 * H - 1, 2 * W - 1), "valid": (H, W)}.get(boundary, (kh, kw))
        if kh > limit[0] or kw > limit[1]:
            raise ValueError(
                f"Blur: a {kh}x{kw} kernel is too large for {H}x{W} images "
                f"with the boundary {boundary!r} (at most {limit[0]}x{limit[1]}); "
                "crop the kernel, or use 'circular', 'symmetric' or 'zero', which take any size"
            )
        self.boundary = boundary
        self.register_buffer("kernel", kernel)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if self.boundary == "circular":
            return self._filter(x, self.transfer(x))
        C, H, W = self.in_shape
        x = x.reshape(-1, 1, H, W)
        if self.boundary == "symmetric":
            for axis, source in zip((-2, -1), self._sources(x), strict=True):
                x = x.index_select(axis, source)
        elif self.boundary != "valid":
            (top, bottom), (left, right) = self._margins()
            x = F.pad(
                x,
                (left, right, top, bottom),
                mode="reflect" if self.boundary == "reflect" else "constant",
            )
        y = F.conv2d(x, self.kernel.flip(0, 1)[None, None].to(x.dtype))
        return y.view(-1, C, *y.shape[-2:])

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        if self.boundary == "circular":
            return self._filter(y, self.transfer(y).conj())
        kh, kw = self.kernel.shape
        y = F.pad(y.reshape(-1, 1, *y.shape[-2:]), (kw - 1, kw - 1, kh - 1, kh - 1))
        x = F.conv2d(y, self.kernel[None, None].to(y.dtype))
        if self.boundary != "valid":
            # The transpose of padding: what was copied out of the image is added back (mirrors) or
            # dropped (zero).
            for axis, side, (before, _), source in zip(
                (-2, -1), self.in_shape[1:], self._margins(), self._sources(x), strict=True
            ):
                if self.boundary == "zero":
                    x = x.narrow(axis, before, side)
                else:
                    shape = list(x.shape)
                    shape[axis] = side
                    x = x.new_zeros(shape).index_add(axis, source, x)
        return x.reshape(-1, *self.in_shape)

    @property
    def reach(self) -> tuple[int, int]:
        return (
            (0, 0)
            if self.boundary == "valid"
            else (self.kernel.shape[0] // 2, self.kernel.shape[1] // 2)
        )

    def _margins(self) -> list[tuple[int, int]]:
        """Pixels needed before and after the image along rows and columns."""
        return [(k - 1 - k // 2, k // 2) for k in self.kernel.shape]

    def _sources(self, like: Tensor) -> list[Tensor]:
        """Of each pixel of the mirrored image, along rows and along columns, that which it
        repeats."""
        less, edge = _MIRRORS.get(self.boundary, (0, 0))
        found = []
        for side, (before, after) in zip(self.in_shape[1:], self._margins(), strict=True):
            period = max(2 * side + less, 1)
            place = torch.arange(-before, side + after, device=like.device) % period
            found.append(torch.minimum(place, period - edge - place))
        return found

    def _filter(self, x: Tensor, transfer: Tensor) -> Tensor:
        W = x.shape[-1]
        return torch.fft.irfft2(torch.fft.rfft2(x) * transfer[:, : W // 2 + 1], s=x.shape[-2:])

    def transfer(self, like: Tensor) -> Tensor:
        """The kernel's Fourier transform (H, W) in the precision of ``like``: a kernel larger than
        the image wraps around."""
        dtype = like.dtype.to_complex()
        return kept(
            self,
            ("transfer", dtype),
            lambda: self._transform(self.in_shape[1:]).to(dtype),
            self.kernel,
        )

    def _transform(self, sides: tuple[int, ...]) -> Tensor:
        (kh, kw), (H, W) = self.kernel.shape, sides
        rows = (torch.arange(kh, device=self.kernel.device) - kh // 2) % H
        columns = (torch.arange(kw, device=self.kernel.device) - kw // 2) % W
        grid = self.kernel.new_zeros(H, W, dtype=torch.float64)
        grid.index_put_((rows[:, None], columns[None, :]), self.kernel.double(), accumulate=True)
        D = torch.fft.fft2(grid)
        # Rounding must not spoil D(-k) = conj D(k): the phases of a real filter would not be
        # unitary on real images.
        return (D + _mirror(D).conj()) / 2

    def preconditioner(self, r2: float, s2: float) -> Preconditioner | None:
        """For a kernel that is its own mirror image along rows and along columns: a filter of the
        mirrored measurement, by cosines.

        "reflect": the cosines of the mirror about the outermost pixel are the eigenvectors of A,
        which is symmetric once these pixels have the weight 1/2 on each side. With W these weights,
        P = W^(1/2) Q (r2 D^2 + s2)^-1 Q^T W^(1/2), and all eigenvalues of P (r2 A A^H + s2 I) lie
        between 1/4 and 1. "zero", "valid": the cosines of the mirror between pixels, which few
        border pixels spoil.
        """
        if self.boundary in ("circular", "symmetric") or not self._mirrored:
            return None
        whole, sides = self.boundary == "reflect", self.out_shape[1:]
        periods = tuple(max(2 * n - 2, 1) if whole else 2 * n for n in sides)
        power = kept(
            self,
            ("power", periods),
            lambda: self._transform(periods).abs().square()[:, : periods[1] // 2 + 1],
            self.kernel,
        )
        share = 1 / (r2 * power + s2)
        weights = torch.ones(sides, dtype=share.dtype, device=share.device)
        if whole:
            weights[[0, -1]] *= 0.5 if sides[0] > 1 else 1.0
            weights[:, [0, -1]] *= 0.5 if sides[1] > 1 else 1.0

        def near(v: Tensor) -> Tensor:
            for axis in (-2, -1):
                mirror = v.flip(axis)
                if whole:
                    mirror = mirror.narrow(axis, 1, max(v.shape[axis] - 2, 0))
                v = torch.cat([v, mirror], axis)
            v = torch.fft.irfft2(torch.fft.rfft2(v) * share.to(v.dtype), s=periods)
            return v[..., : sides[0], : sides[1]] * weights.to(v.dtype)

        return Preconditioner(near)

    def cosine_power(self) -> Tensor | None:
        """The kernel's power at the frequencies of ``linalg.cosine``, (H, W) float64: A^H A but for
        the border, where A is symmetric."""
        if self.boundary == "valid" or not self._mirrored:
            return None
        H, W = self.in_shape[1:]
        return kept(
            self,
            "cosine power",
            lambda: self._transform((2 * H, 2 * W)).abs().square()[:H, :W],
            self.kernel,
        )

    @property
    def _mirrored(self) -> bool:
        """Whether the kernel is its own mirror image along rows and along columns."""
        return kept(self, "mirrored", lambda: _is_mirrored(self.kernel), self.kernel)

    def _cosine_transfer(self) -> Tensor:
        """D (H, W) float64 of A = C^T diag(D) C, C the cosine transform: of the boundary
        "symmetric" and a kernel that is its own mirror image."""
        H, W = self.in_shape[1:]
        return kept(
            self,
            "cosine transfer",
            lambda: self._transform((2 * H, 2 * W)).real[:H, :W].clone(),
            self.kernel,
        )

    def fourier_power(self) -> Tensor | None:
        """For the circular boundary: the kernel's power, (H, W) float64."""
        return (
            self.transfer(self.kernel.double()).abs().square()
            if self.boundary == "circular"
            else None
        )

    def posterior_covariance(self, r2: float, s2: float) -> NoiseCovariance | None:
        """For the circular boundary, and for the symmetric one where the spectrum is known."""
        if self.boundary == "symmetric" and self._mirrored:
            return CosineNoise(1 / (1 / r2 + self._cosine_transfer().square() / s2))
        power = self.fourier_power()
        return None if power is None else FourierNoise(1 / (1 / r2 + power / s2))

    def measured_power(self) -> Tensor:
        """The kernel's power at the frequencies of ``linalg.cosine`` of measurements, float64; a
        kernel of any kind moves their phases."""
        h, w = self.out_shape[1:]
        return kept(
            self,
            "measured power",
            lambda: self._transform((2 * h, 2 * w)).abs().square()[:h, :w],
            self.kernel,
        )

    def spectrum(self) -> Spectrum | None:
        """For the circular boundary: real Fourier coordinates (Hartley's), s = |D|; the phase of D
        belongs to U. For the symmetric one and a kernel that is its own mirror image: cosines."""
        if self.boundary == "symmetric" and self._mirrored:
            return self._cosine_spectrum()
        if self.boundary != "circular":
            return None
        D = self.transfer(self.kernel.double())
        s = D.abs()
        phase = torch.where(s > 1e-14 * s.max(), D / s.clamp_min(torch.finfo(s.dtype).tiny), 1.0)

        def image(c: Tensor) -> Tensor:
            return c.reshape(-1, *self.in_shape)

        def measurement(c: Tensor) -> Tensor:
            c = image(c)
            reverse = _mirror(c)
            spectral = torch.complex(c + reverse, reverse - c) / 2
            return torch.fft.ifft2(spectral * phase.to(spectral.dtype), norm="ortho").real

        def measured(y: Tensor) -> Tensor:
            spectral = torch.fft.fft2(y, norm="ortho")
            return _hartley(spectral * phase.to(spectral.dtype).conj())

        def seen(x: Tensor) -> Tensor:
            return _hartley(torch.fft.fft2(x, norm="ortho"))

        # Hartley's transform is its own inverse.
        return Spectrum(
            s.flatten().repeat(self.in_shape[0]),
            V=lambda c: image(seen(image(c))),
            Vh=seen,
            U=measurement,
            Uh=measured,
        )

    def _cosine_spectrum(self) -> Spectrum:
        D = self._cosine_transfer()
        sign = torch.where(D < 0, -1.0, 1.0).to(D)

        def image(c: Tensor) -> Tensor:
            return cosine(c.reshape(-1, *self.in_shape), inverse=True)

        return Spectrum(
            D.abs().flatten().repeat(self.in_shape[0]),
            V=image,
            Vh=lambda x: cosine(x).flatten(1),
            U=lambda c: image(c.reshape(-1, *self.in_shape) * sign.to(c)),
            Uh=lambda y: (cosine(y) * sign.to(y)).flatten(1),
        )


def _check_sum(kernel: Tensor) -> None:
    total, size = float(kernel.double().sum()), float(kernel.double().abs().sum())
    if abs(total) <= 1e-6 * size:
        raise ValueError(
            f"Blur: the kernel sums to {total:.3g}, so that it removes the brightness of an image "
            "and cannot be normalised; check the file, or write a filter "
            "that takes differences as an operator of its own (a LinearOperator, or Dense)"
        )
    if abs(total - 1) > 1e-3:
        warnings.warn(
            f"Blur: the kernel sums to {total:.4g}, so that y is {total:.4g} times as bright as x; "
            "give kernel / kernel.sum() to keep the brightness, "
            "or ignore this if the instrument does that",
            stacklevel=4,  # past this, the constructor and its checks
        )


def _is_mirrored(kernel: Tensor) -> bool:
    flips = torch.stack([kernel.flip(0), kernel.flip(1)])
    return min(n % 2 for n in kernel.shape) == 1 and bool(
        (flips - kernel).abs().max() <= 1e-5 * kernel.abs().max()
    )


def _mirror(c: Tensor) -> Tensor:
    """c(-k), indices modulo the sides."""
    return torch.roll(c.flip((-2, -1)), (1, 1), (-2, -1))


def _hartley(spectral: Tensor) -> Tensor:
    """Real orthonormal coordinates (B, n) of a real image from its unitary Fourier transform: sum
    of x(j) (cos + sin)(2 pi j k / n)."""
    return (spectral.real - spectral.imag).flatten(1)


def gaussian_kernel(std: float, size: int | None = None) -> Tensor:
    """A Gaussian of standard deviation ``std`` pixels on a ``size`` x ``size`` grid
    (odd; by default out to 4 std), sum 1, float32."""
    if not 0 < std < math.inf:
        raise ValueError(f"gaussian_kernel: std must be a finite number of pixels > 0, got {std}")
    size = 2 * math.ceil(4 * std) + 1 if size is None else size
    if size < 1 or size % 2 == 0:
        raise ValueError(
            f"gaussian_kernel: size {size} must be odd and positive, "
            "so that the kernel has a middle"
        )
    t = torch.arange(size, dtype=torch.float64) - size // 2
    g = torch.exp(-0.5 * (t / std) ** 2)
    g = g / g.sum()
    return torch.outer(g, g).float()
