"""Total variation through the plane against an independent solver, and at its two ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import F64, draw
from scipy.optimize import lsq_linear

import posteriori as po
from posteriori.methods import DDS3D, DiffusionMBIR
from posteriori.methods.data_steps.total_variation import (
    Coupling,
    jumps,
    jumps_adjoint,
    no_split,
    shrink,
)
from posteriori.noise import Gaussian
from posteriori.operators import Dense, Slicewise

SHAPE = (4, 3)


def problem(rows=1):
    """Ten numbers measured of a volume of four slices of three."""
    A = Dense(draw(10, 12, seed=1), SHAPE)
    return A, draw(10, seed=2), draw(rows, *SHAPE, seed=3)


def differences():
    return jumps(torch.eye(12, dtype=F64).view(12, *SHAPE)).flatten(1).T


def objective(A, y, x, m, w, lam):
    return float(
        0.5 * (y - A(x)).square().sum()
        + 0.5 * w * (x - m).square().sum()
        + lam * jumps(x).abs().sum()
    )


def dual_solution(A, y, m, w, lam):
    """The minimum by its dual, a least-squares problem within bounds, which is solved by active
    sets: x = H^-1 (b - D^T p), |p| <= lam."""
    H = (A.matrix.T @ A.matrix + w * torch.eye(12, dtype=F64)).numpy()
    b = (A.matrix.T @ y + w * m.flatten()).numpy()
    L = np.linalg.cholesky(H)
    D = differences().numpy()
    p = lsq_linear(np.linalg.solve(L, D.T), np.linalg.solve(L, b), (-lam, lam), "bvls", tol=1e-14).x
    return torch.from_numpy(np.linalg.solve(H, b - D.T @ p)).view(1, *SHAPE)


def admm(A, y, x, split, outer, *, lam, rho=2.0, w=0.0, toward=None):
    return Coupling(lam, rho, outer, 13, 1e-9).solve(A, y, x, split, w=w, toward=toward)


def test_jumps_have_their_transpose_and_do_not_wrap():
    for dtype in (F64, torch.complex128):
        x, v = draw(2, 5, 3, dtype=dtype), draw(2, 4, 3, dtype=dtype, seed=1)
        torch.testing.assert_close((jumps(x).conj() * v).sum(), (x.conj() * jumps_adjoint(v)).sum())
    assert torch.equal(jumps(torch.arange(5.0)[None]), torch.ones(1, 4))


def test_shrinking_is_by_the_modulus():
    v = torch.tensor([3.0, -0.5, 0.0, -4.0], dtype=F64)
    torch.testing.assert_close(shrink(v, 1.0), torch.tensor([2.0, 0.0, 0.0, -3.0], dtype=F64))
    torch.testing.assert_close(
        shrink(torch.tensor([3 + 4j], dtype=torch.complex128), 1.0),
        torch.tensor([2.4 + 3.2j], dtype=torch.complex128),
    )


@pytest.mark.parametrize("lam", [0.05, 0.5, 3.0])
def test_the_limit_is_the_minimum_of_a_reference_solver(lam):
    A, y, x = problem()
    m, w = draw(1, *SHAPE, seed=4), 0.1
    exact = dual_solution(A, y, m, w, lam)
    ours, split = admm(A, y, x, no_split(x), 250, lam=lam, w=w, toward=m)
    best = objective(A, y, exact, m, w, lam)
    assert objective(A, y, ours, m, w, lam) == pytest.approx(best, rel=1e-6)
    # What it is the minimum of: the scaled dual is a subgradient of lam ||.||_1 at the jumps.
    p = 2.0 * split.u
    assert float(p.abs().max()) <= lam * (1 + 1e-6)
    open_ = jumps(ours).abs() > 1e-4
    torch.testing.assert_close(p[open_], lam * jumps(ours)[open_].sign(), rtol=1e-4, atol=1e-4)


def test_a_warm_start_and_a_new_one_meet():
    A, y, x = problem()
    m, w, lam = draw(1, *SHAPE, seed=4), 0.1, 0.5
    once, _ = admm(A, y, x, no_split(x), 250, lam=lam, w=w, toward=m)
    u, split = 5 * x, no_split(x)
    for _ in range(5):
        u, split = admm(A, y, u, split, 50, lam=lam, w=w, toward=m)
    torch.testing.assert_close(u, once, rtol=1e-6, atol=1e-6)


def test_no_weight_is_the_slice_by_itself_and_a_huge_one_a_constant():
    one = Dense(draw(5, 3, seed=6))
    A, y, x = Slicewise(one, 4), draw(4, 5, seed=7), draw(1, *SHAPE, seed=3)
    free, split = admm(A, y, x, no_split(x), 1, lam=0.0)
    by_slices = torch.linalg.lstsq(one.matrix, y.T).solution.T
    torch.testing.assert_close(free[0], by_slices, rtol=1e-9, atol=1e-9)
    assert torch.equal(split.u, no_split(x).u)
    tied, _ = admm(A, y, x, no_split(x), 250, lam=1e6, rho=10.0)
    constant = torch.linalg.lstsq(one.matrix.repeat(4, 1), y.flatten()[:, None]).solution.T
    torch.testing.assert_close(tied[0], constant.expand(4, 3), rtol=1e-6, atol=1e-6)


def test_one_iteration_without_weight_is_one_step_of_steepest_descent():
    A, y, x = problem()
    out, _ = Coupling(0.0, 1.0, 1, 1, 0.0).solve(A, y, x, no_split(x))
    g = A.adjoint(y - A(x))
    length = g.square().sum() / A(g).square().sum()
    torch.testing.assert_close(out, x + length * g)


def test_rows_are_on_their_own():
    A, y, x = problem(3)
    many, _ = admm(A, y, x, no_split(x), 7, lam=0.3)
    for k in range(3):
        alone, _ = admm(A, y, x[k : k + 1], no_split(x[k : k + 1]), 7, lam=0.3)
        torch.testing.assert_close(many[k : k + 1], alone, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", [DDS3D(), DiffusionMBIR()], ids=["DDS3D", "DiffusionMBIR"])
def test_a_weight_means_the_same_in_every_unit(method):
    """Images in [0, 1] or [-1, 1], and an operator in other units."""
    found = []
    for low, unit in ((0.0, 1.0), (-1.0, 1.0), (0.0, 10.0)):
        size = 1 - low
        mean = torch.full(SHAPE, low + 0.5 * size, dtype=F64)
        prior = po.priors.Gaussian(mean, (0.2 * size) ** 2, range=(low, 1.0))
        A = Dense(unit * draw(10, 12, seed=1), SHAPE)
        like = po.Likelihood(unit * draw(10, seed=2), A, Gaussian(0.1 * unit), range=(0, 1))
        found.append(po.sample(po.Posterior(prior, like), method, n=2, steps=4, seed=1).samples)
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[2], found[0], rtol=1e-6, atol=1e-6)
