"""DDNM, DDRM and DDS: their rules written out with dense matrices, their relations, and the
variance that they are known to lose."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import bed, complex_picture, full_gaussian, phases
from reference import F64, kl, law, level

import posteriori as po
from posteriori import methods
from posteriori.methods.transitions import ConstantFraction, Heun
from posteriori.noise import ComplexGaussian, Gaussian
from posteriori.operators import Identity, MaskedFourier, Null, matrix, random_mask
from posteriori.priors.base import Prior
from posteriori.rng import Streams

LEVELS = (30.0, 3.0, 0.9, 0.2, 0.03)
PUBLISHED_DIRECTION = {
    "direction": "network",
    "transition": ConstantFraction(0.85**2),
    "iterations": 64,
    "rtol": 1e-14,
}


def at(post, sigma, rows=3):
    blank = torch.zeros(rows, *post.shape, dtype=torch.complex128 if post.prior.complex else F64)
    return post.prior.start(Streams(11, range(rows)).normal(blank), level(sigma))


def silent(kind="general"):
    """The bed with a measurement without noise, which some image explains exactly."""
    post = bed(kind)
    A = post.likelihood.A
    return po.Posterior(post.prior, po.Likelihood(A(post.prior.sample(1, 3))[0], A, Gaussian(0.0)))


def unseen(d=6):
    return po.Posterior(
        full_gaussian(), po.Likelihood(torch.zeros(1, dtype=F64), Null((d,)), Gaussian(0.1))
    )


def fourier():
    """Complex images of which some points of the Fourier transform are measured."""
    post = complex_picture()
    A = MaskedFourier(random_mask((6, 5), 0.5, 2), (6, 5))
    y = torch.randn(A.out_shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))
    return po.Posterior(post.prior, po.Likelihood(y, A, ComplexGaussian(sigma_per_channel=0.2)))


def projectors(post):
    A = matrix(post.likelihood.A)
    plus = torch.linalg.pinv(A)
    return A, plus, torch.eye(A.shape[1], dtype=A.dtype) - plus @ A


class Prescribed:
    def __init__(self, z):
        self.z = z

    def normal(self, like):
        return self.z


class Known(Prior):
    """A denoiser that knows the image: 0, whatever x."""

    def __init__(self):
        super().__init__((6,), variance=1.0, sigma_max=80.0, sigma_min=0.002)

    def denoise(self, x, sigma):
        return 0 * x


# DDRM and DDNM+
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", LEVELS)
@pytest.mark.parametrize(("eta", "eta_b"), [(0.85, 1.0), (0.3, 0.6)])
def test_ddrm_is_the_papers_rule_in_any_singular_basis(eta, eta_b, s):
    post = bed()
    like, v = post.likelihood, post.likelihood.std
    # Other signs, order and null basis than the operator's own
    values, V = torch.linalg.eigh(matrix(like.A).T @ matrix(like.A))
    x, z = at(post, 2 * s), Streams(4, range(3)).normal(at(post, 1.0))
    x0 = post.prior.denoise(x, level(2 * s))
    want = torch.zeros_like(x)
    for value, axis in zip(values, V.T, strict=True):
        D, e, a = x0 @ axis, (x - x0) @ axis / (2 * s), float(value.clamp(min=0).sqrt())
        if a < 1e-6:
            part = D + (1 - eta**2) ** 0.5 * s * e + eta * s * (z @ axis)
        else:
            ybar = like.y @ (matrix(like.A) @ axis) / a**2
            if s < v / a:
                part = D + (1 - eta**2) ** 0.5 * s * (ybar - D) / (v / a) + eta * s * (z @ axis)
            else:
                part = (
                    (1 - eta_b) * D
                    + eta_b * ybar
                    + (s**2 - (eta_b * v / a) ** 2) ** 0.5 * (z @ axis)
                )
        want += part[:, None] * axis
    ours, _ = methods.DDRM(eta, eta_b).step(post, x, level(2 * s), level(s), Streams(4, range(3)))
    torch.testing.assert_close(ours, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [bed, fourier])
def test_ddnm_with_known_noise_is_ddrm_step_by_step(make):
    post = make()
    for s in LEVELS:
        x = at(post, 2 * s)
        ours, _ = methods.DDNM(0.7).step(post, x, level(2 * s), level(s), Streams(4, range(3)))
        theirs, _ = methods.DDRM(0.7, 1.0).step(
            post, x, level(2 * s), level(s), Streams(4, range(3))
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
        other, _ = methods.DDRM(0.7, 0.9).step(
            post, x, level(2 * s), level(s), Streams(4, range(3))
        )
        # Below, no direction of these operators is measured well, and eta_b does nothing
        if s > 0.5:
            assert float((ours - other).abs().max()) > 1e-4
    silenced = replace(post.given, noise=post.given.noise.scaled(0.0))
    post = po.Posterior(post.prior, silenced)
    x = at(post, 1.0)
    ours, _ = methods.DDNM(0.7).step(post, x, level(1.0), level(0.5), Streams(4, range(3)))
    theirs, _ = methods.DDRM(0.7, 1.0).step(post, x, level(1.0), level(0.5), Streams(4, range(3)))
    # Without noise DDNM keeps a share of e in the range, DDRM none
    assert float((ours - theirs).abs().max()) > 1e-2


@pytest.mark.parametrize(
    "method", [methods.DDNM(0.6), methods.DDRM(0.6, 1.0), methods.DDRM(0.85, 0.5)]
)
@pytest.mark.parametrize("s", LEVELS)
def test_each_step_has_variance_s2_around_the_image(method, s):
    """y, x and z are random around the image 0: v^2 Y Y^T + sigma^2 X X^T + Z Z^T = s^2 I for the
    derivatives Y, X, Z of x'."""
    A, v, sigma = bed().likelihood.A, 0.1, 2 * s

    def step(y, x, z):
        post = po.Posterior(Known(), po.Likelihood(y, A, Gaussian(v)))
        return method.step(post, x[None], level(sigma), level(s), Prescribed(z[None]))[0][0]

    zeros = [torch.zeros(n, dtype=F64) for n in (4, 6, 6)]
    Y, X, Z = torch.autograd.functional.jacobian(step, tuple(zeros))
    total = v**2 * Y @ Y.T + sigma**2 * X @ X.T + Z @ Z.T
    torch.testing.assert_close(total / s**2, torch.eye(6, dtype=F64), rtol=1e-9, atol=1e-9)


