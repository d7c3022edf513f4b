"""Photon transmission: what is left of a beam behind an absorbing object, as a detector of X-ray
tomography counts it."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator, Operator


class Transmission(Operator):
    """y = I0 exp(-A x), Beer and Lambert's law. Not linear.

    A: line integrals of the attenuation, dimensionless: ``Radon`` of an image in 1 / mm. Its images
    are those of this operator, and its measurements have the same shape; both are real.
    photons: I0, those that each detector counts where nothing is in the way, > 0: a number, or an
    array that broadcasts against one measurement. y is then the counts themselves, with
    ``noise.Counts``. By default 1: y is the share that passes, and a beam of I0 photons at every
    detector is ``Poisson(I0)`` noise, y = counts / I0.

    Raises ``TypeError`` when A is not linear, or when its images or measurements are complex;
    ``ValueError`` for other photons.
    """

    photons: Tensor

    def __init__(self, A: LinearOperator, photons: Tensor | float = 1.0) -> None:
        if not isinstance(A, LinearOperator) or A.complex_in or A.complex_out:
            raise TypeError(
                "Transmission takes a linear operator on real images with real measurements, "
                f"got {type(A).__name__}"
            )
        super().__init__(A.in_shape)
        I0 = torch.as_tensor(
            photons, dtype=torch.float32 if not isinstance(photons, Tensor) else photons.dtype
        )
        if not I0.is_floating_point() or not bool((I0.isfinite() & (I0 > 0)).all()):
            raise ValueError(
                "Transmission: photons must be finite floating point numbers > 0, "
                f"got {I0.dtype} from {float(I0.min()):.4g}; "
                "hide a detector that counts nothing with a mask after this operator"
            )
        try:
            I0.expand(A.out_shape)
        except RuntimeError:
            raise ValueError(
                f"Transmission: photons of shape {tuple(I0.shape)} do not fit measurements "
                f"of shape {A.out_shape}"
            ) from None
        self.A = A
        self.register_buffer("photons", I0)

    def forward(self, x: Tensor) -> Tensor:
        passed = torch.exp(-self.A(x))
        return self.photons.to(passed) * passed

    def layout(self, y: Tensor) -> Tensor:
        return self.A.layout(y)
