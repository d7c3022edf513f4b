"""A complex image whose phase is nearly known, as two real ones."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator
from posteriori.operators.phase_map import PhaseMap
from posteriori.packing import Shapes, packed_size, unpack


class Quadrature(LinearOperator):
    """y = p (r + i q): the parts "image" r and "quadrature" q (1, H, W), packed -> complex (H, W),
    with p = e^(i phase) of every pixel. A^H y = (Re conj(p) y, Im conj(p) y), so that A^H A = 1.

    r is the image where the phase holds; q, small, is what the phase misses: it was measured at low
    resolution, or an edge turns it faster. ``PhaseMap`` takes q for 0.

        A = MultiCoilFourier(S, mask) @ Quadrature(p)
        prior = priors.Joint({"image": magnitudes, "quadrature": Gaussian(zeros, std**2)}, ...)

    phase: p, complex (H, W), of modulus 1. Raises ``ValueError`` for any other.
    """

    def __init__(self, phase: Tensor) -> None:
        map = PhaseMap(phase)
        shapes = {"image": map.in_shape, "quadrature": map.in_shape}
        super().__init__((packed_size(shapes),), complex_out=True)
        self.map, self.shapes = map, shapes

    @property
    def in_parts(self) -> Shapes:
        return self.shapes

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        parts = unpack(x, self.shapes)
        return self.map(parts["image"]) + 1j * self.map(parts["quadrature"])

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        turned = self.map.phase.conj().to(y.dtype) * y
        return torch.cat([turned.real.flatten(1), turned.imag.flatten(1)], 1)
