"""Grey images from a colour prior: exact where the prior holds grey images alone, and one with the
colour prior's error table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from reference import F64

import posteriori as po
from posteriori.priors.error_spectrum import ErrorSpectrum
from posteriori.priors.grey import _pattern


def grey_mixture(variance=1e-9):
    """A mixture of grey 4 x 4 images, and the same images in three equal channels (with a rest of
    ``variance`` off the grey axis)."""
    g = torch.Generator().manual_seed(0)
    means = torch.randn(3, 16, generator=g, dtype=F64)
    root = torch.randn(16, 16, generator=g, dtype=F64) / 4
    C = root @ root.T + 0.1 * torch.eye(16, dtype=F64)
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=F64)
    colours = torch.kron(torch.ones(3, 3, dtype=F64), C) + variance * torch.eye(48, dtype=F64)
    grey = po.priors.GaussianMixture(weights, means, C[None], shape=(1, 4, 4))
    return grey, po.priors.GaussianMixture(
        weights, means.repeat(1, 3), colours[None], shape=(3, 4, 4)
    )


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
def test_of_a_prior_of_grey_images_it_is_the_exact_denoiser(sigma):
    """The mean over channels is sufficient and its noise is 1 / sqrt(3) of theirs; the pattern in
    the colours says nothing."""
    exact, colours = grey_mixture()
    ours, s = po.priors.GreyImages(colours), torch.tensor(sigma, dtype=F64)
    x = exact.sample(5, 1) + sigma * torch.randn(
        5, 1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=F64
    )
    torch.testing.assert_close(ours.denoise(x, s), exact.denoise(x, s), rtol=0, atol=1e-5)
    u = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(3), dtype=F64)
    (x0, pull), (_, wanted) = ours.linearize(x, s), exact.linearize(x, s)
    torch.testing.assert_close(x0, ours.denoise(x, s))
    torch.testing.assert_close(pull(u), wanted(u), rtol=0, atol=1e-5)


def test_the_pattern_is_white_noise_without_its_mean_and_depends_on_the_size_alone():
    n = _pattern((40, 50))
    assert float(n.mean(0).abs().max()) < 1e-12
    # Each channel has the variance 2/3: five standard errors.
    assert abs(float(n.square().mean()) - 2 / 3) < 5 * (8 / 9 / 4000) ** 0.5
    assert torch.equal(n, _pattern((40, 50)))


def test_shape_range_limits_and_errors_are_those_of_the_grey_axis():
    class Flat(po.priors.Gaussian):
        def know(self):
            return replace(super().know(), error=lambda sigma: 0.02, covariance=self.measured)

        def measured(self, sigma, shape):
            Q = (
                (3**-0.5, 3**-0.5, 3**-0.5),
                (2**-0.5, -(2**-0.5), 0.0),
                (6**-0.5, 6**-0.5, -2 * 6**-0.5),
            )
            return ErrorSpectrum(Q, (0.1, 10.0), (0.1, 1.0), (((0.3, 7.0, 9.0),) * 2,) * 2).at(
                sigma, shape
            )

    colours = Flat(torch.zeros(3, 4, 6), 1.0, range=(0, 2))
    ours = po.priors.GreyImages(colours)
    assert (ours.shape, ours.range, ours.variance) == ((1, 4, 6), (0, 2), colours.variance)
    assert ours.sigma_max == pytest.approx(colours.sigma_max / 3**0.5)
    known = ours.know()
    assert known.error(1.0) == 0.02
    assert known.error(0.01) == pytest.approx(1e-4)
    assert known.covariance(1.0, (1, 4, 6)).variances == pytest.approx(
        torch.full((1, 4, 6), 0.1, dtype=F64)
    )


def test_a_prior_of_other_images_is_refused():
    for prior in (
        po.priors.Gaussian(torch.zeros(1, 4, 4), 1.0),
        po.priors.ComplexImages(po.priors.Gaussian(torch.zeros(2, 3, 4, 4), 1.0)),
    ):
        with pytest.raises(
            ValueError, match=r"needs a real prior of colour images \(3, H, W\), got a"
        ):
            po.priors.GreyImages(prior)


def test_a_problem_file_asks_for_it_by_name():
    from posteriori.problem_file.prior import PriorSection

    ours = PriorSection.model_validate({"grey": "photos"}).build("float32")
    assert isinstance(ours, po.priors.GreyImages)
    assert ours.shape == (1, None, None)
    assert ours.denoise(torch.zeros(1, 1, 9, 8), torch.tensor(0.1)).shape == (1, 1, 9, 8)
    with pytest.raises(ValueError, match="GreyImages needs a real prior of colour images"):
        PriorSection.model_validate({"grey": "digits"}).build("float32")