def test_the_last_step_of_ddrm():
    post, free = bed(), silent()
    x = at(post, 0.5)
    for method in (methods.DDRM(), methods.DDNM()):
        last, _ = method.step(post, x, level(0.5), level(0.0), Streams(0, range(3)))
        torch.testing.assert_close(last, post.prior.denoise(x, level(0.5)))
    for method, exact in (
        (methods.DDRM(), True),
        (methods.DDRM(eta_b=0.5), False),
        (methods.DDNM(), True),
    ):
        last, _ = method.step(free, x, level(0.5), level(0.0), Streams(0, range(3)))
        assert (float(free.likelihood.residual(last).abs().max()) < 1e-10) is exact


# DDNM without noise
# --------------------------------------------------------------------------------------------------


def test_ddnm_projects_and_leaves_the_null_space_alone():
    for post, method in (
        (silent(), methods.DDNM(0.85)),
        (bed(), methods.DDNM(0.85, noise="ignored")),
    ):
        A, plus, null = projectors(post)
        y = post.likelihood.y
        x, z = at(post, 0.9), Streams(4, range(3)).normal(at(post, 1.0))
        x0 = post.prior.denoise(x, level(0.9))
        moved = x0 - (x0 @ A.T - y) @ plus.T
        torch.testing.assert_close((moved - x0) @ null.T, torch.zeros_like(x), rtol=0, atol=1e-10)
        want = moved + 0.4 * (0.85 * z + (1 - 0.85**2) ** 0.5 * (x - x0) / 0.9)
        ours, _ = method.step(post, x, level(0.9), level(0.4), Streams(4, range(3)))
        torch.testing.assert_close(ours, want, rtol=1e-8, atol=1e-8)
        mean, covariance = law(post, method, 20)
        torch.testing.assert_close(A @ mean, y, rtol=0, atol=1e-8)
        assert float((A @ covariance @ A.T).abs().max()) < 1e-12


def test_ddnm_of_the_whole_image_without_noise_is_the_measurement():
    y = torch.linspace(-1, 1, 6, dtype=F64)
    post = po.Posterior(full_gaussian(), po.Likelihood(y, Identity((6,)), Gaussian(0.0)))
    torch.testing.assert_close(
        po.sample(post, methods.DDNM(), n=2, steps=5).samples, y.expand(2, -1)
    )


