"""Parallel magnetic resonance whose coils have phases that nobody measured."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator
from posteriori.operators.channels import ComplexChannels
from posteriori.operators.multicoil import MultiCoilFourier
from posteriori.operators.parametric import Parametric


class BlindCoilPhase(Parametric):
    """y_c = the sampled points of F (e^(i p_c) S_c x): ``MultiCoilFourier`` with a phase of its own
    in each coil.

    sensitivities: S, complex (coils, H, W). mask, centred: as of ``MultiCoilFourier``. ramps:
    whether p_c also rises linearly along rows and columns, as an echo that is off centre makes it.

    The parts are "image" (2, H, W), real and imaginary part, and "phase" (coils, 1) in radians or,
    with ramps, (coils, 3): p_c = phi_0 + phi_1 r + phi_2 c, r and c from -1 at the first row or
    column to 1 at the last. y is linear in the image; a phase common to all coils and one of the
    image cannot be told apart. ``at(phase)`` is a ``MultiCoilFourier`` after ``ComplexChannels``.
    Raises as ``MultiCoilFourier``.
    """

    def __init__(
        self, sensitivities: Tensor, mask: Tensor, *, centred: bool = True, ramps: bool = False
    ) -> None:
        coils, H, W = sensitivities.shape
        super().__init__((2, H, W), "phase", (coils, 3 if ramps else 1), complex_out=True)
        self.inner = MultiCoilFourier(sensitivities, mask, centred)
        self.channels = ComplexChannels((2, H, W))
        self.mask, self.centred = mask, centred

    def factors(self, phi: Tensor) -> Tensor:
        """e^(i p_c) of phases (..., coils, 1 or 3): (..., coils, H, W)."""
        _, H, W = self.image_shape
        r, c = (torch.linspace(-1, 1, n, dtype=phi.dtype, device=phi.device) for n in (H, W))
        terms = [torch.ones(H, W).to(phi), r[:, None].expand(H, W), c.expand(H, W)]
        shape = torch.stack(terms[: phi.shape[-1]])
        angle = torch.tensordot(phi, shape, 1)
        return torch.complex(angle.cos(), angle.sin())

    def apply(self, x: Tensor, phi: Tensor) -> Tensor:  # type: ignore[override]
        image = self.channels(x)[:, None]
        seen = self.inner.sensitivities.to(image.dtype) * image
        return self.inner.select(self.inner.fourier.transform(self.factors(phi) * seen))

    def at(self, phi: Tensor) -> LinearOperator:
        maps = self.inner.sensitivities
        turned = maps * self.factors(phi.detach()).to(maps.dtype)
        seen = MultiCoilFourier(turned, self.mask, self.centred)
        return seen @ self.channels  # type: ignore[return-value]
