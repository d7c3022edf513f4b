"""What an instrument is: a map A from images x to clean measurements y. No noise, no clipping, no range.

    A : (B, *E) -> (B, *O)

An operator author writes ``forward`` and, for a linear operator, ``adjoint`` (left out, it is the exact transpose by automatic
differentiation). A closed form, where one is known, is offered as ``spectrum()``. The questions ``solve``, ``pinv``, ``norm2``,
``matrix`` and ``log_det`` are functions that answer for every linear operator, with the spectrum when there is one and conjugate
gradients otherwise; no caller asks which kind of operator it holds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posteriori.linalg import cg, dot, largest_eigenvalue, per_row

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Spectrum:
    """A singular value decomposition A = U diag(s) V^H as four functions.

    With n = numel(E), m = numel(O), k = min(n, m):

    s: (k,) singular values >= 0, in any order.
    Vh, V: (B, *E) <-> (B, n), unitary and inverse to each other; likewise Uh, U: (B, *O) <-> (B, m).
    Coordinate i < k of V meets coordinate i of U with the factor s[i]; coordinates beyond k are the null space (or the part of the
    measurement that no image reaches). Coordinates may be complex even for real images (a Fourier transform).
    """

    s: Tensor
    V: Map
    Vh: Map
    U: Map
    Uh: Map


class Operator(nn.Module, ABC):
    """A differentiable map (B, *E) -> (B, *O).

    Attributes
    ----------
    in_shape: E, the shape of one image.
    complex_in, complex_out: whether images and measurements are complex tensors.
    """

    def __init__(self, in_shape: tuple[int, ...], *, complex_in: bool = False, complex_out: bool = False) -> None:
        super().__init__()
        self.in_shape = tuple(int(n) for n in in_shape)
        self.complex_in, self.complex_out = complex_in, complex_out
        if not self.in_shape or min(self.in_shape) < 1:
            raise ValueError(f"{type(self).__name__}: image shape {self.in_shape} must have positive sides")

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x for a batch."""

    @property
    def out_shape(self) -> tuple[int, ...]:
        """O, the shape of one measurement."""
        if "_out_shape" not in self.__dict__:
            with torch.no_grad():
                self.__dict__["_out_shape"] = tuple(self(self.probe(torch.zeros)).shape[1:])
        return self.__dict__["_out_shape"]

    def probe(self, draw: Callable[..., Tensor], rows: int = 1, dtype: torch.dtype | None = None) -> Tensor:
        """A batch of images made by ``draw`` (``torch.zeros``, ``torch.randn``, ...) on the operator's device."""
        tensors = [*self.parameters(), *self.buffers()]
        device = tensors[0].device if tensors else None
        if dtype is None:
            floats = [t.dtype for t in tensors if t.is_floating_point() or t.is_complex()]
            dtype = (floats[0].to_real() if floats else torch.float32)
        return draw(rows, *self.in_shape, dtype=dtype.to_complex() if self.complex_in else dtype, device=device)

    def linearize(self, x: Tensor) -> tuple[Tensor, Map]:
        """A(x), and the map u -> (dA/dx)^H u."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            y = self(leaf)

        def pull(u: Tensor) -> Tensor:
            return torch.autograd.grad(y, leaf, u, retain_graph=True)[0]

        return y.detach(), pull

    def check_input(self, x: Tensor) -> None:
        """Raise ``ValueError`` naming both shapes, or both kinds of number, when x is not a batch of this operator's images."""
        if tuple(x.shape[1:]) != self.in_shape:
            raise ValueError(
                f"{type(self).__name__} takes images of shape {self.in_shape} in a batch (B, ...), got {tuple(x.shape)}; "
                "make an operator for this size, or add the batch axis with x[None]"
            )
        if x.is_complex() != self.complex_in:
            want, got = ("complex", "real") if self.complex_in else ("real", "complex")
            raise ValueError(f"{type(self).__name__} takes {want} images, got {got} numbers ({x.dtype})")


