"""The data step with a measured error by colour and frequency: its closed form, its limits, and
what it repairs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from cases import bed, toy_unet
from reference import F64, law, level, moved

import posteriori as po
from posteriori import methods
from posteriori.counting import Counter, counted
from posteriori.evaluation import gaussian_kl, oracle
from posteriori.likelihood import framed
from posteriori.linalg import cosine
from posteriori.methods.data_steps import proximal
from posteriori.noise import Gaussian, Poisson
from posteriori.priors.error_spectrum import Covariance, ErrorSpectrum, measure, radius
from posteriori.priors.network import Network
from posteriori.priors.pretrained import from_pretrained, save_pretrained
from posteriori.rng import Streams

SHAPE = (2, 6, 6)
Q = torch.tensor([[0.8, 0.6], [-0.6, 0.8]], dtype=F64)
CONVERGED = {
    "DiffPIR": methods.DiffPIR(),
    "DDS": methods.DDS(iterations=200, rtol=1e-12),
    "Peng": methods.Peng(rtol=1e-12),
    "DAPS": methods.DAPS(),
}
OLD = {
    "DiffPIR": methods.DiffPIR(width="matched"),
    "DDS": methods.DDS("matched"),
    "Peng": methods.Peng(covariance="analytic"),
    "DAPS": methods.DAPS(width="matched"),
}


class Measured(po.priors.Gaussian):
    """A Gaussian prior, diagonal in colours and frequencies, that offers the error of its denoiser
    as a measured one."""

    def __init__(self, variances, mean=0.2):
        d = math.prod(SHAPE)
        self_C = Covariance(variances, Q)
        basis = torch.eye(d, dtype=F64).view(d, *SHAPE)
        super().__init__(torch.full(SHAPE, mean, dtype=F64), self_C(basis).flatten(1))
        self.variances = variances

    def know(self):
        return replace(super().know(), covariance=self.covariance_of_error)

    def covariance_of_error(self, sigma, shape):
        s2 = float(sigma) ** 2
        return Covariance(self.variances * s2 / (self.variances + s2), Q)


def steep():
    """Variances that fall from 30 to 0.003 with the frequency, as those of photographs do, the
    second colour a tenth of the first."""
    r = radius(*SHAPE[1:])
    fall = 30 * (r / r.min()) ** -3.0
    return torch.stack([fall, 0.1 * fall])


def correlated(variances=None, A=None, sigma=0.1):
    prior = Measured(steep() if variances is None else variances)
    A = A or po.operators.Downsample(SHAPE, 2, "box")
    x = prior.sample(1, 3)
    y = A(x)[0] + sigma * torch.randn(
        A.out_shape, dtype=F64, generator=torch.Generator().manual_seed(0)
    )
    return po.Posterior(prior, po.Likelihood(y, A, Gaussian(sigma)))


def images(post, sigma, rows=3):
    return post.prior.start(
        Streams(1, range(rows)).normal(torch.zeros(rows, *post.shape, dtype=F64)), level(sigma)
    )


def test_the_covariance_is_the_dense_matrix_and_its_root():
    C = Covariance(steep(), Q)
    basis = torch.eye(72, dtype=F64).view(72, *SHAPE)
    dense, root = C(basis).flatten(1), C.root(basis).flatten(1)
    torch.testing.assert_close(root @ root, dense)
    torch.testing.assert_close(dense, dense.T)
    u = torch.zeros(1, *SHAPE, dtype=F64)
    u[0, 1, 2, 3] = 1  # the second new colour at the frequency (2, 3) is an eigenvector
    wave = cosine(torch.einsum("ci,bc...->bi...", Q, u), inverse=True)
    torch.testing.assert_close(C(wave), steep()[1, 2, 3] * wave)
    plain = Covariance(steep())
    torch.testing.assert_close(plain(u), cosine(steep() * cosine(u), inverse=True))


@pytest.mark.parametrize("operator", ["downsample", "mask", "blur", "valid", "moved"])
def test_the_shift_is_its_formula_and_with_the_true_covariance_the_exact_conditional_mean(operator):
    A = {
        "downsample": po.operators.Downsample(SHAPE, 2, "box"),
        "mask": po.operators.Mask(po.operators.random_mask((6, 6), 0.4, 0), SHAPE),
        "blur": po.operators.Blur(
            po.operators.gaussian_kernel(0.7).to(F64), SHAPE, boundary="reflect"
        ),
        "valid": po.operators.Blur(
            po.operators.gaussian_kernel(0.7, 3).to(F64), SHAPE, boundary="valid"
        ),
        "moved": po.operators.Blur(
            torch.tensor([[0.1, 0.5, 0.0], [0.0, 0.1, 0.3]], dtype=F64), SHAPE, boundary="zero"
        ),
    }[operator]
    post = correlated(A=A)
    exact = po.evaluation.oracle(post).prior
    for sigma in (20.0, 0.7, 0.05):
        x = images(post, sigma)
        x0 = post.prior.denoise(x, level(sigma))
        C = proximal.measured_covariance(post, level(sigma))
        M, gap = po.operators.matrix(A), post.likelihood.residual(x0)
        dense = C(torch.eye(72, dtype=F64).view(72, *SHAPE)).flatten(1)
        wanted = gap.flatten(1) @ torch.linalg.solve(
            M @ dense @ M.T + 0.01 * torch.eye(len(M), dtype=F64), M @ dense
        )
        ours = proximal.shift(post, gap, C, rtol=1e-12)
        torch.testing.assert_close(ours.flatten(1), wanted, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(x0 + ours, exact.denoise(x, level(sigma)), rtol=1e-6, atol=1e-8)
        # Each row by itself
        torch.testing.assert_close(
            proximal.shift(post, gap[1:2], C, rtol=1e-12), ours[1:2], rtol=1e-9, atol=1e-10
        )


@pytest.mark.parametrize("name", ["DiffPIR", "DDS", "Peng"])
def test_the_methods_agree_on_it(name):
    post = correlated()
    x = images(post, 0.7)
    exact = po.evaluation.oracle(post).prior.denoise(x, level(0.7))
    gaps = [
        float((m[name].denoise(post, x, level(0.7)) - exact).abs().max()) for m in (CONVERGED, OLD)
    ]
    assert gaps[0] < 1e-6 < 0.05 < gaps[1]


def test_limits():
    post, white = correlated(), correlated(torch.full(SHAPE, 0.4, dtype=F64))
    x = images(post, 0.7)
    x0 = post.prior.denoise(x, level(0.7))
    flat = po.Posterior(post.prior, replace(post.given, noise=Gaussian(1e7)))
    torch.testing.assert_close(methods.DiffPIR().denoise(flat, x, level(0.7)), x0)
    # A white error is r2 I: the step of before, to solver precision.
    for name, method in CONVERGED.items():
        if name != "DAPS":
            torch.testing.assert_close(
                method.denoise(white, x, level(0.7)),
                OLD["DiffPIR"].denoise(white, x, level(0.7)),
                rtol=1e-6,
                atol=1e-8,
            )
    # Weight on the prior is a smaller covariance.
    half = proximal.measured_covariance(post, level(0.7), 0.5)
    torch.testing.assert_close(
        half.variances, 0.5 * proximal.measured_covariance(post, level(0.7)).variances
    )
    ours = methods.DiffPIR(lam=2.0).denoise(post, x, level(0.7))
    torch.testing.assert_close(ours, x0 + proximal.shift(post, post.likelihood.residual(x0), half))
    torch.testing.assert_close(
        methods.DDS(scale=0.5, iterations=200, rtol=1e-12).denoise(post, x, level(0.7)), ours
    )


def test_where_nothing_is_measured_or_the_step_is_not_of_this_form_there_is_none():
    assert proximal.measured_covariance(bed("general"), level(0.7)) is None
    post = correlated()
    silent = po.Posterior(post.prior, replace(post.given, noise=Gaussian(0.0)))
    photons = po.Posterior(
        post.prior, replace(post.given, y=post.given.y.abs(), noise=Poisson(50.0))
    )
    assert proximal.measured_covariance(silent, level(0.7)) is None
    assert proximal.measured_covariance(photons, level(0.7)) is None
    x = images(post, 0.7)
    for name in ("DiffPIR", "DDS", "Peng"):
        torch.testing.assert_close(
            CONVERGED[name].denoise(silent, x, level(0.7)),
            OLD["DiffPIR"].denoise(silent, x, level(0.7)),
        )


def test_with_the_true_covariance_a_run_has_the_law_of_the_exact_score_and_without_it_misfits():
    """The covariance is diagonal in frequencies, so that the data step is the exact conditional
    mean: at every step, hence in law."""
    post, steps = correlated(), 30
    M, y = po.operators.matrix(post.likelihood.A), post.likelihood.y.flatten()

    def chi2(mean, covariance):
        """||y - A x||^2 / (m sigma_y^2), averaged over draws."""
        gap = y - M @ mean
        return float(gap @ gap + (M @ covariance @ M.T).trace()) / (len(y) * 0.01)

    best = law(oracle(post), methods.Unconditional(), steps)
    new = law(post, CONVERGED["DiffPIR"], steps)
    assert float(gaussian_kl(*new, *best)) < 1e-6
    old = law(post, OLD["DiffPIR"], steps)
    assert chi2(*old) > 1.5 * chi2(*best)
    assert float(gaussian_kl(*old, *best)) > 1.0


def test_a_draw_has_the_law_of_the_product():
    """Mean and covariance of the draw, read off unit random numbers, within 1e-4 standard
    deviations, where its solve stops."""
    post = correlated()
    C = proximal.measured_covariance(post, level(0.7))
    m = torch.full((72,), 0.1, dtype=F64)
    dense = C(torch.eye(72, dtype=F64).view(72, *SHAPE)).flatten(1)
    found, spread = moved(
        lambda x, rng: proximal.proximal_draw(post, x.view(-1, *SHAPE), C, rng).flatten(1),
        m,
        0 * dense,
    )
    M = po.operators.matrix(post.likelihood.A)
    covariance = torch.linalg.inv(torch.linalg.inv(dense) + M.T @ M / 0.01)
    mean = m + covariance @ M.T @ (post.likelihood.y.flatten() - M @ m) / 0.01
    roots = covariance.diagonal().sqrt()
    assert float(((found - mean) / roots).abs().max()) < 1e-4
    assert float(((spread - covariance) / (roots[:, None] * roots)).abs().max()) < 1e-4


def test_measuring_finds_the_error_of_a_known_denoiser():
    prior = Measured(steep(), mean=0.0)
    table = measure(prior, prior.sample(4000, 1), levels=3)
    s2 = table.levels[1] ** 2
    v = steep() * s2 / (steep() + s2)
    assert torch.tensor(table.colours, dtype=F64).abs().flip(0).allclose(Q.abs(), atol=0.03)
    assert table.frequencies[0] == pytest.approx(0.25 / 6)
    assert table.variances[1][0][1] == pytest.approx(float(v[0, 0, 0]), rel=0.1)
    assert table.variances[1][0][0] == pytest.approx(float(v[1, 0, 0]), rel=0.1)
    at = table.at(table.levels[1], (2, 6, 6)).variances
    assert float((at.flip(0) / v - 1).abs().max()) < 0.5  # half octaves of a cubic fall
    assert bool((table.at(1e-6, (2, 6, 6)).variances <= 1e-12).all())
    # Other sizes: the same curve at their own frequencies.
    torch.testing.assert_close(
        table.at(0.5, (2, 12, 12)).variances[:, 0, 2], table.at(0.5, (2, 6, 6)).variances[:, 0, 1]
    )


GOOD = {
    "colours": ((1.0,),),
    "levels": (0.1, 1.0),
    "frequencies": (0.1, 0.4),
    "variances": (((0.01,), (0.001,)), ((0.5,), (0.1,))),
}


def test_interpolation_is_in_the_logarithms():
    table = ErrorSpectrum(**GOOD)
    v = table.at(0.1**0.5, (1, 5, 5)).variances[0]
    near = torch.tensor([0.01 * 0.5, 0.001 * 0.1], dtype=F64).sqrt()
    torch.testing.assert_close(v[0, 1], near[0])
    torch.testing.assert_close(v[4, 4], near[1])  # beyond the last frequency
    # 0.2 lies half way from 0.1 to 0.4
    torch.testing.assert_close(v[0, 2], (near[0] * near[1]).sqrt())


def test_no_frequency_has_a_larger_error_than_the_noisy_image_itself():
    """Below the table its first row stays, but where that exceeds sigma^2: x itself is off by as
    much."""
    table = ErrorSpectrum(**GOOD)
    for sigma, first, last in ((0.05, 0.0025, 0.001), (0.02, 0.0004, 0.0004), (1e-3, 1e-6, 1e-6)):
        v = table.at(sigma, (1, 5, 5)).variances[0]
        assert float(v[0, 0]) == pytest.approx(first, rel=1e-12)
        assert float(v[4, 4]) == pytest.approx(last, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colours": ((0.5,),)}, "orthonormal"),
        ({"levels": (1.0, 0.1)}, "levels must be"),
        ({"frequencies": (0.1,)}, "frequencies must be"),
        ({"variances": (((0.01,), (0.001,)),)}, "of shape"),
        ({"variances": (((0.01,), (0.0,)), ((0.5,), (0.1,)))}, "numbers > 0"),
    ],
)
def test_bad_tables_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ErrorSpectrum(**(GOOD | change))


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="1 colours belong to"):
        ErrorSpectrum(**GOOD).at(0.5, (3, 5, 5))
    with pytest.raises(ValueError, match="at least 2 x 2"):
        measure(correlated().prior, torch.zeros(3, 8))


def test_a_card_keeps_it_and_a_network_offers_it(tmp_path):
    prior = Network(
        toy_unet(),
        shape=(1, None, None),
        multiple=4,
        sigma_data=0.5,
        spectrum=ErrorSpectrum(**GOOD),
    )
    save_pretrained(prior, tmp_path / "p")
    back = from_pretrained(tmp_path / "p")
    assert back.spectrum == prior.spectrum == ErrorSpectrum(**GOOD)
    want = prior.spectrum.at(0.5, (1, 8, 8)).variances
    assert torch.equal(back.know().covariance(0.5, (1, 8, 8)).variances, want)
    assert Network(toy_unet(), shape=(1, None, None), sigma_data=0.5).know().covariance is None


def test_the_shipped_photo_prior_knows_its_error():
    prior = po.priors.photos()
    low = prior.know().covariance(1.0, (3, 64, 64)).variances
    assert float(low[:, 0, 0].max()) > 50 * prior.know().error(1.0)
    assert float(low.mean()) == pytest.approx(prior.know().error(1.0), rel=0.5)


def test_every_level_is_measured_with_noise_of_its_own():
    images, met = torch.zeros(40, *SHAPE, dtype=F64), []

    class Seen(Measured):
        def denoise(self, x, sigma):
            met.append(x / float(sigma))
            return super().denoise(x, sigma)

    measure(Seen(steep()), images, levels=3)
    by_level = torch.cat(met).view(3, 40, -1)

    for a, b in ((0, 1), (1, 2), (0, 2)):
        # 2880 products of independent normal numbers: five standard errors.
        assert abs(float((by_level[a] * by_level[b]).mean())) < 5 / 2880**0.5


def test_daps_tempers_the_measured_draw_as_any_other():
    post, x = correlated(), images(correlated(), 0.7)
    C = proximal.measured_covariance(post, level(0.7))
    centre = post.prior.denoise(images(post, 0.7), level(0.7))
    for temperature in (1.0, 4.0):
        last, _ = methods.DAPS(temperature=temperature).step(
            post, x, level(0.7), level(0.0), Streams(3, range(3))
        )
        torch.testing.assert_close(
            last, proximal.proximal_draw(post, centre, C, Streams(3, range(3)), temperature)
        )
    assert (
        float((last - proximal.proximal_draw(post, centre, C, Streams(3, range(3)))).abs().max())
        > 1e-2
    )


@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("shape", [(2, 6, 6), (2, 5, 8)])
def test_under_a_circular_blur_the_shift_is_closed_form(mirrored, shape):
    """Both are diagonal in the Fourier basis: the formula, without an iteration, also for a kernel
    that moves the image."""
    kernel = torch.tensor([[0.1, 0.2, 0.1], [0.0, 0.3, 0.1], [0.0, 0.0, 0.2]], dtype=F64)
    if mirrored:
        kernel = (kernel + kernel.flip(0) + kernel.flip(1) + kernel.flip((0, 1))) / 4
    A = po.operators.Blur(kernel, shape)
    r = radius(*shape[1:])
    variances = torch.stack([30 * (r / r.min()) ** -3.0, 3 * (r / r.min()) ** -2.0])

    class Waves(po.priors.Gaussian):
        def know(self):
            return replace(super().know(), covariance=self.covariance_of_error)

        def covariance_of_error(self, sigma, shape):
            return Covariance(variances, Q)

    prior = Waves(torch.zeros(shape, dtype=F64), 1.0)
    post = po.Posterior(prior, po.Likelihood(torch.zeros(shape, dtype=F64), A, Gaussian(0.1)))
    C = proximal.measured_covariance(post, level(0.7), 0.5)
    d = math.prod(shape)
    basis = torch.eye(d, dtype=F64).view(d, *shape)
    dense, M = C(basis).flatten(1), po.operators.matrix(A)
    torch.testing.assert_close(C.root(basis).flatten(1) @ C.root(basis).flatten(1), dense)
    torch.testing.assert_close(C(basis.roll((1, 2), (-2, -1))), C(basis).roll((1, 2), (-2, -1)))
    wave = torch.cos(2 * math.pi * torch.arange(shape[2], dtype=F64) / shape[2]).expand(
        1, 1, *shape[1:]
    ) * Q[1].view(1, 2, 1, 1)
    # A whole period is the cosine frequency 2
    torch.testing.assert_close(C(wave), 0.5 * variances[1, 0, 2] * wave)
    gap = torch.randn(3, *shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    wanted = gap.flatten(1) @ torch.linalg.solve(
        M @ dense @ M.T + 0.01 * torch.eye(d, dtype=F64), M @ dense
    )
    counter, info = Counter(), {}
    ours = proximal.shift(counted(post, counter), gap, C, info=info)
    torch.testing.assert_close(ours.flatten(1), wanted, rtol=1e-9, atol=1e-10)
    assert (counter.calls["operator"], counter.calls["adjoint"]) == (0, 3)
    assert info["residual"].tolist() == [0.0] * 3
    cut = proximal.shift(post, gap, C, iterations=150, rtol=1e-13)  # by iterations the same
    torch.testing.assert_close(cut, ours, rtol=1e-7, atol=1e-8)
    single = po.Posterior(prior, replace(post.given, y=post.given.y.float()))
    torch.testing.assert_close(
        proximal.shift(single, gap.float(), C).double(), ours, rtol=1e-3, atol=1e-4
    )


def test_a_denoising_shift_needs_one_iteration():
    """The identity is diagonal in every basis, the cosines of C as well."""
    post = correlated(A=po.operators.Identity(SHAPE))
    counter = Counter()
    C = proximal.measured_covariance(post, level(0.7))
    ours = proximal.shift(counted(post, counter), post.likelihood.y[None], C)
    torch.testing.assert_close(
        ours, Covariance(C.variances / (C.variances + 0.01), C.colours)(post.likelihood.y[None])
    )
    assert counter.calls["operator"] <= 2


@pytest.mark.parametrize("boundary", ["reflect", "zero", "valid"])
def test_a_preconditioned_shift_is_the_same_in_fewer_operator_calls(boundary):
    """The shift with the shipped prior's covariance against the dense-tolerance solution: as near
    as without, at half the calls."""
    A = po.operators.Blur(po.operators.gaussian_kernel(1.5), (3, 24, 28), boundary=boundary)
    frame = ((6, 18), (6, 22)) if boundary == "valid" else None
    y = torch.randn(A.out_shape, generator=torch.Generator().manual_seed(0))
    found = {}
    for dtype in (torch.float32, torch.float64):
        post = po.Posterior(
            po.priors.photos(),
            po.Likelihood(y.to(dtype), A, po.noise.Gaussian(0.04), range=(-1, 1)),
        )
        C = proximal.measured_covariance(post, torch.tensor(2.0))
        exact = proximal.shift(post, post.likelihood.y[None], C, iterations=2000)
        for aided in (True, False):
            counter = Counter()
            with pytest.MonkeyPatch.context() as patch:
                if not aided:
                    patch.setattr(po.operators.Blur, "cosine_power", lambda self: None)
                    patch.setattr(po.operators.Blur, "measured_power", lambda self: None)
                x = proximal.shift(counted(post, counter), post.likelihood.y[None], C)
            x, wanted = (framed(image.double(), frame) for image in (x, exact))
            found[dtype, aided] = (x - wanted).norm() / wanted.norm(), counter.calls["operator"]
    assert float(found[torch.float64, True][0]) < 1e-6
    assert float(found[torch.float64, False][0]) < 1e-6
    for dtype in (torch.float32, torch.float64):
        assert found[dtype, True][1] <= 0.6 * found[dtype, False][1]
    assert float(found[torch.float32, True][0]) < 0.1
