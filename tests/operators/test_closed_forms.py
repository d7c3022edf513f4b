"""Every closed form for real and complex images, real and complex measurements, against one dense
real problem in float64.

An image, complex or not, is a vector of real numbers u, and so is a measurement; R is the matrix
between them, found by unit vectors.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from cases import full_gaussian, mixture
from reference import F64, draw

import posteriori as po
from posteriori import methods
from posteriori.evaluation import affine_probe, exact_posterior
from posteriori.linalg import real_view
from posteriori.methods.data_steps import gaussian_draws, proximal
from posteriori.operators.base import LinearOperator, solve
from posteriori.operators.dense_matrix import log_det
from posteriori.priors.error_spectrum import Covariance

SHAPE = (2, 3)
SIGMA, R2 = 0.4, 0.7


def numbers(x):
    """(B, ...) as rows of real numbers."""
    return real_view(x).flatten(1) if x.is_complex() else x.flatten(1)


class RealPart(LinearOperator):
    """Re(M x): real measurements of complex images."""

    def __init__(self, M):
        super().__init__(SHAPE, complex_in=True)
        self.register_buffer("M", M)

    def forward(self, x):
        return (x.flatten(1) @ self.M.T).real

    def adjoint(self, y):
        return (y.to(self.M.dtype) @ self.M.conj()).view(-1, *SHAPE)


MATRIX = draw(4, 6, dtype=torch.complex128, seed=3)
PAIRS = po.operators.ComplexChannels((2, *SHAPE))
COILS = draw(2, *SHAPE, dtype=torch.complex128)
# Image, measurement -> operator, with and without a spectrum.
OPERATORS = {
    "real, real": po.operators.Dense(MATRIX.real.contiguous(), SHAPE),
    "real, real, no spectrum": po.operators.Blur(draw(3, 3, seed=5), (1, 3, 4), boundary="zero"),
    "real, complex": po.operators.MaskedFourier(po.operators.random_mask(SHAPE, 0.6, 1), SHAPE)
    @ PAIRS,
    "real, complex, no spectrum": po.operators.MultiCoilFourier(COILS, torch.ones(SHAPE).bool())
    @ PAIRS,
    "complex, complex": po.operators.MaskedFourier(po.operators.random_mask(SHAPE, 0.6, 1), SHAPE),
    "complex, complex, no spectrum": po.operators.MultiCoilFourier(COILS, torch.ones(SHAPE).bool()),
    "complex, real": RealPart(MATRIX),
}
ALL = list(OPERATORS)


def problem(name):
    """Posterior, R, y as real numbers, prior mean and covariance as real numbers."""
    A = OPERATORS[name]
    if A.complex_in:
        pairs = full_gaussian(shape=(2, *A.in_shape))
        prior = po.priors.ComplexImages(pairs)
        # The pairs are laid out as all real parts, then all imaginary ones; numbers() has them side
        # by side.
        turn = torch.arange(pairs.mean.numel()).view(2, -1).T.flatten()
        mean, C = pairs.mean.flatten()[turn], pairs.covariance[turn][:, turn]
        units = torch.view_as_complex(torch.eye(len(mean), dtype=F64).view(-1, *A.in_shape, 2))
    else:
        prior = full_gaussian(shape=A.in_shape)
        mean, C = prior.mean.flatten(), prior.covariance
        units = torch.eye(len(mean), dtype=F64).view(-1, *A.in_shape)
    y = draw(*A.out_shape, seed=7, dtype=torch.complex128 if A.complex_out else F64)
    noise = (
        po.noise.ComplexGaussian(sigma_per_channel=SIGMA)
        if A.complex_out
        else po.noise.Gaussian(SIGMA)
    )
    return (
        po.Posterior(prior, po.Likelihood(y, A, noise)),
        numbers(A(units)).T,
        numbers(y[None])[0],
        mean,
        C,
    )


def given(mean, C, R, y):
    """Mean and covariance of u ~ N(mean, C) given y = R u + SIGMA z."""
    S = R @ C @ R.T + SIGMA**2 * torch.eye(len(y), dtype=F64)
    gain = C @ R.T @ torch.linalg.inv(S)
    return mean + gain @ (y - R @ mean), C - gain @ R @ C, S


def gaussian(r, S):
    return float(
        -0.5
        * (
            r @ torch.linalg.solve(S, r)
            + torch.linalg.slogdet(S)[1]
            + len(r) * math.log(2 * math.pi)
        )
    )


def close(a, b, rtol=1e-7, atol=1e-8):
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


class Laid:
    """Random numbers laid down beforehand, (rows, n), zeros beyond; ``used`` says how many were
    asked for."""

    def __init__(self, z):
        self.z, self.used = z, 0

    def normal(self, like):
        real = real_view(like) if like.is_complex() else like
        size = real[0].numel()
        z = torch.nn.functional.pad(self.z, (0, self.used + size))[
            :, self.used : self.used + size
        ].reshape(real.shape)
        self.used += size
        return torch.view_as_complex(z.contiguous()) if like.is_complex() else z

    def uniform(self, count):
        return torch.full((len(self.z), count), 0.5, dtype=F64)


def law(step, m):
    """Mean and covariance of an affine map of normal numbers, from its values at 0 and at unit
    vectors."""
    count = Laid(torch.zeros(1, 0, dtype=F64))
    mean = numbers(step(m, count))[0]
    rows = (
        numbers(step(m.expand(count.used, *m.shape[1:]), Laid(torch.eye(count.used, dtype=F64))))
        - mean
    )
    return mean, rows.T @ rows


@pytest.mark.parametrize("name", ALL)
def test_likelihoods_and_solves(name):
    post, R, y, _, _ = problem(name)
    like, A = post.likelihood, post.likelihood.A
    x = post.prior.sample(3, 2)
    u = numbers(x)
    for r2 in (0.0, R2):
        S = r2 * R @ R.T + SIGMA**2 * torch.eye(len(y), dtype=F64)
        wide = like.widen(r2)
        close(wide.log_prob(x), torch.tensor([gaussian(y - R @ row, S) for row in u], dtype=F64))
        close(numbers(wide.score(x)), (y - u @ R.T) @ torch.linalg.solve(S, R))
    S = R2 * R @ R.T + SIGMA**2 * torch.eye(len(y), dtype=F64)
    close(numbers(solve(A, like.y[None], R2, SIGMA**2))[0], torch.linalg.solve(S, y))
    # Over the measured numbers: a complex one counts once where the matrix is complex.
    half = 2 if A.complex_out else 1
    close(log_det(A, R2, SIGMA**2), torch.linalg.slogdet(S)[1] / half)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_draws_around_a_centre(name, temperature):
    """``exact`` and ``rto`` have the mean and the covariance of N(m, r2 I)
    p(y | x)^(1 / temperature)."""
    post, R, y, _, _ = problem(name)
    m = post.prior.sample(1, 2)
    target = gaussian_draws.Tilted(post.likelihood, m, R2, temperature)
    Q = torch.eye(R.shape[1], dtype=F64) / R2 + R.T @ R / (SIGMA**2 * temperature)
    mean = torch.linalg.solve(Q, numbers(m)[0] / R2 + R.T @ y / (SIGMA**2 * temperature))
    for step in (gaussian_draws.exact_draw, lambda t, rng: gaussian_draws.rto(t, rng, 200)):
        found = law(lambda m, rng, step=step: step(replace(target, m=m), rng), m)
        close(found[0], mean, 1e-5, 1e-6)
        close(found[1], torch.linalg.inv(Q), 1e-5, 1e-6)


@pytest.mark.parametrize("name", [n for n in ALL if n.startswith("real")])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_proximal_draws_by_frequency(name, temperature):
    """Of N(m, C) p(y | x)^(1 / temperature), C by frequency: ``shift`` is the mean's, ``draw`` has
    the covariance too."""
    post, R, y, _, _ = problem(name)
    m = post.prior.sample(1, 2)
    C = Covariance(
        0.2 + torch.rand(m.shape[1:], dtype=F64, generator=torch.Generator().manual_seed(4))
    )
    dense = numbers(C(torch.eye(m.numel(), dtype=F64).view(-1, *m.shape[1:])))
    S = R @ dense @ R.T + temperature * SIGMA**2 * torch.eye(len(y), dtype=F64)
    gain = dense @ R.T @ torch.linalg.inv(S)
    mean, covariance = numbers(m)[0] + gain @ (y - R @ numbers(m)[0]), dense - gain @ R @ dense
    found = law(lambda m, rng: proximal.proximal_draw(post, m, C, rng, temperature), m)
    close(found[0], mean, 1e-6, 1e-7)
    close(found[1], covariance, 1e-6, 1e-7)
    moved = proximal.shift(
        post, post.likelihood.y - post.likelihood.A(m), C, std=SIGMA * temperature**0.5
    )
    close(numbers(m + moved)[0], mean, 1e-6, 1e-7)


@pytest.mark.parametrize("name", [n for n in ALL if n != "complex, real"])
def test_conditioned_priors_and_exact_decoupled_sampling(name):
    post, R, y, mean, C = problem(name)
    want, covariance, S = given(mean, C, R, y)
    levels = torch.cat([torch.tensor([1e5], dtype=F64), po.grid.karras(2, 3.0, 0.05)])
    found = affine_probe(post, methods.DAPS(draw="exact"), 2, levels)
    close(numbers(found[0][None])[0], want, 1e-6, 1e-6)
    close(found[1], covariance, 1e-6, 1e-6)
    rows = po.operators.matrix(post.likelihood.A, post.likelihood.y.dtype)
    _, log_p = (
        post.prior.know().exact("posterior").condition(rows, post.likelihood.y.flatten(), SIGMA)
    )
    assert log_p == pytest.approx(gaussian(y - R @ mean, S), rel=1e-9)
    if not post.prior.complex:
        exact = exact_posterior(post)
        close(exact.mean.flatten(), want)
        close(exact.covariance, covariance)
        assert exact.log_evidence == pytest.approx(log_p, rel=1e-9)


def test_a_mixture_conditioned_on_complex_numbers_is_that_on_their_parts():
    prior, M, y = mixture(d=6), MATRIX, draw(4, dtype=torch.complex128, seed=8)
    after, log_p = prior.condition(M, y, SIGMA)
    parts, same = prior.condition(torch.cat([M.real, M.imag]), torch.cat([y.real, y.imag]), SIGMA)
    assert log_p == pytest.approx(same)
    close(after.mean, parts.mean)
    close(after.covariance, parts.covariance)
    seen = [
        gaussian(
            numbers((y - m.to(M.dtype) @ M.T)[None])[0],
            both(M) @ C @ both(M).T + SIGMA**2 * torch.eye(8, dtype=F64),
        )
        for m, C in zip(prior.means, prior.covariances, strict=True)
    ]
    assert log_p == pytest.approx(
        float((prior.log_weights + torch.tensor(seen, dtype=F64)).logsumexp(0))
    )


def both(M):
    return torch.view_as_real(M).permute(0, 2, 1).flatten(0, 1)


def test_real_measurements_of_complex_images_are_refused_where_a_matrix_is_needed():
    post = problem("complex, real")[0]
    assert "needs A as a matrix" in str(methods.DAPS(draw="exact").refuses(post))
    assert methods.DAPS().refuses(post) is None
    assert po.sample(post, methods.DAPS(), n=2, steps=3).samples.is_complex()
