"""Images without a channel axis, and the kernel prior that ships."""

import pytest
import torch
from reference import draw

import posteriori as po
from posteriori.priors import Plane, blur_kernels, motion_kernels


def test_a_plane_is_its_channel():
    channel = po.priors.Gaussian(draw(1, 3, 4), 0.5)
    ours, x, s = Plane(channel), draw(5, 3, 4, seed=1), torch.tensor(0.7, dtype=torch.float64)
    torch.testing.assert_close(ours.denoise(x, s), channel.denoise(x[:, None], s)[:, 0])
    x0, pull = ours.linearize(x, s)
    torch.testing.assert_close(x0, ours.denoise(x, s))
    torch.testing.assert_close(pull(x), channel.linearize(x[:, None], s)[1](x[:, None])[:, 0])
    assert ours.shape == (3, 4)
    assert ours.know().error(0.3) == channel.know().error(0.3)
    assert ours.know().closed is None
    moved = ours.at(mean=torch.zeros(1, 3, 4, dtype=torch.float64))
    assert not torch.equal(moved.denoise(x, s), ours.denoise(x, s))
    with pytest.raises(ValueError, match="images \\(1, H, W\\)"):
        Plane(po.priors.Gaussian(draw(3, 3, 4), 0.5))
    with pytest.raises(ValueError, match="shape"):
        Plane(channel, (5, 5))


def test_the_kernel_prior_denoises_kernels_of_a_shaken_camera():
    """Of kernels it was not trained on, better than the best linear rule by the variance of a tap,
    and its denoised kernels have sum 1."""
    prior = blur_kernels()
    assert prior.shape == (17, 17)
    k = motion_kernels(64, 15, 90).float()
    k = torch.nn.functional.pad(k, (1, 1, 1, 1))
    for sigma in (0.004, 0.012, 0.03):
        noisy = k + sigma * po.rng.Streams(0, range(64)).normal(k)
        found = prior.denoise(noisy, torch.tensor(sigma))
        c = float(k.var(0).mean())
        assert float((found - k).square().mean()) < 0.4 * c * sigma**2 / (c + sigma**2)
        assert float((found.sum((1, 2)) - 1).abs().max()) < 0.1
    drawn = prior.sample(4, 0, steps=16)
    assert float((drawn.sum((1, 2)) - 1).abs().max()) < 0.2
    assert float(drawn.amax((1, 2)).min()) > 0.02
