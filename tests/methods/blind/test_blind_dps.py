"""BlindDPS: with the instrument known it is DPS; gradients are differences; kernels are kernels."""

import pytest
import torch
from blind import blind_post, known_kernel
from reference import draw

import posteriori as po
from posteriori.methods import DPS, BlindDPS
from posteriori.methods.blind.blind_dps import _measured
from posteriori.methods.blind.pair import blind_pair

F64 = torch.float64


class Still:
    """Random numbers that are all 0."""

    def normal(self, like):
        return torch.zeros_like(like)


@pytest.mark.parametrize("weighting", ["bounded", "norm"])
def test_with_a_kernel_that_is_a_point_a_step_is_that_of_dps(weighting):
    """``bounded`` up to the accuracy of the measured norms of a blur."""
    post, alone = known_kernel(1e-8)
    pair = blind_pair(post)
    c, sigma, s = pair.units[0], torch.tensor(0.8, dtype=F64), torch.tensor(0.5, dtype=F64)
    u = 0.5 * draw(3, *post.shape)
    method = BlindDPS(weighting, 0.7, 0.7)
    found, _ = method.step(post, u, sigma, s, Still())
    wanted, _ = DPS(weighting, 0.7).step(alone, c * pair.split(u)[0], c * sigma, c * s, Still())
    moved = (
        wanted - DPS(weighting, 0.0).step(alone, c * pair.split(u)[0], c * sigma, c * s, Still())[0]
    )
    gap = (c * pair.split(found)[0] - wanted).abs().max() / moved.abs().max()
    assert float(gap) < (1e-6 if weighting == "norm" else 0.05)


def test_gradients_of_both_parts_are_differences_through_both_denoisers():
    """Of ||y - A(D_1; D_2 made feasible)||^2 / 2 along random directions."""
    post = blind_post()
    pair, sigma, y = blind_pair(post), torch.tensor(0.6, dtype=F64), post.likelihood.y
    u, d = 0.5 * draw(2, *post.shape), draw(2, *post.shape, seed=3)

    def loss(v):
        x, k = pair.told(post.prior.denoise(v, sigma))
        k = k.clamp(min=0)
        k = k / k.sum((1, 2), keepdim=True)
        return 0.5 * (y - pair.A.apply(x, k)).square().flatten(1).sum(1)

    x0, pull = post.prior.linearize(u, sigma)
    clean, back, push = _measured(pair, x0)
    g = pull(back(y - clean))
    h = 1e-6
    slope = (loss(u + h * d) - loss(u - h * d)) / (2 * h)
    torch.testing.assert_close(-(g * d).sum(1), slope, rtol=1e-6, atol=1e-8)
    # Forwards and backwards are transposes of each other.
    v, r = draw(2, *post.shape, seed=4), draw(*clean.shape, seed=5)
    torch.testing.assert_close(
        (push(v) * r).flatten(1).sum(1), (v * back(r)).sum(1), rtol=1e-9, atol=1e-10
    )


def test_the_instrument_that_is_used_is_a_kernel_of_sum_one():
    """A denoised kernel of another sum, with taps below 0, measures as its feasible one does."""
    post = blind_post()
    pair = blind_pair(post)
    x, k = draw(2, 1, 8, 8), draw(2, 3, 3, seed=1)
    clean, _, _ = _measured(pair, pair.packed(x, k))
    taps = k.clamp(min=0)
    wanted = pair.A.apply(x, taps / taps.sum((1, 2), keepdim=True))
    torch.testing.assert_close(clean, wanted, rtol=1e-9, atol=1e-10)


def test_scales_move_only_their_own_part():
    post = blind_post()
    pair, sigma, s = blind_pair(post), torch.tensor(0.8, dtype=F64), torch.tensor(0.5, dtype=F64)
    u = 0.5 * draw(2, *post.shape)
    for weighting in ("bounded", "norm"):
        still = [BlindDPS(weighting, a, b) for a, b in ((0, 0), (1, 0), (0, 1))]
        ends = [pair.split(m.step(post, u, sigma, s, Still())[0]) for m in still]
        assert torch.equal(ends[1][1], ends[0][1])
        assert not torch.equal(ends[1][0], ends[0][0])
        assert torch.equal(ends[2][0], ends[0][0])
        assert not torch.equal(ends[2][1], ends[0][1])


def test_what_is_no_pair_is_refused_in_words():
    A = po.operators.Identity((1, 4, 4))
    prior = po.priors.Gaussian(torch.zeros(1, 4, 4), 1.0)
    post = po.Posterior(prior, po.Likelihood(torch.zeros(1, 4, 4), A, po.noise.Gaussian(0.1)))
    assert "Identity is known" in BlindDPS().refuses(post)
    with pytest.raises(ValueError, match="Midpoint"):
        BlindDPS("norm", transition=po.methods.Midpoint())