def test_the_null_space_of_ddnm_has_the_priors_variance_only_without_fresh_noise():
    """White prior: y says nothing of the null space, whose exact variance is the prior's."""
    post = silent("white")
    null = projectors(post)[2]
    ratio = {}
    for eta in (0.0, 0.85):
        _, covariance = law(post, methods.DDNM(eta), 300)
        ratio[eta] = float((null @ covariance).trace()) / (0.8 * 2)
    assert ratio[0.0] == pytest.approx(1.0, abs=0.03)
    assert 0.6 < ratio[0.85] < 0.8


# DDS
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [silent, bed])
def test_dds_without_noise_is_ddnm(make):
    post = make()
    dds, ddnm = methods.DDS("noiseless", **PUBLISHED_DIRECTION), methods.DDNM(0.85, noise="ignored")
    for s in LEVELS:
        x = at(post, 2 * s)
        ours, _ = dds.step(post, x, level(2 * s), level(s), Streams(4, range(3)))
        theirs, _ = ddnm.step(post, x, level(2 * s), level(s), Streams(4, range(3)))
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)
    stiff, _ = methods.DDS("fixed", 1e9, **PUBLISHED_DIRECTION).step(
        post, x, level(2 * s), level(s), Streams(4, range(3))
    )
    torch.testing.assert_close(stiff, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.1, 1.0, 50.0])
def test_the_fixed_data_step_of_dds_is_the_proximal_step_of_diffpir(gamma):
    post, sigma = bed(), level(0.7)
    x = at(post, 0.7)
    fixed = methods.DDS("fixed", gamma, iterations=64, rtol=1e-14)
    pir = methods.DiffPIR(lam=0.7**2 / (gamma * post.likelihood.std**2), width="sigma")
    torch.testing.assert_close(
        fixed.denoise(post, x, sigma), pir.denoise(post, x, sigma), rtol=1e-8, atol=1e-8
    )
    matched = methods.DDS(scale=2.0, iterations=64, rtol=1e-14)
    torch.testing.assert_close(
        matched.denoise(post, x, sigma),
        methods.DiffPIR(lam=0.5).denoise(post, x, sigma),
        rtol=1e-8,
        atol=1e-8,
    )


def test_the_iterates_of_dds_lie_in_the_krylov_space_and_end_at_the_dense_solution():
    post, sigma, gamma = bed(), level(0.7), 40.0
    A, _, null = projectors(post)
    x = at(post, 0.7)
    x0 = post.prior.denoise(x, sigma)
    dense = torch.linalg.solve(
        torch.eye(6, dtype=F64) + gamma * A.T @ A, (x0 + gamma * post.likelihood.y @ A).T
    ).T
    gaps = []
    for k in (1, 2, 3, 4):
        guided = methods.DDS("fixed", gamma, iterations=k, rtol=0.0).denoise(post, x, sigma)
        gaps.append(float((guided - dense).norm()))
        vectors = [(post.likelihood.y - x0 @ A.T) @ A]
        for _ in range(k - 1):
            vectors.append(vectors[-1] @ A.T @ A)
        K = torch.stack([v / v.norm(dim=1, keepdim=True) for v in vectors], 2)
        outside = (guided - x0)[..., None] - K @ (torch.linalg.pinv(K) @ (guided - x0)[..., None])
        assert float(outside.abs().max()) < 1e-8
        torch.testing.assert_close((guided - x0) @ null.T, torch.zeros_like(x), rtol=0, atol=1e-10)
    assert gaps[0] > 1e-3
    assert gaps[3] < 1e-8


def test_dds_solves_complex_systems():
    post, sigma = complex_picture(), level(0.8)
    A, x = matrix(post.likelihood.A, torch.complex128), at(post, 0.8)
    x0 = post.prior.denoise(x, sigma).flatten(1)
    normal = torch.eye(30, dtype=A.dtype) + 5.0 * A.mH @ A
    dense = torch.linalg.solve(normal, (x0 + 5.0 * post.likelihood.y.flatten() @ A.conj()).T).T
    ours = methods.DDS("fixed", 5.0, iterations=60, rtol=1e-13).denoise(post, x, sigma)
    torch.testing.assert_close(ours.flatten(1), dense, rtol=1e-9, atol=1e-9)


