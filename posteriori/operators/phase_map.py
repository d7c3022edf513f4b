"""A real image behind a known phase: what a complex image is when its phase was measured
beforehand."""

from __future__ import annotations

from torch import Tensor

from posteriori.linalg import real_view
from posteriori.operators.base import LinearOperator


class PhaseMap(LinearOperator):
    """y = p x: real (1, H, W) -> complex (H, W), with p = e^(i phase) of every pixel. A^H
    y = Re(conj(p) y), so that A^H A = 1.

    ``MultiCoilFourier(S, mask) @ PhaseMap(p)`` measures k-space of an image of which only the
    magnitude is unknown.

    phase: p, complex (H, W), of modulus 1. Raises ``ValueError`` for any other.
    """

    phase: Tensor

    def __init__(self, phase: Tensor) -> None:
        if phase.ndim != 2 or not phase.is_complex():
            raise ValueError(
                "PhaseMap takes complex numbers e^(i phase) of shape (H, W), "
                f"got {phase.dtype} {tuple(phase.shape)}"
            )
        off = float((real_view(phase).square().sum(-1).sqrt() - 1).abs().max())
        if not off < 1e-3:
            raise ValueError(
                "PhaseMap takes numbers e^(i phase) of modulus 1, "
                f"these are off by up to {off:.3g}: divide by the modulus"
            )
        super().__init__((1, *phase.shape), complex_out=True)
        self.register_buffer("phase", phase.resolve_conj())

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return x[:, 0] * self.phase.to(x.dtype.to_complex())

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return (self.phase.conj().to(y.dtype) * y).real[:, None]
