"""Photon transmission: what is left of a beam behind an absorbing object, as a detector of X-ray tomography counts it."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator, Operator


class Transmission(Operator):
    """y = exp(-A x), the share of the photons that pass (Beer and Lambert's law). Not linear.

    A: line integrals of the attenuation, dimensionless: ``Radon`` of an image in 1 / mm. Its images are those of this operator, and its
    measurements have the same shape; both are real. A beam of I0 photons per detector is ``Poisson(I0)`` noise: y = counts / I0.

    Raises ``TypeError`` when A is not linear, or when its images or measurements are complex.
    """

    def __init__(self, A: LinearOperator) -> None:
        if not isinstance(A, LinearOperator) or A.complex_in or A.complex_out:
            raise TypeError(f"Transmission takes a linear operator on real images with real measurements, got {type(A).__name__}")
        super().__init__(A.in_shape)
        self.A = A

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-self.A(x))