def test_the_published_dds_step_is_the_papers_rule():
    post = bed()
    x, z = at(post, 0.9), Streams(4, range(3)).normal(at(post, 1.0))
    x0 = post.prior.denoise(x, level(0.9))
    A = matrix(post.likelihood.A)
    moved = torch.linalg.solve(torch.eye(6, dtype=F64) + A.T @ A, (x0 + post.likelihood.y @ A).T).T
    want = moved + 0.4 * (0.85 * z + (1 - 0.85**2) ** 0.5 * (x - x0) / 0.9)
    ours, info = methods.DDS.published().step(post, x, level(0.9), level(0.4), Streams(4, range(3)))
    torch.testing.assert_close(ours, want, rtol=1e-8, atol=1e-8)
    assert info["residual"].shape == (3,)


def test_dds_along_the_networks_noise_is_wrong_by_an_amount_that_grows_with_the_number_of_steps():
    """The noise that the denoiser saw, in place of what D' leaves."""
    network = methods.DDS(iterations=64, rtol=1e-13, direction="network")
    assert kl(bed("white"), network, 200) > kl(bed("white"), network, 50) > 0.03


# All three
# --------------------------------------------------------------------------------------------------


def test_with_nothing_measured_all_three_are_the_unconditional_sampler():
    post = unseen()
    x, free = at(post, 0.9), methods.Unconditional(transition=ConstantFraction(0.85**2))
    want, _ = free.step(post, x, level(0.9), level(0.4), Streams(4, range(3)))
    for method in (
        methods.DDNM(),
        methods.DDNM(noise="ignored"),
        methods.DDRM(),
        methods.DDS.published(),
    ):
        ours, _ = method.step(post, x, level(0.9), level(0.4), Streams(4, range(3)))
        torch.testing.assert_close(ours, want, rtol=1e-13, atol=1e-13)
    ours, _ = methods.DDS().step(post, x, level(0.9), level(0.4), Streams(4, range(3)))
    want, _ = methods.Unconditional().step(post, x, level(0.9), level(0.4), Streams(4, range(3)))
    assert torch.equal(ours, want)


@pytest.mark.parametrize(
    "method", [methods.DDNM.published(), methods.DDRM.published(), methods.DDS.published()]
)
def test_the_published_settings_lose_variance_that_no_number_of_steps_brings_back(method):
    post = unseen()
    ratios = [
        float(law(post, method, n)[1].trace() / post.prior.covariance.trace()) for n in (100, 300)
    ]
    kept = law(post, methods.Unconditional(), 300)[1]
    assert 0.6 < ratios[0] < ratios[1] < 0.8
    assert float(kept.trace() / post.prior.covariance.trace()) > 0.95


def test_a_nearly_flat_likelihood_does_not_give_ddrm_and_ddnm_the_prior():
    """The direction of x is dropped where the measurement is poor, however poor; the spread left
    there comes from the null space."""
    flat = po.Posterior(full_gaussian(), replace(bed().given, noise=Gaussian(1e7)))
    A = projectors(flat)[0]
    for method in (methods.DDRM(eta=0.0), methods.DDNM(eta=0.0)):
        covariance = law(flat, method, 50)[1]
        assert float((A @ covariance @ A.T).trace()) < 0.2 * float(
            (A @ flat.prior.covariance @ A.T).trace()
        )
    assert kl(unseen(), methods.DDRM(eta=0.0)) < 0.03


def test_what_they_refuse():
    for method in (methods.DDNM(), methods.DDRM()):
        assert "MultiCoilFourier has none" in str(method.refuses(complex_picture()))
        assert "PhaseRetrieval is not linear" in str(method.refuses(phases()))
        assert method.refuses(silent()) is None
    assert methods.DDS().refuses(complex_picture()) is None
    assert "not linear" in str(methods.DDS().refuses(phases()))
    for wrong in (
        lambda: methods.DDNM(eta=1.2),
        lambda: methods.DDRM(eta_b=-0.1),
        lambda: methods.DDS(scale=0.0),
    ):
        with pytest.raises(ValueError, match="expected a number"):
            wrong()
    with pytest.raises(ValueError, match="iterations"):
        methods.DDS(iterations=0)
    with pytest.raises(ValueError, match="Heun"):
        methods.DDS(direction="network", transition=Heun())
