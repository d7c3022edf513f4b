"""k-space off the grid: the sum on paper, on the grid the fast transform, and finufft within its
tolerance."""

from __future__ import annotations

import math

import pytest
import torch
from reference import F64, draw

from posteriori import operators as ops
from posteriori.testing import check_operator

C128 = torch.complex128
SIDES = [(6, 6), (5, 8), (7, 5)]


def coils(H, W):
    return draw(2, H, W, dtype=C128, seed=1)


def grid(H, W):
    """The points of centred k-space row by row, in cycles per pixel."""
    rows, columns = ((torch.arange(n, dtype=F64) - n // 2) / n for n in (H, W))
    return torch.cartesian_prod(rows, columns)


def off_grid(n=11):
    return torch.rand(n, 2, dtype=F64, generator=torch.Generator().manual_seed(4)) - 0.5


def gap(found, exact):
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_a_sample_is_the_fourier_sum_around_the_middle_pixel(sides):
    H, W = sides
    k, S, x = off_grid(), coils(H, W), draw(1, H, W, dtype=C128)
    y = ops.NonCartesianFourier(S, k, engine="sum")(x)[0]
    rows, columns = (torch.arange(n, dtype=F64) - n // 2 for n in (H, W))
    for i, (u, v) in enumerate(k.tolist()):
        wave = torch.exp(-2j * math.pi * (u * rows[:, None] + v * columns[None, :]).to(C128))
        exact = (S * x * wave).sum((1, 2)) / math.sqrt(H * W)
        torch.testing.assert_close(y[:, i], exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_on_the_cartesian_grid_it_is_the_unitary_centred_transform(sides):
    x = draw(2, *sides, dtype=C128)
    exact = ops.MultiCoilFourier(coils(*sides), torch.ones(sides, dtype=torch.bool))
    A = ops.NonCartesianFourier(coils(*sides), grid(*sides), engine="sum")
    torch.testing.assert_close(A(x), exact(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(A.adjoint(exact(x)), exact.adjoint(exact(x)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("places", [(0.0, 0.5000001), (4.0, 0.0), (math.nan, 0.0)])
def test_places_of_another_unit_are_refused_with_the_unit(places):
    with pytest.raises(ValueError, match="cycles per pixel, within .*radians per pixel by 2 pi"):
        ops.NonCartesianFourier(coils(4, 4), torch.tensor([places], dtype=F64), engine="sum")
    edge = torch.tensor([[-0.5, 0.5]])
    assert ops.NonCartesianFourier(coils(4, 4), edge, engine="sum").out_shape == (2, 1)


@pytest.mark.parametrize(
    ("maps", "k", "words"),
    [
        (coils(4, 4).real, off_grid(), "complex sensitivities"),
        (coils(4, 4) * math.inf, off_grid(), "not finite"),
        (coils(4, 4), off_grid().T, r"trajectory \(n, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(maps, k, words):
    with pytest.raises(ValueError, match=words):
        ops.NonCartesianFourier(maps, k, engine="sum")


def test_without_finufft_its_extra_is_named(monkeypatch):
    monkeypatch.setattr("posteriori.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"finufft: pip install 'posteriori\[mri\]'"):
        ops.NonCartesianFourier(coils(4, 4), off_grid())


# With finufft, where it is installed.


@pytest.mark.parametrize("sides", [(16, 16), (17, 20), (15, 21)], ids=str)
def test_finufft_at_1e_7_is_the_sum_and_on_the_grid_the_transform_to_1e_6(sides):
    pytest.importorskip("finufft")
    x, S, k = draw(2, *sides, dtype=C128), coils(*sides), off_grid(40)
    fast, exact = (ops.NonCartesianFourier(S, k, 1e-7, engine) for engine in ("finufft", "sum"))
    assert gap(fast(x), exact(x)) < 1e-6
    assert gap(fast.adjoint(exact(x)), exact.adjoint(exact(x))) < 1e-6
    on_grid = ops.NonCartesianFourier(S, grid(*sides), 1e-7)
    cartesian = ops.MultiCoilFourier(S, torch.ones(sides, dtype=torch.bool))
    assert gap(on_grid(x), cartesian(x)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_finufft_obeys_the_contract_at_any_tolerance(dtype):
    """Its two types are transposes to rounding however rough both are; rows do not depend on their
    batch."""
    pytest.importorskip("finufft")
    A = ops.NonCartesianFourier(coils(6, 5), off_grid(), eps=1e-3)
    check_operator(A, dtype=dtype)
    x = draw(3, 6, 5, dtype=C128 if dtype == F64 else torch.complex64)
    assert torch.equal(A(x)[1:2], A(x[1:2]))
    assert torch.equal(A.adjoint(A(x))[1:2], A.adjoint(A(x)[1:2]))
