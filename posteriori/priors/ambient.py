"""A network that learned from masked images, seen through one mask or several: the denoiser of
Ambient posterior sampling."""

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

    What one mask hides from every step stays an average. Several masks (K, H, W), made by
    ``complementary_masks``, each ask h for what it was trained to say, and together look at every
    pixel:

        D_i = sum_k w_k(i) h(M_k x, M_k, sigma)_i / sum_k w_k(i)
        w_k(i) = 1 / c_out(i)^2: 1 / sigma^2 + 1 / d^2 where M_k sees pixel i, else 1 / d^2

    d = sigma_data, c_out as in ``priors.edm``: weights are as for independent estimates with the
    errors that c_out assumes. It costs K calls of h. D still knows less than E[x0 | x], since each
    of its parts sees a part of x.

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
        if mask.dtype != torch.bool or flat.ndim != 3 or not bool(flat.any((1, 2)).all()):
            raise ValueError(
                f"Ambient needs a boolean mask (H, W), or several (K, H, W), True where D may "
                f"look, got {mask.dtype} {tuple(mask.shape)} with {int(mask.sum())} of "
                f"{mask.numel()}"
            )
        shape = (network.shape[0], *flat.shape[1:])
        super().__init__(shape, range=network.range, complex=False, **limits_of(network))
        network._check_shape(shape)
        self.network = network
        self.register_buffer("mask", flat)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        d, masks = self.network.sigma_data, self.mask.to(x.dtype)
        assert d is not None  # the constructor asks for it
        if len(masks) == 1:
            return self._through(masks, x, sigma, d)
        # w of the class docstring over its value where a pixel is seen.
        hidden = sigma.to(x) ** 2 / (sigma.to(x) ** 2 + d**2)
        total, sum_w = torch.zeros_like(x), torch.zeros_like(masks[:1])
        for mask in masks[:, None]:
            w = mask + (1 - mask) * hidden
            total, sum_w = total + w * self._through(mask, x, sigma, d), sum_w + w
        return total / sum_w

    def _through(self, mask: Tensor, x: Tensor, sigma: Tensor, d: float) -> Tensor:
        """h(M x, M, sigma) of one mask (1, H, W)."""
        x0 = self.network.at(mask=mask).denoise(mask * x, sigma)
        return x0 * edm.of_hidden(sigma.to(x), d, mask)


def complementary_masks(height: int, width: int, pairs: int = 2, seed: int = 0) -> Tensor:
    """(2 pairs, height, width) boolean: a random half of the pixels, the other half, and so on."""
    generator = torch.Generator().manual_seed(seed)
    first = [
        torch.rand(height * width, generator=generator).argsort().argsort() < height * width // 2
        for _ in range(pairs)
    ]
    both = [mask for half in first for mask in (half, ~half)]
    return torch.stack(both).view(2 * pairs, height, width)
