"""Derivatives through operators: inside chains with curved maps, of first and second order, in
forward mode and under ``torch.func``."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cases import BRIEF, METHODS, OPERATORS
from reference import F64, draw

import posteriori as po
from posteriori import operators as ops
from posteriori.operators.base import LinearOperator, Operator


def real(t):
    return torch.view_as_real(t) if t.is_complex() else t


# f with its first and second derivative, number by number (of a complex number: of its two parts).
CURVES = {
    "exp": (lambda t: torch.exp(-t), lambda t: -torch.exp(-t), lambda t: torch.exp(-t)),
    "log": (
        lambda t: torch.log1p(t * t),
        lambda t: 2 * t / (1 + t * t),
        lambda t: 2 * (1 - t * t) / (1 + t * t) ** 2,
    ),
    "clip": (
        lambda t: t.clamp(-0.4, 0.5),
        lambda t: ((t > -0.4) & (t < 0.5)).to(t),
        torch.zeros_like,
    ),
}


class Curve(Operator):
    """f(x) number by number: an operator as users write it."""

    def __init__(self, f, shape, complex):
        super().__init__(shape, complex_in=complex, complex_out=complex)
        self.f = f

    def forward(self, x):
        self.check_input(x)
        return torch.view_as_complex(self.f(torch.view_as_real(x))) if x.is_complex() else self.f(x)


def dense(A):
    """A as a real matrix; complex numbers are pairs."""
    n = math.prod(A.in_shape)
    if A.complex_in:
        basis = torch.view_as_complex(torch.eye(2 * n, dtype=F64).view(2 * n, n, 2)).view(
            2 * n, *A.in_shape
        )
    else:
        basis = torch.eye(n, dtype=F64).view(n, *A.in_shape)
    return real(A(basis)).flatten(1).T


LINEAR = [name for name, make in OPERATORS.items() if isinstance(make(F64), LinearOperator)]
CURVED = [name for name in OPERATORS if name not in LINEAR]


def by_every_mode(A, x, d, e, u):
    """A'(x)^T u in reverse, A'(x) d in forward mode, and the second derivative <u, A''(x)(d, e)> in
    e: each as real numbers."""
    y, pull = A.linearize(x)
    push = torch.func.jvp(A, (x,), (d,))[1]
    again, other_push, other_pull = A.differential(x)
    torch.testing.assert_close(real(other_push(d)), real(push), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(real(other_pull(u)), real(pull(u)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(again, y)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad((real(A(leaf)) * real(u)).sum(), leaf, create_graph=True)
    torch.testing.assert_close(real(slope), real(pull(u)), rtol=1e-9, atol=1e-9)
    bend = torch.zeros_like(x)
    if slope.requires_grad:
        (bend,) = torch.autograd.grad(
            (real(slope) * real(d)).sum(), leaf, allow_unused=True, materialize_grads=True
        )
    # Forward over reverse gives the same second derivative.
    _, twin = torch.func.jvp(torch.func.grad(lambda v: (real(A(v)) * real(u)).sum()), (x,), (e,))
    torch.testing.assert_close(
        (real(twin) * real(d)).sum(), (real(bend) * real(e)).sum(), rtol=1e-8, atol=1e-8
    )
    return real(pull(u)).flatten(1), real(push).flatten(1), real(bend).flatten(1)


@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_operator_in_a_curved_chain_has_all_derivatives(name, curve, after):
    """Of f(M x) and M f(x) with a dense M: M^T f'(Mx) u, f'(Mx) M d and M^T (u f''(Mx) M d); f' M^T
    u, M f' d and f'' d M^T u."""
    A = OPERATORS[name](F64)
    f, slope, bend = CURVES[curve]
    chain = (
        Curve(f, A.out_shape, A.complex_out) @ A
        if after
        else A @ Curve(f, A.in_shape, A.complex_in)
    )
    M, kind = dense(A), torch.complex128 if A.complex_out else F64
    x, d, e = (
        A.probe(lambda *size, dtype, device, k=k: 0.7 * draw(*size, dtype=dtype, seed=k), 2, F64)
        for k in (1, 2, 3)
    )
    u = draw(2, *A.out_shape, dtype=kind, seed=4)
    X, D, U = (real(t).flatten(1) for t in (x, d, u))
    if after:
        at = X @ M.T
        want = (U * slope(at)) @ M, slope(at) * (D @ M.T), (U * bend(at) * (D @ M.T)) @ M
    else:
        want = slope(X) * (U @ M), (slope(X) * D) @ M.T, bend(X) * D * (U @ M)
    for found, exact in zip(by_every_mode(chain, x, d, e, u), want, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)
    # Rows that vmap adds are rows.
    many = torch.stack([x, d, e], 1)
    torch.testing.assert_close(
        torch.func.vmap(chain, in_dims=1)(many), torch.stack([chain(v) for v in (x, d, e)])
    )


