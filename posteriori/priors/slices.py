"""Volumes and videos whose slices are independent images of one prior."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posteriori.priors.base import Prior, Pull
from posteriori.priors.frequencies import Covariance
from posteriori.rng import Noise

# Numbers of an image that are worked on together, where the user does not say how many slices are.
AT_ONCE = 2**20


class Slices(Prior):
    """x of shape (D, *E), each of its D slices an independent image of ``prior``; D slices are D rows to the network.

    Parameters
    ----------
    prior: of one slice, of shape E.
    depth: D; None for any.
    at_once: slices worked on together; by default as many as hold a million numbers. J^T u is computed anew from as many slices at a
        time, at one more denoiser call each that is not counted, so that memory does not grow with D. Samples do not depend on it.

    What ties slices together is for the operator, or for a method with a term along the first axis. Raises ``ValueError`` for a depth or
    ``at_once`` below 1.
    """

    def __init__(self, prior: Prior, depth: int | None = None, *, at_once: int | None = None) -> None:
        for name, value in (("depth", depth), ("at_once", at_once)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"Slices: {name} must be an integer >= 1, got {value!r}")
        super().__init__(
            (depth, *prior.shape),
            range=prior.range,
            variance=prior.variance,
            sigma_max=prior.sigma_max,
            sigma_min=prior.sigma_min,
            spread=prior.spread,
            complex=prior.complex,
        )
        self.prior, self.at_once = prior, at_once

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._cut(lambda part: self.prior.denoise(part, sigma), x)

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        if x.shape[0] * x.shape[1] <= self._rows(x):
            x0, pull = self.prior.linearize(x.flatten(0, 1), sigma)
            return x0.view(x.shape), lambda u: pull(u.flatten(0, 1)).view(x.shape)
        with torch.no_grad():
            x0 = self.denoise(x, sigma)
        return x0, lambda u: self._cut(lambda part, v: self.prior.linearize(part, sigma)[1](v), x, u)

    def _rows(self, x: Tensor) -> int:
        return self.at_once or max(1, AT_ONCE // x[0, 0].numel())

    def _cut(self, of: Callable[..., Tensor], *parts: Tensor) -> Tensor:
        """``of`` on a few slices at a time."""
        cuts = zip(*(part.flatten(0, 1).split(self._rows(part)) for part in parts), strict=True)
        return torch.cat([of(*cut) for cut in cuts]).view(parts[0].shape)

    def error(self, sigma: Tensor | float) -> float:
        return self.prior.error(sigma)

    def widest_error(self, sigma: Tensor | float) -> float:
        return self.prior.widest_error(sigma)

    def spectral_error(self, sigma: Tensor | float) -> Tensor:
        """Of each slice: *E, which broadcasts against (D, *E). Raises ``TypeError`` where it is not known, and for slices of one axis."""
        if len(self.prior.shape) < 2:
            raise TypeError(f"the cosine transform is over two axes of an image, slices of shape {self.prior.shape} have one")
        return self.prior.spectral_error(sigma)

    def covariance_of_error(self, sigma: Tensor | float, shape: tuple[int, ...]) -> Covariance | None:
        return self.prior.covariance_of_error(sigma, shape[1:])

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        x0, variance = self.prior.moments(x.flatten(0, 1), sigma)
        return x0.view(x.shape), variance.view(x.shape)

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        return self.prior.log_prob(x.flatten(0, 1), sigma).view(x.shape[:2]).sum(1)

    def ladder(self) -> Tensor:
        return self.prior.ladder()

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.prior.start(z.flatten(0, 1), sigma).view(z.shape)

    def draw_given(self, x: Tensor, sigma: Tensor, rng: Noise) -> Tensor:
        return self.prior.draw_given(x.flatten(0, 1), sigma, _OfSlices(rng, x.shape[1])).view(x.shape)

    def at_work(self, device: torch.device, dtype: torch.dtype) -> Prior:
        inner = self.prior.at_work(device, dtype)
        return self if inner is self.prior else Slices(inner, self.shape[0], at_once=self.at_once)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        super().check_shape(shape)
        self.prior.check_shape(shape[1:])


class _OfSlices:
    """The random numbers of volumes, for their slices as rows."""

    def __init__(self, rng: Noise, depth: int) -> None:
        self.rng, self.depth = rng, depth

    def normal(self, like: Tensor) -> Tensor:
        return self.rng.normal(like.view(-1, self.depth, *like.shape[1:])).flatten(0, 1)

    def uniform(self, count: int) -> Tensor:
        return self.rng.uniform(self.depth * count).view(-1, count)
