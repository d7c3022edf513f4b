"""Images by windows of a prior: what is exact, and how the error falls with the window."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from cases import full_gaussian
from reference import F64, Given, draw, drive, flat, level

import posteriori as po
from posteriori import methods
from posteriori.priors import Gaussian, Patches, Prior, Tiles

LEVELS = torch.tensor([8.0, 3.0, 1.0, 0.3, 0.0], dtype=F64)


class Pixels(Prior):
    """A prior whose numbers are independent and not Gaussian, of any size."""

    def __init__(self):
        super().__init__((1, None, None), variance=1.0, sigma_max=10.0, sigma_min=0.01)

    def denoise(self, x, sigma):
        return (x / (1 + sigma**2)).tanh()


def counting(size):
    """A prior that counts, in its images, how often each pixel is asked for."""

    class Ones(Pixels):
        def denoise(self, x, sigma):
            return torch.ones_like(x)

    return Ones()


@pytest.mark.parametrize("sides", [(8, 8), (11, 9), (4, 13)])
def test_every_pixel_is_covered_once_by_each_partition(sides):
    x = draw(1, 1, *sides)
    for offset in product(range(4), range(4)):
        cut = Patches(Pixels(), 4).cut(x, torch.tensor(offset))
        covered = torch.zeros(1, *sides, dtype=F64)
        for (top, left), w in zip(cut.places, cut.weights, strict=True):
            assert 0 <= top <= sides[0] - 4
            assert 0 <= left <= sides[1] - 4
            assert set(w.unique().tolist()) <= {0.0, 1.0}
            covered[:, top : top + 4, left : left + 4] += w
        assert torch.equal(covered, torch.ones_like(covered))


def test_the_lines_of_a_partition_lie_at_its_offset():
    """What a pixel's value depends on changes there."""

    class Means(Pixels):
        def denoise(self, x, sigma):
            return x.mean((2, 3), keepdim=True).expand_as(x)

    x = torch.arange(12.0, dtype=F64).expand(1, 1, 12, 12)
    row = Patches(Means(), 4, (0, 3)).denoise(x, level(1.0))[0, 0, 0]
    starts = [0.0] * 3 + [3.0] * 4 + [7.0] * 4 + [8.0]
    torch.testing.assert_close(row, torch.tensor(starts, dtype=F64) + 1.5)


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_weights_of_tiles_add_up_to_one_and_keep_a_constant(overlap):
    for sides in ((8, 8), (11, 9), (4, 13)):
        out = Tiles(counting(4), 4, overlap).denoise(draw(2, 1, *sides), level(1.0))
        torch.testing.assert_close(out, torch.ones_like(out))
        starts = Tiles(Pixels(), 4, overlap)._starts(sides[1])
        assert starts[0] == 0
        assert starts[-1] == sides[1] - 4
        assert all(a + 4 - b >= overlap for a, b in pairwise(starts))


def test_a_prior_of_independent_pixels_is_the_whole_for_every_window():
    x, s, prior = draw(2, 1, 9, 11), level(0.6), Pixels()
    whole, back = prior.linearize(x, s)
    u = draw(2, 1, 9, 11, seed=1)
    cases = [Tiles(prior, 4, k) for k in range(4)]
    cases += [Patches(prior, 4, o, at_once=3) for o in ((0, 0), (3, 1))]
    for tiled in cases:
        x0, pull = tiled.linearize(x, s)
        torch.testing.assert_close(x0, whole)
        torch.testing.assert_close(tiled.denoise(x, s), whole)
        torch.testing.assert_close(pull(u), back(u))


def test_a_window_of_the_whole_image_is_the_whole_for_every_offset():
    prior, s = full_gaussian(F64, (1, 4, 4)), level(0.6)
    x = draw(2, 1, 4, 4)
    for offset in product(range(4), range(4)):
        torch.testing.assert_close(Patches(prior, 4, offset).denoise(x, s), prior.denoise(x, s))
    torch.testing.assert_close(Tiles(prior, 4, 3).denoise(x, s), prior.denoise(x, s))


def test_tiles_that_do_not_overlap_are_by_themselves():
    prior, s = full_gaussian(F64, (1, 4, 4)), level(0.6)
    x = draw(1, 1, 8, 4)
    out = Tiles(prior, 4).denoise(x, s)
    torch.testing.assert_close(out[:, :, :4], prior.denoise(x[:, :, :4], s))
    torch.testing.assert_close(out[:, :, 4:], prior.denoise(x[:, :, 4:], s))


