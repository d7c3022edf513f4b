"""A network that learned from masked images, seen through one mask: the denoiser of Ambient
posterior sampling."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.priors import edm
from posteriori.priors.base import Prior, limits_of
from posteriori.priors.network import Network


class Ambient(Prior):
    """D(x, sigma) = h(M x, M, sigma), h(M x, M, sigma) = E[x0 | M (x0 + sigma z), M].

    network: h, a ``Network`` with the condition "mask", as ``posteriori train`` exports it for the
    objective ambient. mask: boolean, (H, W) or (1, H, W), like those that h was trained with:
    masks of the data of which a few more pixels are hidden. With pixels hidden D says less than
    E[x0 | x], the denoiser of the prior; it is that denoiser where M hides nothing.

    With DPS it is Ambient diffusion posterior sampling: the gradient goes through D, the
    likelihood has the operator of the measurement, whatever it is. Raises ``ValueError`` for a
    network without that condition, and for a mask that is not boolean, of another shape or False
    everywhere.

    Reference: Aali, Daras, Levac, Kumar, Dimakis, Tamir, Ambient diffusion posterior sampling,
    2025, section 3.
    """

    mask: Tensor

    def __init__(self, network: Network, mask: Tensor) -> None:
        known = getattr(network, "conditions", {}).get("mask")
        if known is None or network.schedule is not None:
            raise ValueError(
                f"Ambient needs a Network of parametrization 'edm' with the condition 'mask', as "
                f"objective: ambient trains it, got a {type(network).__name__} without"
            )
        flat = mask[None] if mask.ndim == 2 else mask
        if mask.dtype != torch.bool or flat.ndim != 3 or len(flat) != 1 or not bool(mask.any()):
            raise ValueError(
                f"Ambient needs a boolean mask (H, W), True where D may look, got {mask.dtype} "
                f"{tuple(mask.shape)} with {int(mask.sum())} of {mask.numel()}"
            )
        shape = (network.shape[0], *flat.shape[1:])
        super().__init__(shape, range=network.range, complex=False, **limits_of(network))
        network._check_shape(shape)
        self.network = network
        self.register_buffer("mask", flat)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        mask = self.mask.to(x.dtype)
        x0 = self.network.at(mask=mask).denoise(mask * x, sigma)
        assert self.network.sigma_data is not None  # the constructor asks for it
        return x0 * edm.of_hidden(sigma.to(x), self.network.sigma_data, mask)
