"""Conjugate gradients and GMRES row by row, at the easy and at the bad extremes."""

from __future__ import annotations

import pytest
import torch

from posteriori.linalg import cg, dot, gmres, largest_eigenvalue


def spd(rows, n, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    M = torch.randn(rows, n, n, generator=g, dtype=dtype)
    return M @ M.mH / n + 0.1 * torch.eye(n, dtype=dtype)


def product(M):
    return lambda v: torch.einsum("bij,bj->bi", M, v)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_solution_solves_every_row(dtype):
    M = spd(3, 12, dtype)
    b = torch.randn(3, 12, dtype=dtype, generator=torch.Generator().manual_seed(1))
    solved = cg(product(M), b, max_iter=100, rtol=1e-12)
    torch.testing.assert_close(solved.x, torch.linalg.solve(M, b))
    assert bool((solved.residual < 1e-12).all())
    assert not bool(solved.breakdown.any())


def test_as_many_iterations_as_distinct_eigenvalues_suffice():
    M = torch.diag(torch.tensor([1.0, 1.0, 2.0, 2.0, 5.0], dtype=torch.float64))[None]
    solved = cg(product(M), torch.ones(1, 5, dtype=torch.float64), max_iter=3, rtol=1e-10)
    assert float(solved.residual) < 1e-10


def test_a_preconditioner_changes_the_path_and_not_the_answer():
    M = spd(2, 30) + torch.diag(torch.logspace(0, 4, 30, dtype=torch.float64))
    b = torch.randn(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    inverse_diagonal = 1 / M.diagonal(dim1=1, dim2=2)
    plain = cg(product(M), b, max_iter=500, rtol=1e-10)
    helped = cg(
        product(M), b, max_iter=500, rtol=1e-10, precondition=lambda r: inverse_diagonal * r
    )
    torch.testing.assert_close(helped.x, torch.linalg.solve(M, b))
    assert bool((helped.iterations < plain.iterations / 2).all())


def test_easy_problems_return_at_once():
    eye = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    b = torch.arange(12.0, dtype=torch.float64).view(3, 4)
    b[1] = 0
    solved = cg(product(eye), b, max_iter=50, rtol=1e-10)
    assert torch.equal(solved.x, b)
    assert solved.iterations.tolist() == [1, 0, 1]
    M = spd(1, 4)
    exact = torch.linalg.solve(M, b[:1])
    assert float(cg(product(M), b[:1], max_iter=50, rtol=1e-8, start=exact).iterations) == 0


def test_rows_do_not_know_each_other():
    M = spd(3, 10)
    M[1] *= 1e6
    b = torch.randn(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    together = cg(product(M), b, max_iter=4, rtol=1e-12).x
    for k in range(3):
        torch.testing.assert_close(
            cg(product(M[k : k + 1]), b[k : k + 1], max_iter=4, rtol=1e-12).x[0],
            together[k],
            rtol=1e-9,
            atol=1e-12,
        )


def test_negative_curvature_stops_its_row_and_says_so():
    M = torch.stack(
        [torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, 1.0])), torch.eye(3)]
    ).double()
    b = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64).expand(3, 3)
    solved = cg(product(M), b, max_iter=10, rtol=1e-8)
    assert solved.breakdown.tolist() == [False, True, False]
    assert bool(solved.x.isfinite().all())
    torch.testing.assert_close(solved.x[0], b[0])
    # It keeps its last good iterate, here the start; the residual is that of what is returned.
    assert not bool(solved.x[1].any())
    assert solved.iterations.tolist()[1] == 0
    torch.testing.assert_close(solved.residual[1], torch.ones((), dtype=torch.float64))


def test_the_inner_product_conjugates():
    u, v = torch.tensor([[1j, 2.0]]), torch.tensor([[1j, 1.0]])
    assert float(dot(u, v)) == 3.0


def test_power_iteration_finds_the_largest_eigenvalue():
    M = spd(1, 20)
    top = float(torch.linalg.eigvalsh(M)[0, -1])
    assert largest_eigenvalue(
        product(M), torch.ones(1, 20, dtype=torch.float64), iterations=2000, rtol=1e-13
    ) == pytest.approx(top, rel=1e-6)
    assert largest_eigenvalue(lambda v: 0 * v, torch.ones(1, 3)) == 0.0