@pytest.mark.parametrize("name", CURVED)
def test_a_curved_operator_has_all_derivatives(name):
    """Central differences of A and of its pull, in a smooth region; of its surrogate for an
    operator that rounds."""
    A = OPERATORS[name](F64)
    smooth = A.surrogate() or A
    x, d, e = (
        A.probe(lambda *size, dtype, device, k=k: draw(*size, dtype=dtype, seed=k), 2, F64)
        for k in (1, 2, 3)
    )
    u, h = draw(2, *A.out_shape, dtype=torch.complex128 if A.complex_out else F64, seed=4), 1e-5
    pulled, pushed, bent = by_every_mode(A, x, d, e, u)
    slope = real(smooth(x + h * d) - smooth(x - h * d)).flatten(1) / (2 * h)
    torch.testing.assert_close(slope, pushed, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        (pulled * real(d).flatten(1)).sum(1),
        (pushed * real(u).flatten(1)).sum(1),
        rtol=1e-9,
        atol=1e-9,
    )
    ahead, behind = (smooth.linearize(x + step * d)[1](u) for step in (h, -h))
    torch.testing.assert_close(
        (real(ahead) - real(behind)).flatten(1) / (2 * h), bent, rtol=1e-4, atol=1e-4
    )


class Projector(LinearOperator):
    """A compiled instrument that knows nothing of torch: row and column sums, by NumPy."""

    def __init__(self, with_adjoint=True):
        super().__init__((1, 5, 4))

    def forward(self, x):
        self.check_input(x)
        array = x.numpy()
        return torch.from_numpy(np.concatenate([array.sum(-1), array.sum(-2)], -1)).flatten(1)

    def adjoint(self, y):
        self.check_measurement(y)
        rows, columns = np.split(y.numpy(), [5], 1)
        return torch.from_numpy(rows[:, None, :, None] + columns[:, None, None, :])


def test_a_projector_without_torch_is_an_operator_like_others():
    po.testing.check_operator(Projector())
    A = Curve(CURVES["exp"][0], (9,), False) @ Projector()
    M = dense(Projector())
    x, d, e = (0.3 * draw(2, 1, 5, 4, seed=k) for k in (1, 2, 3))
    u = draw(2, 9, seed=4)
    at = torch.exp(-x.flatten(1) @ M.T)
    want = (-u * at) @ M, -at * (d.flatten(1) @ M.T), (u * at * (d.flatten(1) @ M.T)) @ M
    for found, exact in zip(by_every_mode(A, x, d, e, u), want, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("of_x", [True, False])
def test_numbers_of_an_operator_can_be_learned(of_x):
    """A kernel that asks for a gradient gets it, beside the gradient of the image."""
    kernel = (
        torch.rand(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0)) / 5
    ).requires_grad_()
    A = ops.Blur(kernel, (1, 6, 7), boundary="zero")
    x = draw(2, 1, 6, 7, seed=1).requires_grad_(of_x)
    (slope,) = torch.autograd.grad(A(x).square().sum(), kernel)
    h = torch.zeros(3, 3, dtype=F64)
    h[0, 2] = 1e-6
    with torch.no_grad():
        ahead, behind = (
            ops.Blur(kernel + step * h, (1, 6, 7), boundary="zero")(x).square().sum()
            for step in (1, -1)
        )
    assert float(slope[0, 2]) == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-6)


def curved_chains():
    """Instruments of a linear and a curved part, with their noise."""
    rays = ops.Radon((6, 6), [0, 45, 90, 135], 0.5)
    smear = ops.Blur(ops.gaussian_kernel(0.8, 3), (1, 6, 6), boundary="reflect")
    kspace = ops.MaskedFourier(ops.random_mask((6, 6), 0.5, 0), (6, 6)) @ ops.ComplexChannels(
        (2, 6, 6)
    )

    def after(curve, A):
        return Curve(CURVES[curve][0], A.out_shape, A.complex_out) @ A

    return {
        "exp of rays": (after("exp", rays), po.noise.Poisson(1000.0)),
        "rays of exp": (rays @ Curve(CURVES["exp"][0], (6, 6), False), po.noise.Gaussian(0.05)),
        "log of a blur": (after("log", smear), po.noise.Gaussian(0.02)),
        "clipped Fourier": (after("clip", kspace), po.noise.ComplexGaussian(0.05)),
    }


@pytest.mark.parametrize("kind", curved_chains())
@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_on_a_curved_chain_or_refuses_it(name, kind):
    A, noise = curved_chains()[kind]
    prior = po.priors.Gaussian(torch.full(A.in_shape, 0.5), 0.01)
    y = noise.sample(A(prior.sample(1, seed=3)), po.rng.Streams(0, [0]))[0]
    post = po.Posterior(prior, po.Likelihood(y, A, noise))
    method = BRIEF[name]
    if method.refuses(post):
        with pytest.raises(ValueError, match=type(method).__name__):
            po.sample(post, method, steps=3)
        return
    run = po.sample(post, method, n=2, steps=3, grid="karras")
    assert bool(run.samples.isfinite().all())
    assert len(run.samples) == 2
