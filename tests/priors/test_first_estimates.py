"""First estimates of an image under noise: what they are where they can be said in closed form, and
what they leave of pixels that nobody saw."""

from __future__ import annotations

import pytest
import torch
from reference import draw

from posteriori.priors import edm
from posteriori.priors.first_estimates import (
    KEPT,
    KINDS,
    MARGIN,
    OWN,
    filled,
    locally_constant,
    shrunk,
)

double = {"dtype": torch.float64}
D = 0.5
SIDES = (24, 16)


def given(levels, mu):
    """c_in mu and labels of levels (1, 1, H, W) or a number."""
    levels = torch.as_tensor(levels, **double).expand(1, 1, *SIDES)
    return mu / (levels**2 + D**2).sqrt(), levels.log() / 4


def patchy(far=1e4):
    """Every third pixel seen at 0.1, the others at a level of nearly nothing."""
    levels = torch.full((1, 1, *SIDES), far, **double)
    levels[..., ::3] = 0.1
    return levels


def test_a_shrunk_image_is_the_mean_of_a_white_gaussian():
    mu, levels = draw(2, 3, *SIDES, **double), patchy(far=3.0)
    expected = D * mu / (levels**2 + D**2)
    torch.testing.assert_close(shrunk(*given(levels, mu), D), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("level", [0.02, 0.5, 4.0])
def test_a_constant_image_is_shrunk_as_so_many_pixels_tell(level):
    """Of an image m everywhere: m / d / (1 + (level^2 + d^2 / 16) / (n d^2)), n pixels. At the
    edge the binomial has fewer."""
    mu = torch.full((1, 2, *SIDES), 0.3, **double)
    found = locally_constant(*given(level, mu), D)[..., 2:-2, 2:-2].unflatten(1, (KINDS, 2))
    for k, n in enumerate((13, 16, 64, 1600)):
        expected = 0.3 / D / (1 + (level**2 + D**2 / 16) / (n * D**2))
        ones = torch.full_like(found[:, k], expected)
        torch.testing.assert_close(found[:, k], ones, rtol=1e-9, atol=0)


def test_pixels_that_nobody_saw_have_no_weight():
    """Whatever stands in them, to their precision of 1e-8 of the others'."""
    levels, mu = patchy(), draw(2, 3, *SIDES, **double)
    other = torch.where(levels > 1, mu + 5.0, mu)
    for estimate in (shrunk, locally_constant):
        a, b = (estimate(*given(levels, u), D) for u in (mu, other))
        assert float((a - b).abs().max()) < 1e-3
        seen = locally_constant(*given(levels, mu.roll(1, 0)), D)
        assert float((seen - locally_constant(*given(levels, mu), D)).abs().max()) > 0.1


def test_means_of_blocks_lie_at_their_centres():
    """A ramp is itself: interpolation between blocks has no offset. Away from the edge."""
    ramp = torch.arange(48.0, **double).expand(1, 1, 48, 48) / 48
    x, label = ramp / (1e-4 + D**2) ** 0.5, torch.full((1, 1, 1, 1), 1e-2, **double).log() / 4
    found = D * locally_constant(x, label, D)[0, :3, 24, 8:-8]
    for estimate in found:
        torch.testing.assert_close(estimate, ramp[0, 0, 24, 8:-8], rtol=6e-3, atol=0)


def test_sides_that_are_no_multiples_of_blocks_are_taken():
    mu = draw(1, 1, 13, 18, **double)
    levels = torch.full((1, 1, 13, 18), 0.2, **double)
    found = locally_constant(mu / (levels**2 + D**2).sqrt(), levels.log() / 4, D)
    assert found.shape == (1, KINDS, 13, 18)
    assert bool(found.isfinite().all())


def test_a_label_for_the_image_is_a_map_of_it():
    mu = draw(2, 1, *SIDES, **double)
    x = mu / (0.3**2 + D**2) ** 0.5
    label = torch.full((2, 1, 1, 1), 0.3, **double).log() / 4
    for estimate in (shrunk, locally_constant):
        whole = estimate(x, label.expand(2, 1, *SIDES), D)
        torch.testing.assert_close(estimate(x, label, D), whole, rtol=0, atol=1e-14)


# Filled pixels


def hidden(*places, level=0.1, sides=SIDES):
    levels = torch.full((1, 1, *sides), level, **double)
    for place in places:
        levels[0, 0][place] = 1e4
    return levels


@pytest.mark.parametrize("level", [0.02, 0.5, 20.0])
def test_a_look_of_one_level_is_left_to_the_last_bit(level):
    for kind in (torch.float32, torch.float64):
        mu, levels = draw(2, 3, *SIDES, dtype=kind), torch.full((2, 1, *SIDES), level, dtype=kind)
        found = filled(mu, levels, D)
        assert torch.equal(found.mu, mu)
        assert torch.equal(found.level, levels)


def test_what_is_seen_best_is_left_to_the_last_bit():
    """Single pixels and a rectangle."""
    rectangle = hidden((slice(4, 12), slice(3, 9)))
    for levels in (patchy(), rectangle):
        mu = draw(2, 3, *SIDES, **double)
        found, seen = filled(mu, levels.expand(2, -1, -1, -1), D), levels[0, 0] < 1
        assert torch.equal(found.mu[..., seen], mu[..., seen])
        assert bool((found.level[..., seen] == 0.1).all())
    assert bool((filled(mu, patchy(), D).level < D).all())


def test_one_hidden_pixel_is_what_its_neighbours_say():
    """Of an image m seen everywhere else: in float64, by the recursion over scales from its four
    shares of what is seen (of the widest, edges aside, all of 8 x 8 pixels' means)."""
    levels, m = hidden((12, 8), sides=(24, 16)), 0.4
    found = filled(torch.full((1, 1, *SIDES), m, **double), levels, D)
    own = 1 / (0.01 + D**2 / 16)
    narrow, b = 0.0, 0.0
    # The pixel lies in the block 3, 2 of 4 x 4 and in the corner of 1, 1 of 8 x 8, which means are
    # interpolated: 12 = 4 * 3 + 0 is 3/8 of the way from the block before.
    blocks4, blocks8 = 1 - (5 / 8) ** 2 / 16, 1 - (9 / 16) ** 2 / 64
    widest = 1 - (1 / 64) / 6
    shares = {1: (13, 1 - (6 / 16) ** 2, 0.04), 4: (16, blocks4, 0.05), 8: (64, blocks8, 0.11)}
    scales = [(1600, widest, 0.75), shares[8], shares[4], shares[1]]
    for n, share, apart in scales:
        before = b + apart * D**2
        total = n * share * own + 1 / before
        narrow, b = (n * share * own * m + narrow / before) / total, 1 / total
    # Nothing is lost on the pixel's own look, of variance 1e8.
    assert abs(float(found.mu[0, 0, 12, 8]) - narrow) < 2e-6
    assert abs(float(found.level[0, 0, 12, 8]) - (b + OWN * D**2) ** 0.5) < 2e-6


def test_of_looks_that_tell_something_a_part_is_kept():
    """With B of a constant image m, of which mu is off by e at one pixel: the difference between
    two levels of it is g, and the error is that of both, independent."""
    e, shares = 0.7, []
    for level in (0.2, 0.8):
        levels, mu = hidden((12, 8)), torch.full((1, 1, *SIDES), 0.4, **double)
        levels[0, 0, 12, 8] = level
        near = filled(mu, levels, D)
        mu[0, 0, 12, 8] += e
        found = filled(mu, levels, D)
        moved = float((found.mu - near.mu)[0, 0, 12, 8])
        known = filled(mu, hidden((12, 8)), D)
        b = float(known.level[0, 0, 12, 8]) ** 2
        h = 0.01 / (1 - (6 / 16) ** 2)  # at most, of the wider scales
        a = 1 - MARGIN * h / level**2
        g = level**2 * a / (level**2 * a + KEPT * b)
        assert abs(moved / e - (1 - g)) < 0.05
        share = 1 - moved / e
        own = ((1 - share) ** 2 * level**2 + share**2 * b) ** 0.5
        assert abs(float(found.level[0, 0, 12, 8]) / own - 1) < 0.02
        shares.append(share)
    assert shares[0] < 0.25 < 0.6 < shares[1]


def test_pixels_far_from_all_that_is_seen_are_left():
    """To the last bit from 12 pixels on, beside a half that is seen; the nearest are filled."""
    levels = hidden(slice(None), sides=(128, 8))
    levels[..., :64, :] = 0.1
    mu = draw(1, 1, 128, 8, **double)
    found = filled(mu, levels, D)
    assert torch.equal(found.mu[..., 76:, :], mu[..., 76:, :])
    assert bool((found.level[..., :66, :] < D).all())


def test_filled_pixels_are_their_errors_off():
    """On images that are constant but for a variance OWN d^2 of each pixel's own. Of this the level
    tells in full, of the error of the means a bound."""
    g = torch.Generator().manual_seed(0)
    truth = 0.3 + OWN**0.5 * D * torch.randn(64, 1, 32, 32, generator=g, **double)
    levels = torch.where(torch.rand(64, 1, 32, 32, generator=g, **double) < 0.4, 0.05, 1e3)
    mu = truth + levels * torch.randn(truth.shape, generator=g, **double)
    found = filled(mu, levels, D)
    chi2 = ((found.mu - truth) / found.level).square()[levels > 1]
    assert 0.85 < float(chi2.mean()) < 1.02
    worse = ((found.mu - truth) / (OWN**0.5 * D)).square()[levels > 1].mean()
    assert 1.0 < float(worse) < 1.2


def test_a_map_of_one_level_is_denoised_as_this_level_is():
    def network(x, c, **beside):
        return torch.tanh(x + c.reshape(2, 1, *c.shape[1:]).expand(2, 1, *SIDES).to(x))

    mu = draw(2, 1, *SIDES, **double)
    one = edm.denoise(lambda x, c: network(x, c[:, None, None]), mu, torch.tensor(0.3), D, None)
    levels = torch.full((2, 1, *SIDES), 0.3, **double)
    found = edm.denoise(network, mu, levels, D, None, filled=True)
    torch.testing.assert_close(found, one, rtol=1e-6, atol=1e-7)


def test_a_network_under_maps_is_given_the_filled_picture():
    """c_skip u + c_out F, of one that says 0 and one that repeats its input; and what it is called
    with."""
    mu, levels = draw(2, 1, *SIDES, **double), patchy().expand(2, -1, -1, -1)
    u, level = filled(mu, levels, D)
    total = (level**2 + D**2).sqrt()
    for share in (0.0, 0.6):
        seen = []

        def network(x, c, shrunk, share=share, seen=seen):
            seen.append((x, c, shrunk))
            return share * x

        found = edm.denoise(network, mu, levels, D, None, filled=True)
        expected = (D**2 + level * D * share) / total**2 * u
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(seen[0][0], u / total, rtol=1e-12, atol=0)
        torch.testing.assert_close(seen[0][1], level[:, 0].log() / 4, rtol=1e-12, atol=0)
        # What is shown beside it is of the look as it was given.
        shrunk = D / (levels**2 + D**2) * mu
        torch.testing.assert_close(seen[0][2], shrunk, rtol=1e-12, atol=0)