def test_overlapping_tiles_are_the_image_nearest_to_all_windows():
    """The normal equations of sum_i ||w_i^(1/2) (W_i u - D(W_i x))||^2, solved as a matrix."""
    prior, s = full_gaussian(F64, (1, 4, 4)), level(0.6)
    x, tiles = draw(1, 1, 4, 7), Tiles(prior, 4, 2)
    taper = torch.tensor([1, 2, 2, 1], dtype=F64) / 3
    w = torch.outer(taper, taper)[None, None]
    left = torch.zeros_like(x)
    right = torch.zeros_like(x)
    for start in (0, 2, 3):  # evenly spread, rounded
        left[..., start : start + 4] += w
        right[..., start : start + 4] += w * prior.denoise(x[..., start : start + 4], s)
    assert tiles._starts(7) == [0, 2, 3]
    torch.testing.assert_close(tiles.denoise(x, s), right / left)


def line(n, length=6.0):
    """A stationary Gaussian of n numbers in a row, of unit variance."""
    k = torch.arange(n, dtype=F64)
    return torch.exp(-(k[:, None] - k).abs() / length)


def windows_error(n, P, average):
    """Mean squared error per number of the exact denoiser of windows at sigma 1/2, for one
    partition, in the mean over offsets, or of the average over offsets. In closed form: x0 - M x
    has the covariance (I - M) C (I - M)^T + sigma^2 M M^T."""
    s, C = 0.5, line(n)
    prior = Gaussian(torch.zeros(1, 1, P, dtype=F64), line(P))

    def matrix(offset):
        """D as a matrix, of images one pixel high."""
        M = torch.zeros(n, n, dtype=F64)
        G = prior.denoise(torch.eye(P, dtype=F64).view(P, 1, 1, P), level(s)).view(P, P).T
        edges = [0, *range(offset or P, n, P), n]
        for a, b in pairwise(edges):
            start = min(a, n - P)
            M[a:b, start : start + P] = G[a - start : b - start]
        return M

    def error(M):
        rest = torch.eye(n, dtype=F64) - M
        return float((rest @ C @ rest.T + s**2 * M @ M.T).trace()) / n

    matrices = [matrix(o) for o in range(P)]
    mean = torch.stack(matrices).mean(0)
    return error(mean) if average else sum(map(error, matrices)) / P


def test_the_error_falls_with_the_window_and_an_average_over_offsets_is_always_better():
    n = 64
    whole = windows_error(n, n, False)
    one = [windows_error(n, P, False) for P in (4, 8, 16, 32)]
    averaged = [windows_error(n, P, True) for P in (4, 8, 16, 32)]
    for values in (one, averaged):
        assert all(a > b for a, b in zip(values, [*values[1:], whole], strict=True))
    assert all(a < b for a, b in zip(averaged, one, strict=True))
    # The loss of one partition halves, nearly, as the windows double: it is made at the seams.
    losses = [value - whole for value in one]
    for wide, narrow in zip(losses[1:], losses[:-1], strict=True):
        assert 1.5 < narrow / wide < 3.5


def test_the_closed_form_of_that_error_is_that_of_the_patches():
    """The matrix of the table is the prior's own, for a square window of one axis' correlation."""
    P, n, s = 4, 11, level(0.5)
    C = torch.kron(torch.eye(P, dtype=F64), line(P))
    prior = Gaussian(torch.zeros(1, P, P, dtype=F64), C)
    row = Gaussian(torch.zeros(P, dtype=F64), line(P))
    x = draw(1, 1, P, n)
    for offset in range(P):
        out = Patches(prior, P, (0, offset)).denoise(x, s)[0, 0]
        edges = [0, *range(offset or P, n, P), n]
        for a, b in pairwise(edges):
            start = min(a, n - P)
            exact = row.denoise(x[0, 0, :, start : start + P], s)
            torch.testing.assert_close(out[:, a:b], exact[:, a - start : b - start])


# PADIS
# --------------------------------------------------------------------------------------------------


def picture(prior, sides=(6, 7)):
    A = po.operators.Mask(po.operators.random_mask(sides, 0.5, 0), (1, *sides))
    return po.Posterior(prior, po.Likelihood(draw(*A.out_shape), A, po.noise.Gaussian(0.2)))


