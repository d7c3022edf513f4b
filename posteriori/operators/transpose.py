"""The transpose of a linear map: made by automatic differentiation, and measured, never trusted;
and the map as its own derivative."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from posteriori.linalg import Map, dot, real_view

if TYPE_CHECKING:
    from posteriori.operators.base import LinearOperator, Operator


class AdjointError(ValueError):
    """``adjoint`` is not the transpose of ``forward``."""


def repeat_test(A: Operator, rtol: float, dtype: torch.dtype | None = None, seed: int = 0) -> None:
    """Compare A(x) of two calls on one x of numbers between 0 and 1.

    Raises ``ValueError`` when they differ by more than ``rtol`` of their size: an operator that
    draws something at each call is none.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        x = A.probe(
            lambda *size, dtype, device: torch.rand(*size, dtype=dtype, generator=generator).to(
                device
            ),
            dtype=dtype,
        )
        first, second = A(x.clone()), A(x.clone())
    real, again = (real_view(y) for y in (first, second))
    # Numbers that are no number twice are the same.
    gap = float(
        torch.where(
            real.isfinite() & again.isfinite(),
            real - again,
            (real.isfinite() != again.isfinite()).to(real),
        ).norm()
    )
    size = float(real[real.isfinite()].norm())
    if gap > rtol * size:
        raise ValueError(
            f"{A.label} is not an operator: "
            f"A(x) differs between two calls, by {gap / max(size, 1e-30):.2g} of its size. "
            "Draw what is random once, when it is made, and switch a network to eval()"
        )


def dot_test(
    A: LinearOperator, rtol: float, dtype: torch.dtype | None = None, seed: int = 0
) -> None:
    """Compare Re<A x, u> with Re<x, A^H u> on random and on constant x, u.

    Raises ``AdjointError`` with both numbers and their ratio for each kind of probe: random probes
    alone can hide a factor (interpolating up is not the transpose of interpolating down: the ratio
    is factor^2 on constants, a few per cent off 1 on random ones). A ratio that is the same for
    both is called constant, with its cure.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int, dtype: torch.dtype, device: torch.device | None) -> Tensor:
        return torch.randn(*size, dtype=dtype, generator=generator).to(device)

    ratios, found, wrong = [], [], False
    with torch.no_grad():
        for kind, draw in (("random", random), ("constant", torch.ones)):
            x = A.probe(draw, dtype=dtype)
            Ax = A(x)
            u = draw(*Ax.shape, dtype=Ax.dtype, device=Ax.device)
            Au = A.adjoint(u)
            if Au.shape != x.shape or Au.dtype != x.dtype:
                raise AdjointError(
                    f"the adjoint of {type(A).__name__} returns {tuple(Au.shape)} {Au.dtype}, "
                    f"images are {tuple(x.shape)} {x.dtype}"
                )
            left, right = float(dot(Ax, u)), float(dot(x, Au))
            size = max(
                float(dot(Ax, Ax)) ** 0.5 * float(dot(u, u)) ** 0.5,
                float(dot(x, x)) ** 0.5 * float(dot(Au, Au)) ** 0.5,
            )
            wrong = wrong or not abs(left - right) <= rtol * size
            ratios.append(right / left if left else math.nan)
            found.append(
                f"on {kind} probes <A x, u> = {left:.6g} but <x, A^H u> = {right:.6g} "
                f"(ratio {ratios[-1]:.4g})"
            )
    if wrong:
        constant = abs(ratios[0] - ratios[1]) <= 1e-3 * abs(ratios[0])
        cure = "Leave `adjoint` out to get the exact transpose by automatic differentiation"
        if constant:
            cure = (
                f"The ratio is a constant {ratios[0]:.4g}: "
                "divide `adjoint` by it (it belongs to another inner product)"
            )
        raise AdjointError(
            f"{type(A).__name__} is not a linear operator with its adjoint: "
            f"{'; '.join(found)}. {cure}"
        )


def transposed(L: Map, like: Tensor) -> Map:
    """The transpose of a map u -> L u that automatic differentiation can follow; u has the shape of
    ``like``. Rows do not mix.

    L itself may be a vector-Jacobian product: its transpose is then the Jacobian-vector product,
    without a second forward pass.
    """
    with torch.enable_grad():
        u = torch.zeros_like(like).requires_grad_()
        image = L(u)
    return lambda v: torch.autograd.grad(image, u, v, retain_graph=True)[0]


def followed(x: Tensor) -> bool:
    """Whether anyone may want a derivative of what is made of x. Telling it apart saves 50
    microseconds at each call of an operator.

    torch tells its functional and forward modes by private names only: without them the answer is
    yes.
    """
    if x.requires_grad and torch.is_grad_enabled():
        return True
    functional = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
    return functional() or getattr(torch.autograd.forward_ad, "_current_level", 0) >= 0


class Linear(torch.autograd.Function):
    """``Linear.apply(x, there, back)`` is ``there(x)``, a linear map whose transpose is ``back``, x
    (B, *E).

    Every derivative is one of the two. So derivatives of any order, forward and reverse, and
    ``torch.func`` need neither map to be differentiable inside: sparse products, NumPy and compiled
    projectors qualify.
    """

    @staticmethod
    def forward(x: Tensor, there: Map, back: Map) -> Tensor:
        return there(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.there, ctx.back = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return Linear.apply(gradients[0], ctx.back, ctx.there), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return Linear.apply(tangents[0], ctx.there, ctx.back)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, *maps: Map
    ) -> tuple[Tensor, int]:
        # Rows that ``torch.func.vmap`` adds are rows like the others.
        x = x.movedim(in_dims[0] or 0, 0)
        return Linear.apply(x.flatten(0, 1), *maps).unflatten(0, x.shape[:2]), 0