def crooked(rows, n, dtype=torch.float64, seed=0):
    """Neither symmetric nor positive definite."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, n, n, generator=g, dtype=dtype) + torch.diag(
        torch.tensor([-2.0, 3.0] * (n // 2), dtype=dtype)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gmres_solves_any_system_in_as_many_steps_as_it_has_real_unknowns(dtype):
    M = crooked(3, 8, dtype)
    b = torch.randn(3, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))
    solved = gmres(product(M), b, max_iter=8 if dtype == torch.float64 else 16, rtol=1e-12)
    torch.testing.assert_close(solved.x, torch.linalg.solve(M, b))
    assert bool((solved.residual < 1e-9).all())


def test_the_residual_of_gmres_never_grows_is_the_true_one_and_the_smallest_of_its_space():
    M = crooked(2, 12)
    b = torch.randn(2, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    last = torch.ones(2, dtype=torch.float64)
    for k in range(1, 8):
        solved = gmres(product(M), b, max_iter=k, rtol=0.0)
        true = (b - product(M)(solved.x)).norm(dim=1) / b.norm(dim=1)
        torch.testing.assert_close(solved.residual, true)
        assert bool((solved.residual <= last + 1e-12).all())
        krylov = [b]
        for _ in range(k - 1):
            krylov.append(product(M)(krylov[-1]))
        span = torch.linalg.qr(torch.stack(krylov, -1))[0]
        image = M @ span
        smallest = (b[..., None] - image @ torch.linalg.lstsq(image, b[..., None]).solution).norm(
            dim=1
        )[:, 0] / b.norm(dim=1)
        torch.testing.assert_close(true, smallest, rtol=1e-5, atol=1e-9)
        last = solved.residual


def test_gmres_with_a_preconditioner_has_the_same_answer_sooner():
    M = spd(2, 30) + torch.diag(torch.logspace(0, 4, 30, dtype=torch.float64))
    b = torch.randn(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    inverse_diagonal = 1 / M.diagonal(dim1=1, dim2=2)
    plain = gmres(product(M), b, max_iter=30, rtol=1e-8)
    helped = gmres(
        product(M), b, max_iter=30, rtol=1e-8, precondition=lambda r: inverse_diagonal * r
    )
    torch.testing.assert_close(helped.x, torch.linalg.solve(M, b), rtol=1e-5, atol=1e-7)
    assert bool((helped.iterations < plain.iterations).all())


def test_gmres_rows_stop_alone_and_do_not_know_each_other():
    M = crooked(4, 6)
    b = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    M[1], b[2], b[3] = torch.eye(6, dtype=torch.float64), 0.0, torch.linalg.eig(M[3])[1].real[:, 0]
    together = gmres(product(M), b, max_iter=5, rtol=1e-10)
    assert together.iterations[1:3].tolist() == [1, 0]
    assert bool(together.x.isfinite().all())
    for k in range(4):
        alone = gmres(product(M[k : k + 1]), b[k : k + 1], max_iter=5, rtol=1e-10)
        torch.testing.assert_close(alone.x[0], together.x[k], rtol=1e-12, atol=1e-12)
        assert int(alone.iterations) == int(together.iterations[k])


def test_a_gmres_row_that_reached_its_tolerance_is_left_alone_by_the_others():
    """One row is done to 0.1 after a step or two; what slower rows go on doing must not refine
    it."""
    M = torch.stack(
        [
            torch.diag(torch.linspace(1, 1.5, 8, dtype=torch.float64)),
            torch.diag(torch.logspace(0, 4, 8, dtype=torch.float64)),
        ]
    )
    b = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    together = gmres(product(M), b, max_iter=6, rtol=0.1)
    alone = gmres(product(M[:1]), b[:1], max_iter=6, rtol=0.1)
    assert int(together.iterations[0]) < int(together.iterations[1])
    assert float(alone.residual) > 1e-4
    torch.testing.assert_close(together.x[0], alone.x[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("unit", [2.0**-27, 2.0**27])
def test_gmres_takes_the_same_steps_whatever_the_unit_of_b(unit):
    """Also in single precision: what M v adds to the space is compared with M v, not with b."""
    M = crooked(3, 6).float()
    b = torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    plain = gmres(product(M), b, max_iter=6, rtol=1e-5)
    scaled = gmres(product(M), unit * b, max_iter=6, rtol=1e-5)
    assert torch.equal(scaled.iterations, plain.iterations)
    assert torch.equal(scaled.x / unit, plain.x)


@pytest.mark.parametrize("solver", [cg, gmres])
def test_a_row_that_has_ended_takes_nothing_of_later_products(solver):
    """The first row is done after a step; what the map makes of it later is not finite."""
    M = torch.stack([torch.eye(4), torch.diag(torch.linspace(1, 3, 4))]).double()
    b = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    calls = []

    def matvec(v):
        calls.append(v)
        out = product(M)(v)
        if len(calls) > 1:
            out[0] = torch.nan
        return out

    found = solver(matvec, b, max_iter=6, rtol=1e-9)
    assert len(calls) > 3
    torch.testing.assert_close(found.x, torch.linalg.solve(M, b), rtol=1e-6, atol=1e-9)
    images = [v.clone() for v in calls]
    torch.testing.assert_close(found.mapped(images, torch.zeros_like(b)), found.x)


@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("beside", [True, False])
def test_a_row_whose_products_are_not_finite_is_none_of_gmres_and_kept_by_cg(first, beside):
    """From its product number ``first`` on. GMRES has no answer for it, CG its last good one, and
    neither depends on the row beside it."""
    M = torch.stack([torch.diag(torch.linspace(1, 3, 4)), torch.diag(torch.linspace(1, 2, 4))])
    b = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rows = [0, 1] if beside else [1]

    def spoilt(solver):
        calls = []

        def matvec(v):
            calls.append(1)
            out = product(M.double()[rows])(v)
            if len(calls) >= first:
                out[-1] = torch.nan
            return out

        return solver(matvec, b[rows], max_iter=6, rtol=1e-9)

    found = spoilt(gmres)
    assert bool(found.x[-1].isnan().all())
    kept = spoilt(cg)
    steps = cg(product(M.double()), b, max_iter=first - 1, rtol=1e-9)
    torch.testing.assert_close(kept.x[-1], steps.x[1])
    assert bool(kept.breakdown[-1])
    if beside:
        for solved in (found, kept):
            torch.testing.assert_close(solved.x[0], b[0] / M[0].diagonal().double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gmres_ends_where_its_space_is_exhausted_up_to_rounding(dtype):
    """The space of a projection has two dimensions; more would be rounding, whose answer can be
    worse than none."""
    g = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(60, 20, dtype=torch.float64, generator=g))[0]
    M, b = (Q @ Q.T).to(dtype)[None], 1e6 * torch.randn(3, 60, generator=g).to(dtype)
    found = gmres(product(M.expand(3, 60, 60)), b, max_iter=15, rtol=1e-4)
    assert bool((found.iterations <= 2).all())


@pytest.mark.parametrize("solver", [cg, gmres])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_a_linear_map_of_the_solution_needs_no_product_more(solver, dtype):
    """L x = sum_k weights_k L v_k, for rows that end at once, early and late."""
    M = spd(3, 12, dtype)
    M[1] = torch.eye(12)
    b = torch.randn(3, 12, dtype=dtype, generator=torch.Generator().manual_seed(4))
    b[2] = 0
    L = torch.randn(5, 12, dtype=dtype, generator=torch.Generator().manual_seed(5))
    scale = torch.linspace(0.5, 2.0, 12, dtype=torch.float64)
    images = []

    def matvec(v):
        images.append(v @ L.T)
        return product(M)(v)

    for count in (0, 3, 40):
        images.clear()
        solved = solver(matvec, b, max_iter=count, rtol=1e-9, precondition=lambda r: scale * r)
        torch.testing.assert_close(
            solved.mapped(images, torch.zeros(3, 5, dtype=dtype)), solved.x @ L.T
        )


@pytest.mark.parametrize("solver", [cg, gmres])
def test_the_map_of_a_solution_that_is_not_finite_is_not_finite(solver):
    b = torch.ones(2, 4, dtype=torch.float64)
    b[1, 0] = torch.inf
    images = []

    def matvec(v):
        images.append(v)
        return v

    solved = solver(matvec, b, max_iter=3, rtol=1e-9)
    mapped = solved.mapped(images, torch.zeros_like(b))
    torch.testing.assert_close(mapped[0], b[0])
    assert bool(mapped[1].isnan().all())
