"""MMPS at the tangent of a non-linear operator, DPS for photon counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import bed, complex_picture, full_gaussian, mixture, phases, picture
from reference import F64, images, level

import posteriori as po
from posteriori import methods
from posteriori.noise import Gaussian, Poisson
from posteriori.operators.base import Operator
from posteriori.rng import Streams
from posteriori.testing import check_method

# MMPS
# --------------------------------------------------------------------------------------------------


class Curved(Operator):
    """(B, 2) -> (B, 3), smooth; ``curved`` 1 is far from linear at the scale of the tests."""

    def __init__(self, curved=1.0):
        super().__init__((2,))
        self.curved = curved

    def forward(self, x):
        u, v = x[:, 0], x[:, 1]
        return torch.stack(
            [u + self.curved * v**2, torch.sin(u * v), 0.5 * v + self.curved * torch.exp(-(u**2))],
            dim=1,
        )


class Cubic(Operator):
    def __init__(self):
        super().__init__((1,))

    def forward(self, x):
        return x + 0.3 * x**3


@pytest.mark.parametrize("make", [bed, picture, complex_picture])
@pytest.mark.parametrize("solver", ["cg", "gmres"])
def test_a_linear_operator_behind_a_nonlinear_face_gives_the_same_run(make, solver):
    post = make()
    like = post.likelihood
    hidden = po.Posterior(post.prior, replace(like, A=po.operators.Affine(like.A, 1.0, 0.0)))
    method = methods.MMPS(iterations=3, precondition=False, solver=solver)
    plain, behind = (
        po.sample(p, method, n=3, steps=6, seed=1) for p in (po.Posterior(post.prior, like), hidden)
    )
    torch.testing.assert_close(behind.samples, plain.samples, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        behind.trace["residual"], plain.trace["residual"], rtol=1e-6, atol=1e-10
    )
    assert behind.counts == plain.counts | {"adjoint": plain.counts["adjoint"] + 2 * 6 - 1}


def test_no_product_is_made_twice():
    """One operator for the residual, and an operator, an adjoint and a product for each iteration:
    the products of the solve make D_y as well."""
    counts = po.sample(bed(), methods.MMPS(iterations=3, rtol=0.0), n=2, steps=5).counts
    # Two places a step, one on the last
    assert counts == {"denoiser": 9, "vjp": 9 * 3, "operator": 9 * 4, "adjoint": 9 * 3}


@pytest.mark.parametrize("prior", [full_gaussian(shape=(2,)), mixture(d=2)])
def test_the_tangent_formula_written_out_with_dense_jacobians(prior):
    A = Curved()
    post = po.Posterior(
        prior, po.Likelihood(torch.tensor([0.7, 0.1, 0.4], dtype=F64), A, Gaussian(0.2))
    )
    for sigma in (3.0, 0.5, 0.05):
        x, s2 = images(post, sigma), sigma**2
        ours = methods.MMPS(iterations=8, rtol=1e-13).denoise(post, x, level(sigma))
        for row in range(3):
            J = torch.func.jacfwd(lambda v: prior.denoise(v[None], level(sigma))[0])(x[row])
            x0 = prior.denoise(x[row : row + 1], level(sigma))[0]
            H = torch.func.jacfwd(lambda v: A(v[None])[0])(x0)
            v = torch.linalg.solve(
                0.04 * torch.eye(3, dtype=F64) + s2 * H @ J @ H.T,
                post.likelihood.y - A(x0[None])[0],
            )
            torch.testing.assert_close(ours[row], x0 + s2 * J.T @ H.T @ v, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "prior", [po.priors.Gaussian(torch.tensor([0.4], dtype=F64), 0.8), mixture(d=1)]
)
@pytest.mark.parametrize("solver", ["cg", "gmres"])
def test_a_cubic_measurement_against_quadrature_of_its_linearised_posterior(prior, solver):
    """N(x0; D, sigma^2 J) N(y; A(D) + A'(D) (x0 - D), sigma_y^2), its mean by the trapezium rule;
    the true one is close at small sigma."""
    post = po.Posterior(
        prior, po.Likelihood(torch.tensor([0.9], dtype=F64), Cubic(), Gaussian(0.15))
    )
    gaps = []
    for sigma in (2.0, 0.4, 0.03):
        x = images(post, sigma, rows=1)
        leaf = x.clone().requires_grad_()
        x0 = prior.denoise(leaf, level(sigma))
        spread = sigma**2 * float(torch.autograd.grad(x0.sum(), leaf)[0])
        centre = float(x0.detach())
        grid = centre + spread**0.5 * torch.linspace(-80, 80, 400001, dtype=F64)
        slope = 1 + 0.9 * centre**2
        tangent = centre + 0.3 * centre**3 + slope * (grid - centre)
        mean = []
        for value in (tangent, grid + 0.3 * grid**3):
            log = -0.5 * (grid - centre) ** 2 / spread - 0.5 * (0.9 - value) ** 2 / 0.15**2
            weight = (log - log.max()).exp()
            mean.append(float(torch.trapezoid(grid * weight, grid) / torch.trapezoid(weight, grid)))
        ours = float(methods.MMPS(solver=solver).denoise(post, x, level(sigma)))
        assert ours == pytest.approx(mean[0], abs=1e-8)
        gaps.append(abs(ours - mean[1]))
    assert gaps[-1] < 0.1 * gaps[0]


def test_the_transposed_pull_is_the_forward_derivative():
    for A in (
        Curved(),
        po.operators.PhaseRetrieval((1, 3, 4)),
        po.operators.JPEG((1, 8, 8), 60).double(),
        phases().likelihood.A,
    ):
        draw = torch.Generator().manual_seed(2)
        x, v = (
            A.probe(lambda *s, dtype, device: torch.rand(*s, dtype=F64, generator=draw), rows=2)
            for _ in range(2)
        )
        y, push, pull = A.differential(x)
        smooth = A.surrogate() or A
        torch.testing.assert_close(y, A(x))
        torch.testing.assert_close(
            push(v), torch.func.jvp(smooth, (x,), (v,))[1], rtol=1e-9, atol=1e-9
        )
        u = torch.rand(y.shape, dtype=F64, generator=draw)
        torch.testing.assert_close((push(v) * u).flatten(1).sum(1), (pull(u) * v).flatten(1).sum(1))
        assert not push(v).requires_grad


def test_moment_matching_takes_a_nonlinear_operator_and_still_refuses_other_noise():
    check_method(methods.MMPS(), phases(), claims=False)
    check_method(
        methods.MMPS(),
        po.Posterior(
            full_gaussian(shape=(2,)),
            po.Likelihood(torch.ones(3, dtype=F64), Curved(), Gaussian(0.2)),
        ),
        claims=False,  # which do not depend on the posterior: test_claims has them
    )
    A = po.operators.Identity((6,))
    counted = po.Posterior(
        full_gaussian(), po.Likelihood(torch.ones(6, dtype=F64), A, Poisson(100.0))
    )
    assert "Gaussian noise" in str(methods.MMPS().refuses(counted))


# DPS
# --------------------------------------------------------------------------------------------------


def photons(peak=100.0, range=None):
    """Photon counts of a bright patch beside a dark one, where fewer than one photon is seen."""
    prior = po.priors.Gaussian(
        torch.full((1, 2, 4), 0.5 if range is None else 0.0, dtype=F64), 0.01, range=range
    )
    A = po.operators.Blur(po.operators.gaussian_kernel(0.6).to(F64), (1, 2, 4))
    y = torch.tensor([[[0.0, 0.0, 0.31, 0.02], [1.2, 0.8, 0.01, 0.5]]], dtype=F64)
    return po.Posterior(
        prior, po.Likelihood(y, A, Poisson(peak), range=None if range is None else (0, 1))
    )


@pytest.mark.parametrize("range", [None, (-1, 1)])
def test_the_poisson_step_is_the_papers_in_photons(range):
    """x'_vp = DDPM(x_vp) - zeta grad_{x_vp} ||n - N(D)||_L^2, L = diag(1 / (2 n)), with counts
    n = 100 y and N(x) = 100 A(x)."""
    post, scale = photons(range=range), 1e-3
    sigma, s = level(0.9), level(0.6)
    a, a_s = ((1 + v**2).rsqrt() for v in (sigma, s))
    x = images(post, 0.9)
    ours, _ = methods.DPS("poisson", scale).step(post, x, sigma, s, Streams(4, [0, 1, 2]))
    free, _ = methods.Unconditional(methods.DDIM(1.0)).step(
        post, x, sigma, s, Streams(4, [0, 1, 2])
    )
    n = 100 * post.given.y
    for row in (0, 1, 2):
        leaf = (a * x[row : row + 1]).requires_grad_()
        picture = post.to_given(post.prior.denoise(leaf / a, sigma))
        misfit = ((n - 100 * post.given.A(picture)) ** 2 / (2 * n.clamp(min=1))).sum()
        (gradient,) = torch.autograd.grad(misfit, leaf)
        torch.testing.assert_close(
            a_s * ours[row : row + 1], a_s * free[row : row + 1] - scale * gradient
        )
        assert float(gradient.abs().max()) > 1.0
    assert bool(ours.isfinite().all())


def test_the_poisson_weight_needs_poisson_noise_and_obeys_the_contract():
    method = methods.DPS("poisson", 1e-4)
    check_method(method, photons())
    check_method(method, photons(range=(-1, 1)))
    assert "needs Poisson noise, the likelihood has Gaussian" in str(method.refuses(bed()))
    assert methods.DPS().refuses(photons()) is None


def test_the_poisson_weight_pulls_a_bright_pixel_less_than_a_dark_one():
    """The same residual counts by 1 / y: along the run the data of the dark pixel are fitted more
    closely."""
    prior = po.priors.Gaussian(torch.full((1, 1, 2), 0.5, dtype=F64), 1.0)
    A = po.operators.Identity((1, 1, 2))
    post = po.Posterior(
        prior, po.Likelihood(torch.tensor([[[0.1, 0.9]]], dtype=F64), A, Poisson(1000.0))
    )
    x = torch.full((1, 1, 1, 2), 0.5, dtype=F64)
    ours, _ = methods.DPS("poisson", 1e-6, methods.DDIM(0.0)).step(
        post, x, level(1.0), level(0.5), Streams(0, [0])
    )
    free, _ = methods.Unconditional(methods.DDIM(0.0)).step(
        post, x, level(1.0), level(0.5), Streams(0, [0])
    )
    dark, bright = (ours - free).abs().flatten().tolist()
    assert dark / bright == pytest.approx(0.9 / 0.1)


def test_for_a_white_prior_one_preconditioned_iteration_is_the_solution():
    """The preconditioner is the matrix itself: sigma^2 J = error(sigma) I. Without it one iteration
    is not enough."""
    post = bed("white")
    exact, _ = (
        post.prior.know()
        .exact("posterior")
        .condition(po.operators.matrix(post.likelihood.A), post.likelihood.y, post.likelihood.std)
    )
    for sigma in (3.0, 0.4):
        x = images(post, sigma)
        want = exact.denoise(x, level(sigma))
        for solver in ("cg", "gmres"):
            torch.testing.assert_close(
                methods.MMPS(iterations=1, rtol=0.0, solver=solver).denoise(post, x, level(sigma)),
                want,
            )
        plain = methods.MMPS(iterations=1, rtol=0.0, precondition=False).denoise(
            post, x, level(sigma)
        )
        assert float((plain - want).abs().max()) > 1e-2
