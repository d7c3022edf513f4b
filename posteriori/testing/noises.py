"""The contract of a noise law."""

from __future__ import annotations

import math

import torch

from posteriori.linalg import real_view
from posteriori.noise import NoiseLaw
from posteriori.rng import Streams


def check_noise(
    noise: NoiseLaw,
    *,
    complex: bool = False,
    level: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check that a law samples what it says, row by row. Raises ``AssertionError`` with the numbers
    that disagree.

    level: a clean value typical for the law (positive for a counting law).

    The theorems: the mean of y is ``mean`` of the clean value, its variance ``variance_at`` it;
    rows are independent of the batch; ``log_prob`` is per row; ``score`` is its derivative;
    E[score] = 0 under the law (it is a density in y).
    """
    kind = dtype.to_complex() if complex else dtype
    clean = torch.full((3, 20_000), level, dtype=kind)
    y = noise.sample(clean, Streams(0, range(3)))
    name = type(noise).__name__
    assert y.shape == clean.shape, f"{name}: y has shape {tuple(y.shape)} and type {y.dtype}"
    assert y.dtype == clean.dtype, (
        f"{name}: y has type {y.dtype}, the clean measurement {clean.dtype}"
    )
    alone = noise.sample(clean[1:2], Streams(0, [1]))
    assert torch.equal(alone[0], y[1]), f"{name}: row 1 depends on the rows sampled beside it"
    variance = float(noise.variance_at(clean, clean).expand(clean.shape).mean())
    error = y - noise.mean(clean)
    channels = real_view(error) if complex else error[..., None]
    # Five standard errors of a mean and of a variance over 20,000 numbers
    # (kurtosis of a law near a Gaussian).
    mean_error = float(channels.mean((1, 2)).abs().max())
    assert mean_error < 5 * math.sqrt(variance / 20_000), (
        f"{name}: mean of y - mean(clean) is {mean_error:.3g}"
    )
    measured = channels.square().mean(1)
    worst = float((measured / variance - 1).abs().max())
    assert worst < 5 * math.sqrt(3 / 20_000), (
        f"{name}: variance differs from {variance:.4g} by {100 * worst:.1f} %"
    )
    small_y, small = y[:, :4], clean[:, :4] * 1.1
    log_prob = noise.log_prob(small_y, small)
    assert log_prob.shape == (3,), (
        f"{name}: log_prob has shape {tuple(log_prob.shape)}, expected one number per row (3,)"
    )
    leaf = small.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(noise.log_prob(small_y, leaf).sum(), leaf)
    torch.testing.assert_close(
        noise.score(small_y, small),
        gradient,
        rtol=1e-6 if dtype == torch.float64 else 1e-3,
        atol=1e-6,
    )
    score = noise.score(y, clean)
    spread = float(score.abs().square().mean().sqrt())
    assert float(score.mean(1).abs().max()) < 5 * spread / math.sqrt(20_000), (
        f"{name}: the score does not average to 0 under the law"
    )
