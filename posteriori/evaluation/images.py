"""Image metrics with nothing guessed: the range of values is stated, nothing is clamped or rounded
unless asked."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


class MetricUnavailable(RuntimeError):  # noqa: N818 (a state of the installation, not a mistake)
    """A metric whose package or weights are not on this machine."""


def _pair(x: Tensor, reference: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """x (B, ...) and the reference broadcast to it, in double precision."""
    if reference.ndim == x.ndim - 1:
        reference = reference[None]
    if reference.shape[1:] != x.shape[1:] or len(reference) not in (1, len(x)):
        raise ValueError(
            f"images of shape {tuple(x.shape)} cannot be compared with a reference "
            f"of shape {tuple(reference.shape)}"
        )
    if not data_range > 0:
        raise ValueError(
            "data_range is the highest minus the lowest possible value "
            f"(1 for [0, 1], 2 for [-1, 1]), got {data_range}"
        )
    kind = torch.complex128 if x.is_complex() or reference.is_complex() else torch.float64
    return x.detach().to(kind).cpu(), reference.detach().to(kind).cpu().expand(x.shape)


def psnr(
    x: Tensor, reference: Tensor, data_range: float, *, clamp: tuple[float, float] | None = None
) -> Tensor:
    """10 log10(data_range^2 / mean |x - reference|^2) of each row: (B, *E) -> (B,) decibels; inf
    for equal images.

    reference: (B, *E) or one image E. clamp: clip both to these values first. Complex images are
    compared as complex numbers: take ``.abs()`` of both for a magnitude PSNR.
    """
    a, b = _pair(x, reference, data_range)
    if clamp is not None:
        a, b = a.clamp(*clamp), b.clamp(*clamp)
    return 10 * torch.log10(data_range**2 / (a - b).abs().square().flatten(1).mean(1))


def ssim(x: Tensor, reference: Tensor, range: tuple[float, float]) -> Tensor:
    """Structural similarity of each row, (B, C, H, W) in ``range`` -> (B,), averaged over channels.

    range: the lowest and the highest possible value, (0, 1) or (-1, 1). SSIM compares local means
    and so depends on where black is: the width of the range alone does not say. Black is moved to
    0, and a pair has the same SSIM in every range.
    Gaussian window of standard deviation 1.5 (11 x 11) wherever it lies inside the image,
    population covariance.
    Raises ``ValueError`` for images under 11 pixels, ``TypeError`` for complex ones and for a range
    that is no pair.
    Reference: Wang, Bovik, Sheikh, Simoncelli, Image quality assessment: from error visibility to
    structural similarity, 2004.
    """
    if not isinstance(range, tuple | list) or len(range) != 2:
        raise TypeError(
            "ssim needs the lowest and the highest possible value, (0, 1) or (-1, 1), "
            f"got {range!r}: black is not always 0"
        )
    lowest, data_range = range[0], range[1] - range[0]
    a, b = _pair(x, reference, data_range)
    if a.is_complex():
        raise TypeError("ssim compares real images; give magnitudes, x.abs() and reference.abs()")
    if a.ndim != 4 or min(a.shape[-2:]) < 11:
        raise ValueError(
            f"ssim needs images (B, C, H, W) of at least 11 x 11 pixels, got {tuple(x.shape)}"
        )
    a, b = a - lowest, b - lowest
    u, v = _window_means(a), _window_means(b)
    spread = _window_means(a.square()) - u.square() + _window_means(b.square()) - v.square()
    joint = _window_means(a * b) - u * v
    c, k = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    likeness = (2 * u * v + c) * (2 * joint + k) / ((u.square() + v.square() + c) * (spread + k))
    return likeness.flatten(1).mean(1)


def _window_means(x: Tensor) -> Tensor:
    """Means under a Gaussian window of 11 x 11: (B, C, H, W) -> (B, C, H - 10, W - 10)."""
    weights = torch.exp(-torch.arange(-5.0, 6.0, dtype=torch.float64).square() / (2 * 1.5**2))
    weights = weights / weights.sum()
    for axis in (-2, -1):
        inside = x.shape[axis] - 10
        x = torch.stack([w * x.narrow(axis, k, inside) for k, w in enumerate(weights)]).sum(0)
    return x


def lpips(x: Tensor, reference: Tensor, range: tuple[float, float], *, net: str = "alex") -> Tensor:
    """Learned perceptual distance of each row by the ``lpips`` package: (B, C, H, W) in
    ``range`` -> (B,). One channel is repeated.

    Raises ``MetricUnavailable`` when the package is not installed or its weights cannot be loaded.
    Reference: Zhang, Isola, Efros, Shechtman, Wang, The unreasonable effectiveness of deep features
    as a perceptual metric, 2018.
    """
    a, b = _pair(x, reference, range[1] - range[0])
    if a.is_complex() or a.ndim != 4 or a.shape[1] not in (1, 3):
        raise ValueError(
            f"lpips needs real images (B, 1 or 3, H, W), got {tuple(x.shape)} {x.dtype}"
        )
    try:
        import lpips as package
    except ImportError:
        raise MetricUnavailable(
            "LPIPS is not computed: install it by pip install 'posteriori[lpips]'"
        ) from None
    try:
        model = package.LPIPS(net=net, verbose=False).eval()
    except Exception as error:
        # Whatever the package raises: no weights on disk and no way to fetch them
        raise MetricUnavailable(
            f"LPIPS is not computed: the weights of {net!r} cannot be loaded "
            f"({type(error).__name__}: {error})"
        ) from None
    u, v = (
        2 * (t.float().expand(-1, 3, -1, -1) - range[0]) / (range[1] - range[0]) - 1 for t in (a, b)
    )
    with torch.no_grad():
        return model(u, v).flatten().double()


def speckle(x: Tensor) -> Tensor:
    """Share of salt-and-pepper pixels among those inside the border, of each row:
    (B, ..., H, W) -> (B,), an average over the other axes.

    A pixel counts when it lies above (or below) all of its eight neighbours by more than three
    times what these span, and by more than a fifth of the standard deviation of its plane.
    Neighbours on an edge or in a texture span much, so that their pixels do not count; an isolated
    wrong pixel does, however good the PSNR is. What photographs have is in docs/results/flags.md.
    """
    planes = (x.abs() if x.is_complex() else x).detach().double().reshape(len(x), -1, *x.shape[-2:])
    if min(planes.shape[-2:]) < 3:
        raise ValueError(f"speckle needs images of at least 3 x 3 pixels, got {tuple(x.shape)}")
    H, W = planes.shape[-2:]
    around = [
        planes[..., i : H - 2 + i, j : W - 2 + j]
        for i in range(3)
        for j in range(3)
        if (i, j) != (1, 1)
    ]
    highest = functools.reduce(torch.maximum, around)
    lowest = functools.reduce(torch.minimum, around)
    inner = planes[..., 1:-1, 1:-1]
    alone = torch.maximum(inner - highest, lowest - inner)
    spread = planes.flatten(2).std(2)[..., None, None]
    return (alone > torch.maximum(3 * (highest - lowest), 0.2 * spread)).double().mean((1, 2, 3))
