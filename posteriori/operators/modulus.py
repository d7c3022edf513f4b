"""Detectors that count light: the modulus of a complex measurement is kept, its phase is lost."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator, Operator
from posteriori.operators.ptychography import Ptychography
from posteriori.packing import Shapes


class Modulus(Operator):
    """y = |A x|, or the intensity |A x|^2: real numbers >= 0 of the shape of A's measurements.

    A: linear with complex measurements. Its images are those of this operator. Phase retrieval in
    its variants is this operator after another A:

        Modulus(MaskedFourier(mask, (H, W)))             Fourier magnitudes
        coded_diffraction(masks)                         the same behind several masks
        Modulus(Ptychography(probe, positions, (H, W)))  a probe that moves
        Modulus(Dense(matrix, (H, W)))                   a complex Gaussian matrix

    These take complex images. Real ones of shape (1, H, W) go through ``PhaseMap`` first, two
    channels (2, H, W) through ``ComplexChannels``: ``Modulus(A @ ComplexChannels((2, H, W)))``.
    A phase common to the whole image changes no measurement.

    square: the intensity. The modulus has no derivative where A x = 0, and 0 is taken there; the
    intensity has one everywhere, 2 A^H ((A x) u).
    Raises ``TypeError`` for an A that is not linear or measures real numbers.
    """

    def __init__(self, A: LinearOperator, square: bool = False) -> None:
        if not isinstance(A, LinearOperator) or not A.complex_out:
            kind = "is not linear" if not isinstance(A, LinearOperator) else "measures real numbers"
            raise TypeError(
                "Modulus takes a linear operator with complex measurements; "
                f"{type(A).__name__} {kind}"
            )
        super().__init__(A.in_shape, complex_in=A.complex_in)
        self.A, self.square = A, bool(square)

    def forward(self, x: Tensor) -> Tensor:
        z = self.A(x)
        return z.real.square() + z.imag.square() if self.square else z.abs()

    def layout(self, y: Tensor) -> Tensor:
        return self.A.layout(y)

    @property
    def in_parts(self) -> Shapes | None:
        return self.A.in_parts


def coded_diffraction(masks: Tensor, square: bool = False) -> Modulus:
    """|F (m_k x)| for masks m, complex (K, H, W): complex images (H, W) -> (K, H, W) real numbers.

    F is the unitary transform, its zero frequency at index (H // 2, W // 2). square: the
    intensities.
    Source: Candès, Li and Soltanolkotabi, Phase retrieval from coded diffraction patterns, 2015.
    """
    if masks.ndim != 3:
        raise ValueError(
            f"coded_diffraction takes masks of shape (K, H, W), got {tuple(masks.shape)}"
        )
    nowhere = torch.zeros(len(masks), 2, dtype=torch.long)
    return Modulus(Ptychography(masks, nowhere, tuple(masks.shape[1:])), square)
