"""Row-by-row linear algebra on batches of tensors: each row is its own problem, with its own
scalars and its own end.

Complex tensors use the real inner product Re<u, v>: every operator here is complex-linear and
Hermitian, so the solutions agree with those of the complex inner product, and a real-linear
operator on complex numbers is handled as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]
# Times the rounding of one number: what sums of products leave of an orthogonal part that is 0.
_EXHAUSTED = 100.0


_SOLVERS: ContextVar[set[str] | None] = ContextVar("_SOLVERS", default=None)


@contextmanager
def solvers_noted() -> Iterator[set[str]]:
    """Within it the kinds of linear solve that are used are noted, in words."""
    found: set[str] = set()
    token = _SOLVERS.set(found)
    try:
        yield found
    finally:
        _SOLVERS.reset(token)


def note_solver(name: str) -> None:
    """Say that a kind of solve is used, to ``solvers_noted``."""
    found = _SOLVERS.get()
    if found is not None:
        found.add(name)


def dot(u: Tensor, v: Tensor) -> Tensor:
    """Re<u, v> of each row: (B, ...) x (B, ...) -> (B,)."""
    if u.is_complex() or v.is_complex():
        return (u.conj() * v).real.flatten(1).sum(1)
    return torch.linalg.vecdot(u.flatten(1), v.flatten(1))


def real_view(x: Tensor) -> Tensor:
    """The real numbers of x: a complex tensor (*E) as (*E, 2), a real one as it is.

    What ``x.conj()`` and ``x.conj().imag`` return is conjugated or negated only when it is read.
    torch views, numpy and files read past that: it is done here.
    """
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x.resolve_neg()


def per_row(scalars: Tensor, like: Tensor) -> Tensor:
    """View (B,) as (B, 1, ..., 1), to multiply the rows of ``like``."""
    return scalars.view(-1, *[1] * (like.ndim - 1))


@lru_cache(maxsize=16)
def cosines(n: int) -> Tensor:
    """The orthonormal cosine transform of n numbers (the second kind), (n, n) float64: row u is the
    frequency u."""
    k = torch.arange(n, dtype=torch.float64)
    M = torch.cos(math.pi / n * torch.outer(k, k + 0.5)) * math.sqrt(2 / n)
    M[0] /= math.sqrt(2)
    return M


def cosine(x: Tensor, *, inverse: bool = False) -> Tensor:
    """The orthonormal cosine transform over the last two axes of each image
    (the one axis of a flat image): (B, *E) -> (B, *E)."""
    for axis in range(max(1, x.ndim - 2), x.ndim):
        M = cosines(x.shape[axis]).to(x)
        x = (x.movedim(axis, -1) @ (M if inverse else M.T)).movedim(-1, axis)
    return x


@dataclass(frozen=True)
class Solved:
    """``x``, with its relative residual (B,), the iterations used (B,) and whether non-positive
    curvature stopped a row (B,).

    ``rounding``: the relative residual (B,) that rounding alone leaves, eps ||M|| ||x|| / ||b||,
    with the largest ||M p|| / ||p|| seen for ||M||; a smaller one is not to be had.
    ``weights`` (B, K): x = start + sum_k weights_k v_k, v_k being what ``matvec`` was given at its
    k-th call after that for the start."""

    x: Tensor
    residual: Tensor
    iterations: Tensor
    breakdown: Tensor
    rounding: Tensor
    weights: Tensor

    def mapped(self, images: Sequence[Tensor], like: Tensor) -> Tensor:
        """L (x - start) of a linear map L, (B, *F) like ``like``, from ``images`` = L v_k that a
        ``matvec`` which contains L has made: no product with L more. A row of x that is not finite
        is NaN."""
        out = torch.zeros_like(like)
        for weight, image in zip(self.weights.T, images, strict=True):
            w = per_row(weight, image).to(image.dtype)
            # A row that has ended takes nothing of later products, which may not be finite there.
            out = torch.where(w != 0, out + w * image, out)
        finite = self.x.flatten(1).isfinite().all(1)
        return torch.where(per_row(finite, out), out, torch.nan)


def cg(
    matvec: Map,
    b: Tensor,
    *,
    max_iter: int,
    rtol: float,
    start: Tensor | None = None,
    precondition: Map | None = None,
    energy: bool = False,
    attainable: bool = False,
) -> Solved:
    """Conjugate gradients for M x = b with M Hermitian positive definite, row by row.

    precondition: r -> P r with P Hermitian positive definite, near the inverse of M; the identity
    when None.
    energy: measure residuals by r^T P r instead of r^T r: near the error's own e^T M e, whatever
    the condition of M.
    attainable: stop also at the residual that rounding leaves (see ``Solved``), below which only
    the recurrence would go on to fall.

    A row stops by itself when ||b - M x|| <= rtol ||b||, or when p^T M p <= 0 shows that M is not
    positive definite in the direction p: the row keeps its last good iterate and is marked.
    ``b = 0`` gives 0 and an exact start returns at once. A row of b that is not finite gives NaN
    and does not hold up the others. Values are returned, never raised: the caller knows what a poor
    residual means.

    Source: Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems, 1952.
    """
    note_solver("preconditioned conjugate gradients" if precondition else "conjugate gradients")
    P = precondition or (lambda r: r)
    x = torch.zeros_like(b) if start is None else start.clone()
    r = b.clone() if start is None else b - matvec(start)
    p = P(r)
    rz = dot(r, p)
    rr = rz if energy else dot(r, r)
    bb = dot(b, b) if not energy else rz if start is None else dot(b, P(b))
    goal = (rtol**2) * bb
    live = rr > goal
    broken = torch.zeros_like(live)
    used, most = torch.zeros_like(rr), torch.zeros_like(rr)
    lengths: list[Tensor] = []
    for _ in range(max_iter):
        if not live.any():
            break
        q = matvec(p)
        curvature = dot(p, q)
        pp = dot(p, p)
        most = torch.maximum(
            most, torch.where(live & (pp > 0), dot(q, q) / torch.where(pp > 0, pp, 1.0), 0.0)
        )
        broken = broken | (live & ~(curvature > 0))
        live = live & (curvature > 0)
        q = torch.where(per_row(live, q), q, 0.0)  # a row that has ended takes nothing of it
        alpha = torch.where(live, rz / torch.where(live, curvature, 1.0), 0.0)
        lengths.append(alpha)
        x = torch.addcmul(x, per_row(alpha, p).to(p.dtype), p)
        r = torch.addcmul(r, per_row(-alpha, p).to(p.dtype), q)
        used = used + live
        z = P(r)
        new = torch.where(live, dot(r, z), rz)
        rr = torch.where(live, new if energy else dot(r, r), rr)
        live = live & (rr > goal)
        if attainable:
            live = live & (rr > torch.finfo(rr.dtype).eps ** 2 * most * dot(x, x))
        p = torch.addcmul(
            z,
            per_row(torch.where(live, new / torch.where(rz != 0, rz, 1.0), 0.0), p).to(p.dtype),
            p,
        )
        rz = new
    norm_b, length = bb.sqrt(), torch.where(bb > 0, dot(b, b), 1.0).sqrt()
    rounding = torch.finfo(rr.dtype).eps * (most * dot(x, x)).sqrt() / length
    x = torch.where(per_row(bb.isfinite(), x), x, torch.nan)
    left = rr.clamp(min=0).sqrt() / torch.where(norm_b > 0, norm_b, 1.0)
    weights = torch.stack(lengths, 1) if lengths else rr.new_zeros(len(rr), 0)
    return Solved(x, left, used, broken, rounding, weights)


def gmres(
    matvec: Map, b: Tensor, *, max_iter: int, rtol: float, precondition: Map | None = None
) -> Solved:
    """Generalised minimal residuals for M x = b with any M, row by row: x in P K, K = span(b, M P
    b, ..., (M P)^(k-1) b).

    precondition: r -> P r, applied from the right, so that the residual is that of the given
    system; the identity when None.

    ||b - M x|| never grows with the iterations, also when M is not symmetric or not positive, as
    the Jacobian of a trained network. A row stops by itself at ||b - M x|| <= rtol ||b||. Memory:
    ``max_iter`` + 1 tensors of the size of b. Nothing is raised.

    Source: Saad and Schultz, GMRES: a generalized minimal residual algorithm for solving
    nonsymmetric linear systems, 1986.
    """
    note_solver("preconditioned GMRES" if precondition else "GMRES")
    P = precondition or (lambda r: r)
    size = dot(b, b).sqrt()
    rows = len(size)
    basis = [b / per_row(torch.where(size > 0, size, 1.0), b).to(b.dtype)]
    H = torch.zeros(rows, max_iter + 1, max_iter, dtype=torch.float64, device=b.device)
    aim = torch.zeros(rows, max_iter + 1, dtype=torch.float64, device=b.device)
    aim[:, 0] = size.double()
    weights = torch.zeros(rows, max_iter, dtype=torch.float64, device=b.device)
    residual, live, used = size.double(), size > 0, torch.zeros_like(size)
    lost = ~size.isfinite()
    for k in range(max_iter):
        if not live.any():
            break
        w = matvec(P(basis[k]))
        for j, v in enumerate(basis):
            H[:, j, k] = dot(v, w).double()
            w = w - per_row(H[:, j, k].to(size), w).to(w.dtype) * v
        H[:, k + 1, k] = dot(w, w).sqrt().double()
        # A row that is no longer finite stays so, and must not stop the decomposition of the
        # others.
        sick = ~H[:, :, k].isfinite().all(1)
        lost = lost | (live & sick)
        H, live = torch.where(sick[:, None, None], 0.0, H), live & ~sick
        # A row whose space is exhausted has a zero column from here on, which the pseudo-inverse
        # leaves alone.
        best = (torch.linalg.pinv(H[:, : k + 2, : k + 1]) @ aim[:, : k + 2, None])[..., 0]
        left = (aim[:, : k + 2] - (H[:, : k + 2, : k + 1] @ best[..., None])[..., 0]).norm(dim=1)
        weights[:, : k + 1] = torch.where(live[:, None], best, weights[:, : k + 1])
        residual = torch.where(live, left, residual)
        used = used + live
        # Nothing but rounding is left of M v where the space is exhausted, whatever M's unit.
        rest, product = H[:, k + 1, k], H[:, : k + 2, k].norm(dim=1)
        live = (
            live
            & (residual > rtol * size)
            & (rest > _EXHAUSTED * torch.finfo(size.dtype).eps * product)
        )
        length = torch.where(live, rest, 1.0).to(size)
        # A row that has ended goes on with zeros, whatever its last product was.
        basis.append(torch.where(per_row(live, w), w / per_row(length, w).to(w.dtype), 0.0))
    u = torch.zeros_like(b)
    for k, v in enumerate(basis[:max_iter]):
        u = u + per_row(weights[:, k].to(size), v).to(v.dtype) * v
    u = torch.where(per_row(lost, u), torch.nan, u)
    no, exact = torch.zeros_like(live), torch.zeros_like(size)
    relative = residual.to(size) / torch.where(size > 0, size, 1.0)
    return Solved(P(u), relative, used, no, exact, weights[:, : len(basis) - 1].to(size))


def root_product(matvec: Map, b: Tensor, *, iterations: int) -> Tensor:
    """M^(1/2) b for a positive semi-definite M, row by row, by Lanczos's method: |b| V T^(1/2) e_1
    with V orthonormal, T = V^T M V.

    Exact once the Krylov space of b is exhausted; eigenvalues of T below 0, as the Jacobian of a
    trained network has, count as 0.
    Memory: ``iterations`` tensors of the size of b.
    Source: Higham, Functions of matrices, 2008, section 13.2.1.
    """
    size = dot(b, b).sqrt()
    basis = [b / per_row(torch.where(size > 0, size, 1.0), b).to(b.dtype)]
    T = torch.zeros(len(b), iterations, iterations, dtype=torch.float64, device=b.device)
    for k in range(iterations):
        w = matvec(basis[k])
        for again in (False, True):  # once more: what rounding left of the earlier vectors
            for j, v in enumerate(basis):
                part = dot(v, w)
                T[:, j, k] = part.double() if not again else T[:, j, k]
                w = w - per_row(part, w).to(w.dtype) * v
        length = dot(w, w).sqrt()
        # A row whose space is exhausted goes on with zeros, which change nothing.
        live = length > 1e3 * torch.finfo(size.dtype).eps * T[:, : k + 1, : k + 1].abs().amax(
            (1, 2)
        ).to(size)
        if not live.any():
            iterations = k + 1
            break
        basis.append(
            torch.where(
                per_row(live, w), w / per_row(torch.where(live, length, 1.0), w).to(w.dtype), 0.0
            )
        )
    T = T[:, :iterations, :iterations]
    # A row that is no longer finite stays so, and must not stop the decomposition of the others.
    sick = ~T.isfinite().all(2).all(1)
    # Only the upper triangle of the symmetric T has been filled in.
    values, vectors = torch.linalg.eigh(torch.where(sick[:, None, None], 0.0, T), UPLO="U")
    weights = (vectors @ (values.clamp(min=0).sqrt() * vectors[:, 0])[..., None])[..., 0].to(
        size
    ) * size[:, None]
    weights = torch.where(sick[:, None], torch.nan, weights)
    out = torch.zeros_like(b)
    for k, v in enumerate(basis[:iterations]):
        out = out + per_row(weights[:, k], v).to(v.dtype) * v
    return out


def squared_norm(push: Map, pull: Map, x: Tensor, iterations: int = 16) -> Tensor:
    """||J||^2 of each row, (B,), for J given by v -> J v and u -> J^H u: by power iterations from
    one fixed start, which come from below.

    Rows start alike, so that none depends on the batch it is in. 0 for J = 0.
    """
    start = torch.randn(x.shape[1:], dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    v, value = start.to(x.device).expand_as(x), dot(x, x) * 0
    for _ in range(iterations):
        value = dot(v, v).sqrt()
        unit = torch.where(value > 0, 1.0 / torch.where(value > 0, value, 1.0), 0.0)
        v = pull(push(v * per_row(unit, v)))
    return torch.where(value > 0, dot(v, v).sqrt(), 0.0)


def largest_eigenvalue(
    matvec: Map, start: Tensor, *, iterations: int = 200, rtol: float = 1e-4
) -> float:
    """Largest eigenvalue of a positive semi-definite M by Lanczos's method from ``start`` (1, ...).

    Stops when the residual of the eigenpair is below ``rtol`` times the eigenvalue; the error of
    the eigenvalue is of its square. Power iteration would stop on eigenvalues that lie close
    together, a per cent too low. No basis is stored: the copies of an eigenvalue that rounding then
    breeds do not move the largest. NaN when M makes numbers that are not finite.

    Source: Paige, Computational variants of the Lanczos method for the eigenproblem, 1972.
    """
    v, before, beta = start / dot(start, start).sqrt(), torch.zeros_like(start), 0.0
    diagonal: list[float] = []
    off: list[float] = []
    value = 0.0
    for _ in range(iterations):
        w = matvec(v) - beta * before
        diagonal.append(float(dot(w, v)))
        if not math.isfinite(diagonal[-1]):
            return math.nan
        w = w - diagonal[-1] * v
        T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        T[range(1, len(T)), range(len(T) - 1)] = torch.tensor(off, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(T)
        value, beta = float(values[-1]), float(dot(w, w).sqrt())
        if not abs(beta * float(vectors[-1, -1])) > rtol * abs(value) or beta == 0.0:
            break
        off.append(beta)
        v, before = w / beta, v
    return value
