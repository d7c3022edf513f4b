"""First estimates of an image under noise: what they are where they can be said in closed form, and
what they leave of pixels that nobody saw."""

from __future__ import annotations

import pytest
import torch
from reference import draw

from posteriori.priors.first_estimates import KINDS, locally_constant, shrunk

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
