"""The contract of a prior: a denoiser, row by row, with the derivative that belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from posteriori.linalg import dot
from posteriori.priors.base import Prior, check_shape
from posteriori.rng import Streams


def check_prior(
    prior: Prior,
    dtype: torch.dtype = torch.float64,
    *,
    shape: tuple[int, ...] | None = None,
    symmetric: bool = True,
    rtol: float | None = None,
) -> None:
    """Check a prior on images of ``shape`` (its own when None). Raises ``AssertionError`` with the
    numbers that disagree.

    - ``start`` and ``denoise`` keep shape and dtype, also when sigma is a double and x is not, and
      leave x as it is;
    - the same call gives the same result; row k is the same alone and in a batch;
    - values are finite at sigma_min and at sigma_max;
    - ``linearize`` gives the value of ``denoise``, and a vector-Jacobian product that belongs to it
      (by central differences in double precision, by automatic differentiation in single), that may
      be called again, and that keeps rows apart;
    - the Jacobian is symmetric (``symmetric``; true for every exact denoiser, not for a network);
    - D(x, sigma) moves x by no more than a few sigma at sigma_min: it becomes the identity as sigma
      goes to 0.

    dtype: precision of the images. rtol: of derivatives; 1e-5 in double, 2e-2 in single precision.
    """
    name = type(prior).__name__
    if shape is None:
        assert None not in prior.shape, (
            f"{name}: give the check a shape, {prior.shape} has sides of any length"
        )
        shape = tuple(n for n in prior.shape if n is not None)
    check_shape(prior, shape)
    blank = torch.zeros(3, *shape, dtype=dtype.to_complex() if prior.complex else dtype)
    rng = Streams(0, range(3))
    low, high = (
        torch.tensor(level, dtype=torch.float64) for level in (prior.sigma_min, prior.sigma_max)
    )
    middle = (low * high).sqrt()
    for sigma in (low, middle, high):
        x = prior.start(rng.normal(blank), sigma)
        _alike(f"{name}.start", x, blank)
        _check_values(prior, x, sigma)
        _check_derivative(
            prior, x, sigma, rng, rtol or (1e-5 if dtype == torch.float64 else 2e-2), symmetric
        )
    x = _typical(prior, prior.start(rng.normal(blank), high))
    moved = float((prior.denoise(x, low) - x).abs().square().mean().sqrt())
    assert moved <= 5 * float(low), (
        f"{name}: at sigma_min = {float(low):.3g} the denoiser moves an image "
        f"by {moved:.3g} per number"
    )


def check_denoising(
    prior: Prior, images: Tensor, sigmas: Sequence[float] | None = None, *, slack: float = 1.2
) -> dict[float, float]:
    """Whether a network prior denoises known images as its own ``variance`` promises, which one
    with a wrong parametrisation or range does not. A schedule that is off by little may pass: of
    several candidates the one with the smallest errors is right.

    images: clean ones (B, *E) in the prior's range, a few typical ones. sigmas: levels to try; by
    default five within the prior's limits, from 0.1 to 4 standard deviations. Returns the error
    ||D(x0 + sigma z) - x0|| / ||sigma z|| at each level. For the exact denoiser it is at most
    sqrt(c / (c + sigma^2)), c the variance: that is what the best affine map of each number
    reaches. Raises ``AssertionError`` with all errors and bounds when one exceeds ``slack`` times
    its bound.
    """
    c = prior.variance
    if sigmas is None:
        sigmas = [
            min(max(share * c**0.5, prior.sigma_min), prior.sigma_max)
            for share in (0.1, 0.5, 1.0, 2.0, 4.0)
        ]
    errors, rng = {}, Streams(0, range(len(images)))
    for sigma in sigmas:
        noise = sigma * rng.normal(images)
        with torch.no_grad():
            left = prior.denoise(images + noise, torch.tensor(sigma, dtype=torch.float64)) - images
        errors[sigma] = float((dot(left, left).sum() / dot(noise, noise).sum()).sqrt())
    bounds = {sigma: (c / (c + sigma**2)) ** 0.5 for sigma in errors}
    listed = ", ".join(
        f"{error:.3g} (bound {bounds[sigma]:.3g}) at sigma {sigma:.3g}"
        for sigma, error in errors.items()
    )
    low, high = float(images.real.min()), float(images.real.max())
    assert all(error <= slack * bounds[sigma] for sigma, error in errors.items()), (
        f"{type(prior).__name__} leaves or adds too much error (relative to the noise: {listed}); "
        "check its parametrization, its schedule, the scale of its label, and that images "
        f"from {low:.3g} to {high:.3g} fit its range {prior.range} and variance {c:.3g}"
    )
    return errors


def _typical(prior: Prior, x: Tensor, steps: int = 10) -> Tensor:
    """An image of the prior at sigma_min, from one at sigma_max, by the probability-flow ODE."""
    ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    levels = prior.sigma_max * (prior.sigma_min / prior.sigma_max) ** ramp
    for sigma, s in pairwise(levels):
        x = torch.lerp(prior.denoise(x, sigma), x, float(s / sigma))
    return x


def _alike(what: str, out: Tensor, like: Tensor) -> None:
    assert out.shape == like.shape, (
        f"{what} returns shape {tuple(out.shape)} for {tuple(like.shape)}"
    )
    assert out.dtype == like.dtype, f"{what} returns {out.dtype} for {like.dtype}"


def _close(what: str, a: Tensor, b: Tensor, rtol: float) -> None:
    gap, size = float((a - b).abs().max()), float(b.abs().max())
    assert gap <= rtol * max(size, 1e-30), (
        f"{what}: differs by {gap:.3g}, values are up to {size:.3g}"
    )


def _check_values(prior: Prior, x: Tensor, sigma: Tensor) -> None:
    what = f"{type(prior).__name__}.denoise at sigma = {float(sigma):.3g}"
    rounding = 1e-10 if x.real.dtype == torch.float64 else 1e-4
    kept = x.clone()
    x0 = prior.denoise(x, sigma)
    _alike(what, x0, x)
    assert torch.equal(x, kept), f"{what} changed its input in place"
    bad = int((~x0.abs().isfinite()).sum())
    assert bad == 0, f"{what} returns {bad} numbers that are not finite"
    assert not x0.requires_grad, f"{what} returns a tensor that carries an autograd graph"
    assert torch.equal(prior.denoise(x, sigma), x0), f"{what}: a second call gives another result"
    alone = torch.cat([prior.denoise(row, sigma) for row in x.split(1)])
    _close(f"{what}: a row alone against the same row in a batch", alone, x0, rounding)
    value, _ = prior.linearize(x, sigma)
    _alike(f"{type(prior).__name__}.linearize", value, x)
    _close(f"{what}: the value of linearize against denoise", value, x0, rounding)


def _check_derivative(
    prior: Prior, x: Tensor, sigma: Tensor, rng: Streams, rtol: float, symmetric: bool
) -> None:
    what = f"{type(prior).__name__}.linearize at sigma = {float(sigma):.3g}"
    u, v = rng.normal(x), rng.normal(x)
    _, pull = prior.linearize(x, sigma)
    pulled = pull(u)
    _alike(f"{what}: the product", pulled, x)
    assert not pulled.requires_grad, f"{what}: the product carries an autograd graph"
    assert torch.equal(pull(u), pulled), (
        f"{what}: the product gives another result when it is called again"
    )
    product = _jacobian_product(prior, x, sigma, v)
    left = (
        dot(u, product) if x.real.dtype == torch.float64 else dot(v, _autodiff(prior, x, sigma, u))
    )
    right = dot(pulled, v)
    size = (dot(u, u) * dot(product, product)).sqrt().clamp(min=1e-30)
    gap = float(((left - right).abs() / size).max())
    assert gap <= rtol, (
        f"{what}: <u, J v> of denoise and <J^T u, v> of linearize differ by {gap:.2g} of |u| |J v|"
    )
    one = torch.zeros_like(u)
    one[0] = u[0]
    leak = float(pull(one)[1:].abs().max())
    assert leak == 0, f"{what}: the product of row 0 reaches other rows ({leak:.2g})"
    if symmetric:
        left, right = dot(pulled, v), dot(u, pull(v))
        gap = float(((left - right).abs() / size).max())
        assert gap <= rtol, (
            f"{what}: the Jacobian is not symmetric, "
            f"<J^T u, v> and <u, J^T v> differ by {gap:.2g} of |u| |J v|"
        )


def _jacobian_product(prior: Prior, x: Tensor, sigma: Tensor, v: Tensor) -> Tensor:
    """J v by central differences. A denoiser varies over distances of sigma or more, which sets the
    step."""
    h = 1e-3 * float(sigma)
    return (prior.denoise(x + h * v, sigma) - prior.denoise(x - h * v, sigma)) / (2 * h)


def _autodiff(prior: Prior, x: Tensor, sigma: Tensor, u: Tensor) -> Tensor:
    """J^T u by automatic differentiation of ``denoise``: in single precision differences drown in
    rounding at large sigma."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        x0 = prior.denoise(leaf, sigma)
    return torch.autograd.grad(x0, leaf, u)[0] if x0.requires_grad else torch.zeros_like(x)
