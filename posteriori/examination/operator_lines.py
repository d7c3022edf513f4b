"""The lines on an operator by itself: no denoiser is called."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.examination.finding import Finding
from posteriori.linalg import dot, largest_eigenvalue
from posteriori.operators.base import AdjointError, LinearOperator, Operator, dot_test

# Relative gaps that rounding leaves, in single and in double precision; of slopes as in
# ``posteriori.testing.check_operator``, in double precision.
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-6}
SLOPE, STEP = 1e-3, 1e-5
# Gradients of a norm outside of these need step sizes that no default has.
NORMS = (1e-4, 1e4)
# The largest claimed singular value against that of Lanczos's method.
_LARGEST = 0.02


def adjoint_line(A: Operator, dtype: torch.dtype) -> Finding:
    """Re<A x, u> = Re<x, A^H u> on random and on constant x, u; of an A that is not linear, its
    derivative against difference quotients."""
    if not isinstance(A, LinearOperator):
        return _slope(A)
    rtol = ROUNDING[dtype]
    expected = f"the same but for {rtol:g} of their size"
    try:
        gap = max(_gap(A, draw, dtype) for draw in (_normal(0), torch.ones))
        dot_test(A, rtol, dtype)
    except AdjointError as error:
        return wrong_adjoint(error)
    return Finding("adjoint", "pass", f"<A x, u> and <x, A^H u> differ by {gap:.1g}", expected)


def wrong_adjoint(error: AdjointError) -> Finding:
    """The line of an operator that has failed its dot test."""
    return Finding(
        "adjoint",
        "fail",
        "<A x, u> and <x, A^H u> differ",
        "the same but for rounding",
        f"{error}. Of complex numbers: is a conjugate missing?",
    )


def _gap(A: LinearOperator, draw: object, dtype: torch.dtype) -> float:
    with torch.no_grad():
        x = A.probe(draw, dtype=dtype)  # type: ignore[arg-type]
        Ax = A(x)
        u = draw(*Ax.shape, dtype=Ax.dtype, device=Ax.device)  # type: ignore[operator]
        left, right = float(dot(Ax, u)), float(dot(x, A.adjoint(u)))
        size = float(dot(Ax, Ax).sqrt() * dot(u, u).sqrt())
    return abs(left - right) / max(size, 1e-30)


def _slope(A: Operator) -> Finding:
    """<pull(u), d> against the central difference of <u, A(x + h d)>, of the surrogate of an A that
    has one."""
    smooth = A.surrogate() or A
    draw = _normal(1)
    with torch.no_grad():
        x = A.probe(lambda *size, **kind: 0.5 + 0.1 * draw(*size, **kind), dtype=torch.float64)
        d = A.probe(draw, dtype=torch.float64)
        value, pull = smooth.linearize(x)
        u = draw(*value.shape, dtype=value.dtype, device=value.device)
        found = float(dot(u, smooth(x + STEP * d) - smooth(x - STEP * d))) / (2 * STEP)
        exact = float(dot(pull(u), d))
    size = float(value.norm() * u.norm())
    gap = abs(found - exact) / max(abs(exact), 1e-3 * size, 1e-30)
    return Finding(
        "adjoint",
        "pass" if gap <= SLOPE else "fail",
        f"derivative and difference quotient differ by {gap:.1g}",
        f"the same but for {SLOPE:g}",
        f"linearize of {A.label} gives the slope {exact:.5g}, finite differences {found:.5g}",
    )


def norm_line(A: Operator, dtype: torch.dtype) -> Finding:
    """||A|| by Lanczos's method, and the claimed one."""
    if not isinstance(A, LinearOperator):
        return Finding("norm", "skip", "not linear", remedy="the norm of its derivative varies")
    norm, claimed = _measured(A, dtype), _claimed(A)
    value = f"||A|| = {norm:.4g}" + ("" if claimed is None else f", claimed {claimed:.4g}")
    expected = f"{NORMS[0]:g} to {NORMS[1]:g}" + (
        "" if claimed is None else f", claimed within {100 * _LARGEST:g} %"
    )
    if claimed is not None and not abs(norm - claimed) <= _LARGEST * max(norm, claimed):
        return Finding(
            "norm", "fail", value, expected, "spectrum() is of another operator than forward"
        )
    inside = NORMS[0] <= norm <= NORMS[1]
    return Finding(
        "norm",
        "pass" if inside else "warn",
        value,
        expected,
        "step sizes of gradient methods are meant for a norm near 1: measure in another unit",
    )


def _measured(A: LinearOperator, dtype: torch.dtype) -> float:
    start = A.probe(_normal(2), dtype=dtype)
    with torch.no_grad():
        square = largest_eigenvalue(lambda v: A.adjoint(A(v)), start, iterations=30, rtol=1e-2)
    return math.sqrt(max(square, 0.0)) if math.isfinite(square) else math.nan


def _claimed(A: LinearOperator) -> float | None:
    spectrum = A.spectrum()
    return None if spectrum is None else float(spectrum.s.max())


def spectrum_line(A: Operator, dtype: torch.dtype) -> Finding:
    """U s V^H x = A x, and V V^H x = x, on one random image."""
    spectrum = A.spectrum() if isinstance(A, LinearOperator) else None
    if spectrum is None or not isinstance(A, LinearOperator):
        return Finding("spectrum", "skip", "none is claimed", remedy="nothing to compare")
    with torch.no_grad():
        x = A.probe(_normal(3), dtype=dtype)
        y = A(x)
        c = spectrum.Vh(x)
        k = spectrum.s.numel()
        there = c[:, :k] * spectrum.s.to(c.real.dtype)
        there = torch.nn.functional.pad(there, (0, math.prod(A.out_shape) - k))
        size = max(float(spectrum.s.max()) * float(x.norm()), 1e-30)
        action = float((spectrum.U(there) - y).norm()) / size
        basis = float((spectrum.V(c) - x).norm() / x.norm())
    rtol = ROUNDING[dtype]
    return Finding(
        "spectrum",
        "pass" if max(action, basis) <= rtol else "fail",
        f"U s V^H x misses A x by {action:.1g}, V V^H x misses x by {basis:.1g}",
        f"below {rtol:g}",
        f"the claimed spectrum of {A.label} is not that of its action; methods that need one are "
        "wrong with it",
    )


def _normal(seed: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int, dtype: torch.dtype, device: torch.device | None) -> Tensor:
        return torch.randn(*size, dtype=dtype, generator=generator).to(device)

    return draw
