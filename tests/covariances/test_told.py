"""What a network is told of noise, against traces of matrices."""

from __future__ import annotations

import math

import pytest
import torch
from reference import draw

from posteriori import covariances as cov
from posteriori import operators as ops
from posteriori.covariances.told import BANDS, BLOCKS, COLOURS

double = {"dtype": torch.float64}
SIDES = (16, 8)


def _fourier():
    """The unitary Fourier matrix over flattened (16, 8) images."""
    d = SIDES[0] * SIDES[1]
    eye = torch.eye(d, dtype=torch.complex128).view(d, *SIDES)
    return torch.fft.fft2(eye, norm="ortho").flatten(1).T


def _projections():
    """The eleven B as matrices: F^H diag(band) F, and block means."""
    F, d = _fourier(), SIDES[0] * SIDES[1]
    eye = torch.eye(d, **double).view(d, 1, *SIDES)
    rows, columns = (torch.fft.fftfreq(n, **double) for n in SIDES)
    f = torch.hypot(rows[:, None], columns).clamp_min(1 / 32).flatten()
    bands = []
    for k in range(BANDS):
        centre = 2 ** (-5 + 4 * k / (BANDS - 1))
        weight = torch.exp(-0.5 * ((f / centre).log() / 0.4) ** 2)
        bands.append((F.mH @ (weight[:, None] * F)).real)
    blocks = []
    for n in BLOCKS:
        coarse = torch.nn.functional.avg_pool2d(eye, n)
        blocks.append(torch.kron(coarse, torch.ones(1, 1, n, n, **double)).flatten(1))
    return [*bands, *blocks]


NOISES = {
    "white": cov.WhiteNoise(0.3),
    "pixels": cov.PixelNoise(0.1 + draw(*SIDES, **double).abs()),
    "blur": ops.Blur(ops.gaussian_kernel(0.9), (1, *SIDES)).posterior_covariance(1.3, 0.01),
    "narrow": ops.Blur(ops.gaussian_kernel(0.5), (1, *SIDES)).posterior_covariance(4.0, 1e-3),
    **{f"blocks of {n}": cov.BlockNoise(n, 0.02, 1.7) for n in BLOCKS},
}


@pytest.mark.parametrize("name", NOISES)
def test_levels_and_colour_are_the_diagonal_and_traces(name):
    Sigma, x = NOISES[name], torch.zeros(2, 1, *SIDES, **double)
    M, told = Sigma.dense(x), Sigma.told(x)
    levels = told.levels.expand(1, 1, *SIDES).flatten()
    torch.testing.assert_close(levels, M.diagonal().sqrt(), rtol=1e-11, atol=0)
    expected = torch.stack([(B @ M).trace() / B.trace() for B in _projections()])
    expected = (expected / M.diagonal().mean()).log()
    assert told.colour.shape == (1, COLOURS)
    torch.testing.assert_close(told.colour[0], expected, rtol=0, atol=1e-11)
    if name in ("white", "pixels"):  # exactly, so that a network is what it is without colours
        assert bool((told.colour == 0).all())


def test_blocks_are_told_from_noise_of_the_same_spectrum():
    """A stationary noise of the spectrum of block noise agrees in the bands, not in the blocks."""
    x, blocks = torch.zeros(1, 1, *SIDES, **double), NOISES["blocks of 4"]
    F = _fourier()
    spectrum = (F @ blocks.dense(x).to(F) @ F.mH).diagonal().real.view(SIDES)
    smooth = cov.FourierNoise(spectrum)
    found, other = blocks.told(x).colour[0], smooth.told(x).colour[0]
    torch.testing.assert_close(found[:BANDS], other[:BANDS], rtol=0, atol=1e-11)
    assert float((found - other)[BANDS:].abs().max()) > 0.5


def test_rows_are_told_apart():
    x = torch.zeros(3, 1, *SIDES, **double)
    rows = cov.RowsNoise((NOISES["blur"], NOISES["pixels"]), (1, 0, 1)).told(x)
    for k, name in enumerate(("pixels", "blur", "pixels")):
        own = NOISES[name].told(x)
        torch.testing.assert_close(rows.levels[k : k + 1], own.levels.expand(1, 1, *SIDES))
        torch.testing.assert_close(rows.colour[k], own.colour[0])


@pytest.mark.parametrize(
    "Sigma",
    [
        cov.BlockNoise(3, 0.1, 1.0),
        cov.PixelNoise(1 + torch.arange(3.0)[:, None, None].expand(3, *SIDES)),
        # One row of k-space in two: no round blur.
        cov.FourierNoise(torch.tensor([1.0, 0.01] * 8)[:, None].expand(SIDES)),
        cov.ColourNoise(torch.eye(3), torch.ones(3)),
        cov.RowsNoise((cov.WhiteNoise(1.0), cov.BlockNoise(16, 0.1, 1.0)), (0, 1)),
    ],
    ids=["blocks of 3", "channels", "rows of k-space", "mixtures of channels", "one row of two"],
)
def test_what_is_not_told(Sigma):
    assert Sigma.told(torch.zeros(2, 3, *SIDES)) is None


@pytest.mark.parametrize("width", [0.3, 0.5, 0.7, 1.0, 2.0, 3.9])
def test_every_round_blur_is_told(width):
    """At each level that EPS asks for."""
    A, x = ops.Blur(ops.gaussian_kernel(width), (3, 64, 48)), torch.zeros(1, 3, 64, 48)
    for sigma in (0.01, 0.1, 1.0, 4.0):
        for s in (0.01, 0.4):
            told = A.posterior_covariance(sigma**2, s**2).told(x)
            assert told is not None
            assert bool(told.colour.isfinite().all())
            assert float(told.levels) <= sigma
    long = torch.zeros(9, 9)
    long[4] = 1 / 9
    assert ops.Blur(long, (3, 64, 48)).posterior_covariance(1.0, 0.01).told(x) is None
    assert math.isclose(float(A.posterior_covariance(1.0, 1e9).told(x).levels), 1.0, rel_tol=1e-6)