class LinearOperator(Operator):
    """An operator with A(a x + b u) = a A x + b A u, and hence an adjoint: Re<A x, u> = Re<x, A^H u>."""

    def adjoint(self, y: Tensor) -> Tensor:
        """A^H y for a batch. By default the exact transpose of ``forward`` by automatic differentiation."""
        zero = self.probe(torch.zeros, rows=y.shape[0], dtype=y.real.dtype)
        with torch.enable_grad():
            zero.requires_grad_()
            out = self(zero)
        return torch.autograd.grad(out, zero, y, create_graph=y.requires_grad)[0]

    def linearize(self, x: Tensor) -> tuple[Tensor, Map]:
        return self(x), self.adjoint

    def spectrum(self) -> Spectrum | None:
        """A closed-form singular value decomposition, or None when no cheap one is known."""
        return None


class AdjointError(ValueError):
    """``adjoint`` is not the transpose of ``forward``."""


def dot_test(A: LinearOperator, rtol: float, dtype: torch.dtype | None = None, seed: int = 0) -> None:
    """Compare Re<A x, u> with Re<x, A^H u> on random and on constant x, u.

    Raises ``AdjointError`` with both numbers and their ratio: a constant ratio points at a missing or doubled factor, which random
    probes alone can hide (interpolating up is not the transpose of interpolating down).
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int, dtype: torch.dtype, device: torch.device | None) -> Tensor:
        return torch.randn(*size, dtype=dtype, generator=generator).to(device)

    with torch.no_grad():
        for kind, draw in (("random", random), ("constant", torch.ones)):
            x = A.probe(draw, dtype=dtype)
            Ax = A(x)
            u = draw(*Ax.shape, dtype=Ax.dtype, device=Ax.device)
            Au = A.adjoint(u)
            if Au.shape != x.shape or Au.dtype != x.dtype:
                raise AdjointError(
                    f"the adjoint of {type(A).__name__} returns {tuple(Au.shape)} {Au.dtype}, images are {tuple(x.shape)} {x.dtype}"
                )
            left, right = float(dot(Ax, u)), float(dot(x, Au))
            size = max(float(dot(Ax, Ax)) ** 0.5 * float(dot(u, u)) ** 0.5, float(dot(x, x)) ** 0.5 * float(dot(Au, Au)) ** 0.5)
            if not abs(left - right) <= rtol * size:
                ratio = right / left if left else math.inf
                raise AdjointError(
                    f"{type(A).__name__} is not a linear operator with its adjoint: on {kind} probes <A x, u> = {left:.6g} but "
                    f"<x, A^H u> = {right:.6g} (ratio {ratio:.4g}). Leave `adjoint` out to get the exact transpose by automatic "
                    "differentiation, or divide by that ratio if it is the same for every probe"
                )


class SolveError(ArithmeticError):
    """A linear solve did not reach its tolerance: the operator is not what it claims to be, or the problem is too ill-conditioned."""


def _widths(r2: Tensor | float, s2: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
    real = like.real.dtype
    r, s = (torch.as_tensor(v, dtype=real, device=like.device) for v in (r2, s2))
    return r, s


def solve(
    A: LinearOperator,
    b: Tensor,
    r2: Tensor | float,
    s2: Tensor | float,
    *,
    rtol: float | None = None,
    max_iter: int = 1000,
) -> Tensor:
    """(r2 A A^H + s2 I)^-1 b, row by row: (B, *O) -> (B, *O).

    r2, s2: numbers or 0-d tensors >= 0, not both 0. With s2 = 0 the answer lives on the range of A (the pseudo-inverse of r2 A A^H).
    With a spectrum the answer is closed form; otherwise conjugate gradients to ``rtol`` (1e-5 in float32, 1e-10 in float64).
    Raises ``SolveError`` with the operator, iteration and residual when conjugate gradients stall or meet negative curvature.
    """
    r, s = _widths(r2, s2, b)
    spectrum = A.spectrum()
    if spectrum is not None:
        c = spectrum.Uh(b)
        width = s.expand(c.shape[1]).clone()
        width[: spectrum.s.numel()] += r * spectrum.s.to(width.dtype) ** 2
        floor = width.max() * torch.finfo(width.dtype).eps
        return spectrum.U(torch.where(width > floor, c / torch.where(width > floor, width, 1.0), 0.0))
    rtol = rtol if rtol is not None else (1e-10 if b.real.dtype == torch.float64 else 1e-5)
    # Scaling by the larger weight keeps the iterates representable: r2 spans eight decades along a sampling run.
    scale = torch.maximum(r, s)
    result = cg(lambda v: (r / scale) * A(A.adjoint(v)) + (s / scale) * v, b, max_iter=max_iter, rtol=rtol)
    bad = result.breakdown | (result.residual > 10 * rtol)
    if bool(bad.any()):
        k = int(bad.nonzero()[0])
        cause = "negative curvature: is `adjoint` the transpose of `forward`?" if bool(result.breakdown[k]) else "no convergence"
        raise SolveError(
            f"conjugate gradients on {type(A).__name__} (r2={float(r):.3g}, s2={float(s):.3g}) stopped in row {k} after "
            f"{int(result.iterations[k])} iterations with relative residual {float(result.residual[k]):.2e} (wanted {rtol:.0e}): {cause}. "
            "Run posteriori.testing.check_operator on it, or raise the noise level"
        )
    return result.x / scale


def pinv(A: LinearOperator, y: Tensor, *, rtol: float = 1e-6) -> Tensor:
    """The minimum-norm least-squares image A^+ y: (B, *O) -> (B, *E). Singular values below ``rtol`` times the largest count as 0.

    Without a spectrum: A^H (A A^H + rtol^2 ||A||^2 I)^-1 y by conjugate gradients, which equals A^+ y up to O(rtol^2) on the
    well-conditioned part and damps the rest.
    """
    spectrum = A.spectrum()
    if spectrum is None:
        top = norm2(A)
        rtol = max(rtol, 1e-3)
        b = y / top
        # A^H(AA^H + d)^-1 = (A^H A + d)^-1 A^H: the right-hand side is then in the range, where CG behaves well.
        c = A.adjoint(b) / top
        result = cg(lambda v: A.adjoint(A(v)) / top**2 + rtol**2 * v, c, max_iter=2000, rtol=1e-6)
        return result.x
    s = spectrum.s
    keep = s > rtol * s.max()
    c = spectrum.Uh(y)[:, : s.numel()]
    c = torch.where(keep, c / torch.where(keep, s, 1.0), 0.0)
    n = math.prod(A.in_shape)
    return spectrum.V(torch.nn.functional.pad(c, (0, n - s.numel())))


def norm2(A: LinearOperator) -> float:
    """The largest singular value of A."""
    spectrum = A.spectrum()
    if spectrum is not None:
        return float(spectrum.s.max())
    if "_norm2" not in A.__dict__:
        generator = torch.Generator().manual_seed(0)
        start = A.probe(lambda *size, dtype, device: torch.randn(*size, dtype=dtype, generator=generator).to(device))
        with torch.no_grad():
            A.__dict__["_norm2"] = math.sqrt(largest_eigenvalue(lambda v: A.adjoint(A(v)), start))
    return A.__dict__["_norm2"]


def matrix(A: LinearOperator, dtype: torch.dtype = torch.float64) -> Tensor:
    """A as a dense matrix (m, n) over flattened images and measurements. Meant for n up to a few thousand."""
    n = math.prod(A.in_shape)
    if n > 20_000:
        raise ValueError(f"matrix: an image of {n} numbers is too large to write {type(A).__name__} as a dense matrix (limit 20000)")
    basis = torch.eye(n, dtype=dtype.to_complex() if A.complex_in else dtype).view(n, *A.in_shape)
    with torch.no_grad():
        return torch.cat([A(rows) for rows in basis.split(512)]).flatten(1).T.contiguous()


def log_det(A: LinearOperator, r2: Tensor | float, s2: Tensor | float) -> Tensor:
    """log det(r2 A A^H + s2 I) over the m measured numbers; 0-d float64."""
    m = math.prod(A.out_shape)
    spectrum = A.spectrum()
    s = spectrum.s.double() if spectrum is not None else torch.linalg.svdvals(matrix(A))
    width = torch.full((m,), float(s2), dtype=torch.float64)
    width[: s.numel()] += float(r2) * s.cpu() ** 2
    return width.log().sum()


__all__ = ["LinearOperator", "Operator", "SolveError", "Spectrum", "dot", "log_det", "matrix", "norm2", "per_row", "pinv", "solve"]
