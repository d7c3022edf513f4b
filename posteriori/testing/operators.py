"""The contract of an operator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.linalg import dot, real_view
from posteriori.operators.base import (
    AdjointError,
    LinearOperator,
    Operator,
    Spectrum,
    dot_test,
    norm2,
    pinv,
    repeat_test,
    solve,
)
from posteriori.operators.dense_matrix import matrix


def check_operator(A: Operator, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
    """Check an operator on random images of the given precision. Raises ``AssertionError``
    (``AdjointError``) with the numbers.

    Every operator: the same A(x) at each call; shapes and kinds of number; each row of a batch is
    its own problem; the input is not changed; wrong shapes and kinds are refused by name;
    ``linearize`` gives A(x) and its derivative (that of ``surrogate()``, where there is one).
    A linear one: linearity; <A x, u> = <x, A^H u> on random and constant probes; A and ``adjoint``
    as each other's derivatives; the singular value decomposition and the posterior covariance,
    where they are offered; ``solve``, ``pinv`` and ``norm2`` against their definitions.
    """
    probes = _Probes(A, dtype, seed)
    try:
        repeat_test(A, probes.rtol, dtype)
    except ValueError as error:
        raise AssertionError(str(error)) from None
    _check_shapes(A, probes)
    _check_refusals(A, probes)
    if not isinstance(A, LinearOperator):
        _check_derivative(A, probes)
        return
    _check_linear(A, probes)
    _check_adjoint(A, probes, seed)
    _check_transposes(A, probes)
    spectrum = A.spectrum()
    if spectrum is not None:
        _check_spectrum(A, spectrum, probes)
    _check_answers(A, spectrum, probes)
    _check_posterior_covariance(A, probes)


class _Probes:
    """Random images and measurements, and the tolerance of a precision."""

    def __init__(self, A: Operator, dtype: torch.dtype, seed: int) -> None:
        self.A, self.dtype, self.name = A, dtype, type(A).__name__
        self.generator = torch.Generator().manual_seed(seed)
        self.rtol = 1e-9 if dtype == torch.float64 else 1e-3

    def draw(self, *size: int, dtype: torch.dtype, device: torch.device | None) -> Tensor:
        return torch.randn(*size, dtype=dtype, generator=self.generator).to(device)

    def images(self, rows: int = 3) -> Tensor:
        return self.A.probe(self.draw, rows, self.dtype)

    def measurements(self, rows: int = 3) -> Tensor:
        kind = self.dtype.to_complex() if self.A.complex_out else self.dtype
        return self.draw(
            rows, *self.A.out_shape, dtype=kind, device=self.A.probe(torch.zeros).device
        )

    def equal(self, left: Tensor, right: Tensor, what: str, size: float | None = None) -> None:
        """Assert ||left - right|| <= rtol * size, by default the larger norm."""
        assert left.shape == right.shape, (
            f"{self.name}: {what}: shapes {tuple(left.shape)} and {tuple(right.shape)}"
        )
        size = max(float(left.norm()), float(right.norm())) if size is None else size
        gap = float((left - right).norm())
        assert gap <= self.rtol * size, (
            f"{self.name}: {what}: they differ by {gap:.3g}, their size is {size:.3g}"
        )


def _check_shapes(A: Operator, probes: _Probes) -> None:
    x = probes.images()
    kept = x.clone()
    y = A(x)
    assert torch.equal(x, kept), f"{probes.name}: the image was changed in place"
    assert tuple(y.shape) == (3, *A.out_shape), (
        f"{probes.name}: 3 images give {tuple(y.shape)}, expected (3, *{A.out_shape})"
    )
    assert y.is_complex() == A.complex_out, (
        f"{probes.name}: complex_out is {A.complex_out}, measurements are {y.dtype}"
    )
    assert y.real.dtype == probes.dtype, (
        f"{probes.name}: images of {x.dtype} give measurements of {y.dtype}"
    )
    probes.equal(torch.cat([A(row[None]) for row in x]), y, "rows alone and in a batch of 3")
    value, pull = A.linearize(x)
    probes.equal(value, y, "the value of linearize and A(x)")
    back = pull(probes.measurements())
    assert back.shape == x.shape, (
        f"{probes.name}: pull gives {tuple(back.shape)}, images are {tuple(x.shape)}"
    )
    assert back.dtype == x.dtype, f"{probes.name}: pull gives {back.dtype}, images are {x.dtype}"


def _check_refusals(A: Operator, probes: _Probes) -> None:
    x = probes.images(1)
    wider = torch.cat([x, x[..., :1]], -1)
    _refused(
        A,
        wider,
        [str(A.in_shape), str(tuple(wider.shape))],
        f"images of shape {tuple(wider.shape)}",
    )
    other = x.real.contiguous() if A.complex_in else torch.complex(x, x)
    _refused(A, other, ["real", "complex"], f"{other.dtype} images")


def _refused(A: Operator, x: Tensor, words: list[str], what: str) -> None:
    name = type(A).__name__
    message = None
    try:
        A(x)
    except (ValueError, TypeError) as error:
        message = str(error)
    assert message is not None, f"{name}: {what} were not refused; call self.check_input(x) first"
    missing = [word for word in words if word not in message]
    assert not missing, f"{name}: the error for {what} does not name {missing}: {message}"


def _check_derivative(A: Operator, probes: _Probes) -> None:
    """<pull(u), d> against the central difference of <u, A(x + h d)>; of its surrogate for an A
    that says it has one."""
    x, d = probes.images(), probes.images()
    u = probes.measurements()
    smooth = A.surrogate()
    if smooth is not None:
        assert smooth.surrogate() is None, (
            f"{probes.name}: its surrogate has a surrogate again, not its own derivative"
        )
        probes.equal(
            A.linearize(x)[1](u), smooth.linearize(x)[1](u), "pull and the pull of its surrogate"
        )
        _check_derivative(smooth, probes)
        return
    h = 1e-5 if probes.dtype == torch.float64 else 1e-2
    slope = dot(u, A(x + h * d) - A(x - h * d)) / (2 * h)
    exact = dot(A.linearize(x)[1](u), d)
    gap, size = float((slope - exact).norm()), float(exact.norm())
    limit = 1e-5 if probes.dtype == torch.float64 else 2e-2
    assert gap <= limit * size, (
        f"{probes.name}: pull gives the slope {exact.tolist()}, finite differences {slope.tolist()}"
    )
    leaf = torch.zeros_like(x).requires_grad_()
    gradient = torch.autograd.grad(A(leaf), leaf, u)[0]
    assert bool(real_view(gradient).isfinite().all()), (
        f"{probes.name}: the gradient at x = 0 is not finite"
    )


def _check_linear(A: LinearOperator, probes: _Probes) -> None:
    x, v = probes.images(), probes.images()
    probes.equal(
        A(2 * x - 3 * v),
        2 * A(x) - 3 * A(v),
        "A(2 x - 3 v) and 2 A x - 3 A v",
        float(A(x).norm() + A(v).norm()),
    )


def _check_transposes(A: LinearOperator, probes: _Probes) -> None:
    x, u = probes.images(), probes.measurements()
    leaf = x.clone().requires_grad_()
    (pulled,) = torch.autograd.grad(A(leaf), leaf, u)
    pull = A.linearize(x)[1]
    probes.equal(pull(u), pulled, "the pull of linearize and automatic differentiation")
    leaf = u.clone().requires_grad_()
    (pushed,) = torch.autograd.grad(pull(leaf), leaf, x)
    probes.equal(pushed, A(x), "the derivative of the pull and A")


def _check_adjoint(A: LinearOperator, probes: _Probes, seed: int) -> None:
    rtol = 1e-10 if probes.dtype == torch.float64 else 1e-5
    dot_test(A, rtol=rtol, dtype=probes.dtype, seed=seed)
    u = probes.measurements()
    probes.equal(
        torch.cat([A.adjoint(row[None]) for row in u]),
        A.adjoint(u),
        "adjoint: rows alone and in a batch of 3",
    )
    if not (A.complex_in and A.complex_out):
        return
    x = probes.images()
    Ax, Au = A(x), A.adjoint(u)
    probes.equal(
        A(1j * x),
        1j * Ax,
        "A(i x) and i A x (use ComplexChannels for what is linear over the reals only)",
    )
    left = torch.linalg.vecdot(Ax.flatten(1), u.flatten(1))
    right = torch.linalg.vecdot(x.flatten(1), Au.flatten(1))
    if float((left - right).norm()) > 10 * rtol * float(Ax.norm() * u.norm()):
        raise AdjointError(
            f"{probes.name}: <A x, u> = {left[0]:.6g} but <x, A^H u> = {right[0]:.6g}: "
            "is a conjugate missing in the adjoint?"
        )


def _check_spectrum(A: LinearOperator, spectrum: Spectrum, probes: _Probes) -> None:
    x, y, s = probes.images(), probes.measurements(), spectrum.s
    n, m = A.coordinates, math.prod(A.out_shape)
    k = min(n, m)
    assert tuple(s.shape) == (k,), (
        f"{probes.name}: {tuple(s.shape)} singular values, expected ({k},)"
    )
    assert bool((s >= 0).all()), f"{probes.name}: a singular value is {float(s.min()):.3g}"
    for value, count, there, back, what in (
        (x, n, spectrum.Vh, spectrum.V, "V"),
        (y, m, spectrum.Uh, spectrum.U, "U"),
    ):
        c = there(value)
        assert tuple(c.shape) == (3, count), (
            f"{probes.name}: {what}^H gives {tuple(c.shape)}, expected (3, {count})"
        )
        assert c.is_complex() == A.complex_out, (
            f"{probes.name}: {what}^H gives {c.dtype}, measurements are {y.dtype}"
        )
        again = back(c)
        assert again.dtype == value.dtype, (
            f"{probes.name}: {what} gives {again.dtype} from {c.dtype}, expected {value.dtype}"
        )
        probes.equal(again, value, f"{what} {what}^H and 1")
        d = probes.draw(3, count, dtype=c.dtype, device=c.device)
        probes.equal(there(back(d)), d, f"{what}^H {what} and 1")
        probes.equal(c.norm(), value.norm(), f"the norms before and after {what}^H")
    c = spectrum.Vh(x)[:, :k] * s.to(x.real.dtype)
    probes.equal(
        spectrum.U(torch.nn.functional.pad(c, (0, m - k))),
        A(x),
        "U s V^H x and A x",
        float(s.max()) * float(x.norm()),
    )


def _check_posterior_covariance(A: LinearOperator, probes: _Probes) -> None:
    r2, s2 = 0.7, 0.3
    found = A.posterior_covariance(r2, s2)
    if found is None:
        return
    x = probes.images()
    covered = found.power(x, 1.0)
    probes.equal(covered / r2 + A.adjoint(A(covered)) / s2, x, "(I / r2 + A^H A / s2) Sigma x = x")
    probes.equal(found.power(found.power(x, 0.5), 0.5), covered, "Sigma^(1/2) twice is Sigma")
    probes.equal(found.power(covered, -1.0), x, "Sigma^-1 Sigma x = x")


def _check_answers(A: LinearOperator, spectrum: Spectrum | None, probes: _Probes) -> None:
    b, top = probes.measurements(), norm2(A)
    for r2, ratio in ((1.0, 0.3), (0.0, 1.0), (10.0, 0.01)):
        s2 = ratio * (top**2 if top and r2 else 1.0)
        v = solve(A, b, r2, s2)
        probes.equal(
            r2 * A(A.adjoint(v)) + s2 * v,
            b,
            f"(r2 A A^H + s2) solve(b) and b at r2={r2:g}, s2={s2:.3g}",
        )
    if spectrum is not None:
        x = probes.images()
        clean = A(x)
        # pinv leaves out singular values below 1e-6 of the largest.
        left_out = 1e-6 * top * float(x.norm()) / probes.rtol
        probes.equal(A(pinv(A, clean)), clean, "A A^+ A and A", float(clean.norm()) + left_out)
    if math.prod(A.in_shape) <= 1024:
        M = matrix(A)
        # Complex measurements of real images: the norm over the reals.
        exact = float(
            torch.linalg.matrix_norm(
                torch.cat([M.real, M.imag]) if A.complex_out and not A.complex_in else M, 2
            )
        )
        assert abs(top - exact) <= 1e-3 * exact, (
            f"{probes.name}: norm2 is {top:.6g}, the largest singular value {exact:.6g}"
        )
