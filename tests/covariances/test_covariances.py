"""Covariances of noise: functions of a symmetric positive definite matrix, and which one each
instrument leaves."""

from __future__ import annotations

import math

import pytest
import torch
from reference import draw

import posteriori as po
from posteriori import covariances as cov
from posteriori import noise
from posteriori import operators as ops

double = {"dtype": torch.float64}


def _axes(n):
    return torch.linalg.qr(draw(n, n, **double))[0]


def _waves(H, W):
    """Variances at Fourier frequencies that are alike at k and -k."""
    power = torch.fft.fft2(draw(H, W, **double)).abs().square()
    return 0.1 + power / power.max()


Q = _axes(12)
MEMBERS = {
    "white": cov.WhiteNoise(0.7),
    "pixels": cov.PixelNoise(0.1 + draw(3, 2, 2, **double).abs()),
    "one map for all channels": cov.PixelNoise(0.1 + draw(2, 2, **double).abs()),
    "fourier": cov.FourierNoise(_waves(2, 2)),
    "cosines": cov.CosineNoise(0.1 + draw(2, 2, **double).abs()),
    "blocks": cov.BlockNoise(2, 0.2, 1.5),
    "colours": cov.ColourNoise(_axes(3), torch.tensor([0.2, 1.0, 3.0], **double)),
    "singular": cov.SingularNoise(
        torch.linspace(0.1, 2, 12, **double),
        V=lambda c: (c @ Q.T.to(c)).view(-1, 3, 2, 2),
        Vh=lambda x: x.flatten(1) @ Q.to(x),
    ),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_functions_of_a_covariance_are_those_of_its_matrix(name):
    Sigma, x = MEMBERS[name], draw(4, 3, 2, 2, **double)
    M = Sigma.dense(x)
    torch.testing.assert_close(M, M.T, rtol=0, atol=1e-13)
    values, vectors = torch.linalg.eigh(M)
    assert float(values.min()) > 0
    for f in (lambda v: v**-0.5, lambda v: 1 / (v + 0.4)):
        expected = x.flatten(1) @ (vectors * f(values)) @ vectors.T
        torch.testing.assert_close(Sigma.applied(f, x).flatten(1), expected, rtol=0, atol=1e-12)
    assert Sigma.power(x.float(), 0.5).dtype == torch.float32


def test_each_row_has_the_covariance_that_is_its_own():
    members = (MEMBERS["pixels"], MEMBERS["blocks"])
    Sigma, x = cov.RowsNoise(members, (1, 0, 1)), draw(3, 3, 2, 2, **double)
    for k, j in enumerate((1, 0, 1)):
        torch.testing.assert_close(
            Sigma.power(x, 0.5)[k : k + 1], members[j].power(x[k : k + 1], 0.5), rtol=0, atol=0
        )
    with pytest.raises(ValueError, match="3 rows, the batch has 2"):
        Sigma.power(x[:2], 0.5)
    # A member may have no row; a row has a member.
    assert torch.equal(cov.RowsNoise(members, (1, 1, 1)).power(x, 0.5), members[1].power(x, 0.5))
    for j in (2, -1):
        with pytest.raises(ValueError, match=f"a member from 0 to 1, got {j}"):
            cov.RowsNoise(members, (1, 0, j))


@pytest.mark.parametrize(
    ("A", "member"),
    [
        (ops.Identity((1, 4, 4)), cov.WhiteNoise),
        (ops.Null((1, 4, 4)), cov.WhiteNoise),
        (ops.Mask(ops.random_mask((4, 4), 0.5, 0)), cov.PixelNoise),
        (ops.Scaled(ops.Mask(ops.random_mask((4, 4), 0.5, 0)), 3.0), cov.PixelNoise),
        (ops.Blur(ops.gaussian_kernel(0.8), (1, 9, 8)), cov.FourierNoise),
        (ops.Blur(ops.gaussian_kernel(0.8), (1, 9, 8), "symmetric"), cov.CosineNoise),
        (ops.Downsample((1, 4, 4), 2), cov.BlockNoise),
        (ops.Downsample((1, 4, 4), 2, kind="stride"), cov.SingularNoise),
        (ops.Grey((3, 4, 4)), cov.ColourNoise),
        (ops.MaskedFourier(ops.random_mask((4, 4), 0.5, 0), (4, 4)), cov.FourierNoise),
        (ops.Dense(torch.ones(2, 3)), cov.SingularNoise),
        (ops.Blur(ops.gaussian_kernel(0.5), (1, 8, 8), boundary="reflect"), type(None)),
    ],
    ids=lambda part: getattr(part, "label", getattr(part, "__name__", None)),
)
def test_which_member_each_instrument_leaves(A, member):
    """That it is the right one of its kind is in the contract of operators."""
    assert type(A.posterior_covariance(0.7, 0.3)) is member


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_variances_that_are_none_are_refused(bad):
    v = torch.ones(4, 4, **double)
    v[2, 1] = bad
    unit = torch.eye(3, **double)
    for make in (
        lambda: cov.PixelNoise(v),
        lambda: cov.FourierNoise(v),
        lambda: cov.CosineNoise(v),
        lambda: cov.ColourNoise(unit, torch.tensor([1.0, bad, 1.0], **double)),
        lambda: cov.SingularNoise(v[2], torch.clone, torch.clone),
        lambda: cov.BlockNoise(2, bad, 1.0),
        lambda: cov.BlockNoise(2, 1.0, bad),
        lambda: cov.WhiteNoise(bad),
    ):
        with pytest.raises(ValueError, match=f"variances are finite numbers > 0, 1 .* as {bad:g}"):
            make()


def test_real_images_have_alike_variances_at_opposite_frequencies():
    """Of others the root of Sigma, twice, would not be Sigma: f(Sigma) x is not real."""
    v = 1 + draw(5, 4, **double).square()
    x = draw(2, 1, 5, 4, **double)
    with pytest.raises(ValueError, match="alike at the frequencies k and -k"):
        cov.FourierNoise(v).power(x, 0.5)
    y, law = x[0], noise.CorrelatedGaussian(cov.FourierNoise(v))
    with pytest.raises(ValueError, match="alike at the frequencies k and -k"):
        po.Likelihood(y, ops.Identity(y.shape), law)
    even = v + v.flip(0, 1).roll((1, 1), (0, 1))
    for Sigma, of in ((cov.FourierNoise(even), x), (cov.FourierNoise(v), torch.complex(x, x))):
        twice = Sigma.power(Sigma.power(of, 0.5), 0.5)
        torch.testing.assert_close(twice, Sigma.power(of, 1.0), rtol=0, atol=1e-12)
