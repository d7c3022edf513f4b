"""Computed tomography whose axis of rotation is not where the middle of the detectors is."""

from __future__ import annotations

from torch import Tensor

from posteriori.operators.base import LinearOperator
from posteriori.operators.detector_shift import DetectorShift, moved_along
from posteriori.operators.parametric import Parametric
from posteriori.operators.radon import Radon


class BlindRotationCentre(Parametric):
    """y(angle, t) = (R x)(angle, t - offset): the sinogram of ``Radon``, moved along the detectors
    by one unknown length.

    radon: R. The parts are "image" and "offset_mm" (1,), in mm, positive towards the last detector.
    y is linear in the image; ``at(offset_mm)`` is a ``DetectorShift`` after R. Detectors should
    reach beyond the object by the offset: what falls beside them is lost.
    """

    def __init__(self, radon: Radon) -> None:
        super().__init__(radon.in_shape, "offset_mm", (1,))
        self.radon = radon

    def apply(self, x: Tensor, phi: Tensor) -> Tensor:  # type: ignore[override]
        return moved_along(self.radon(x), phi.reshape(-1) / self.radon.detector_mm)

    def read(self, phi: Tensor) -> dict[str, Tensor]:
        return {"offset (mm)": phi}

    def at(self, phi: Tensor) -> LinearOperator:
        steps = float(phi.detach()) / self.radon.detector_mm
        return DetectorShift(self.radon.out_shape, steps) @ self.radon  # type: ignore[return-value]