def test_padis_of_independent_pixels_is_dps():
    whole, patches = picture(Pixels()), picture(Patches(Pixels(), 4))
    x, z = draw(2, 1, 6, 7), draw(2, 42, seed=5)
    for sigma, s in pairwise(LEVELS):
        a, _ = methods.DPS().step(whole, x, sigma, s, Given(z))
        b, _ = methods.PaDIS().step(patches, x, sigma, s, Given(z))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    run = po.sample(patches, methods.PaDIS(), n=2, grid=LEVELS, seed=3)
    assert run.counts["denoiser"] == run.counts["vjp"] == 4


def test_padis_draws_another_partition_for_each_row_and_step():
    seen = []

    class Told(Patches):
        def at(self, /, **leaves):
            seen.append(leaves["offset"].clone())
            return super().at(**leaves)

    prior = Told(full_gaussian(F64, (1, 4, 4)), 4)
    drive(flat(picture(prior)), methods.PaDIS(), 40, LEVELS)
    offsets = torch.stack(seen)
    assert offsets.shape == (4, 40, 2)
    counts = torch.bincount((4 * offsets[..., 0] + offsets[..., 1]).flatten(), minlength=16)
    # 160 draws of 16 offsets: 10 each, with a standard deviation of 3.1.
    assert int(counts.min()) > 0
    assert int(counts.max()) < 10 + 5 * 3.1


def test_padis_published_takes_langevin_steps_of_the_paper():
    """x - zeta grad ||y - A D||, then x + h/2 score + sqrt(h) z with h = sigma^2 / 2, ten of them
    with a partition each; the last level without noise. zeta is 0.3 for images in [0, 1]."""
    method, post = methods.PaDIS.published(), picture(Patches(full_gaussian(F64, (1, 4, 4)), 4))
    assert (method.scale, method.inner) == (2 * 0.3, 10)
    x, sigma, numbers = draw(1, 1, 6, 7), level(0.7), draw(1, 42 * 10, seed=5)
    for s in (level(0.4), level(0.0)):
        own, _ = method.step(post, x, sigma, s, Given(numbers))
        u = x.clone().requires_grad_()
        for k in range(10):
            # Given draws 0.5 for every uniform number: the offset (2, 2).
            D = Patches(full_gaussian(F64, (1, 4, 4)), 4, (2, 2)).denoise(u, sigma)
            (grad,) = torch.autograd.grad(post.likelihood.residual(D).norm(), u)
            h, z = 0.5 * 0.7**2, numbers[:, 42 * k : 42 * k + 42].view(1, 1, 6, 7)
            score = (D.detach() - u.detach()) / 0.7**2
            u = u.detach() - 0.6 * grad + h / 2 * score + (h**0.5 * z if float(s) else 0)
            u.requires_grad_()
        torch.testing.assert_close(own, u.detach(), rtol=1e-9, atol=1e-9)
    run = po.sample(post, methods.PaDIS("norm", 0.1, inner=3), n=2, grid=LEVELS, seed=3)
    assert run.counts["denoiser"] == run.counts["vjp"] == 3 * 4
    with pytest.raises(ValueError, match="guided by the residual's norm, got the weighting"):
        methods.PaDIS(inner=2)


def test_rows_of_offsets_of_their_own_are_as_alone():
    prior, s = full_gaussian(F64, (1, 4, 4)), level(0.6)
    x, offsets = draw(3, 1, 6, 7), torch.tensor([[0, 1], [3, 2], [0, 0]])
    u = draw(3, 1, 6, 7, seed=2)
    x0, pull = Patches(prior, 4).at(offset=offsets).linearize(x, s)
    for k in range(3):
        alone, back = Patches(prior, 4, tuple(offsets[k].tolist())).linearize(x[k : k + 1], s)
        torch.testing.assert_close(x0[k : k + 1], alone)
        torch.testing.assert_close(pull(u)[k : k + 1], back(u[k : k + 1]))


def test_windows_that_do_not_fit_are_refused_by_name():
    prior = full_gaussian(F64, (1, 4, 4))
    with pytest.raises(ValueError, match="images of 3x9 are smaller than a window of 4x4"):
        picture(Tiles(Pixels(), 4), (3, 9))
    with pytest.raises(ValueError, match="overlap must be from 0 to 3, got 4"):
        Tiles(prior, 4, 4)
    with pytest.raises(ValueError, match="whole numbers from 0 to 3"):
        Patches(prior, 4, (4, 0))
    with pytest.raises(ValueError, match="size must be an integer >= 1, got 0"):
        Tiles(Pixels(), 0)
    with pytest.raises(ValueError, match=r"takes a prior of images \(C, H, W\)"):
        Tiles(full_gaussian(F64, (4, 4)), 4)
    with pytest.raises(ValueError, match="images of shape"):
        Patches(prior, 5)
