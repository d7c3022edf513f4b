"""Images by way of their latents: a prior of scaled latents with the autoencoder that makes images
of them.

    x = Dec(u / scale + shift),    u = (Enc(x) - shift) scale

The prior's coordinates are u. Methods see u, noise levels of u and the likelihood A(Dec(.)), which
is not linear; a linear autoencoder leaves a linear A linear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from posteriori.chart import Decoder
from posteriori.priors.autoencoders import Autoencoder, LinearAutoencoder
from posteriori.priors.base import Prior, Pull, check_shape, limits_of
from posteriori.priors.knowledge import Knowledge
from posteriori.settings import Positive

_Interval = tuple[float, float]
# Numbers of images that are decoded together.
IMAGE_NUMBERS_AT_ONCE = 2**20
# Of a prior of latents of any size, the side at which it is drawn from for the check.
CHECKED_SIDE = 32


class Latent(Prior):
    """``Latent(prior, autoencoder, scale=0.18215)``: images whose scaled latents are ``prior``'s.

    Parameters
    ----------
    prior: of scaled latents u, shape (C, h, w), with None for a side of any length. Its own range
        is not used.
    autoencoder: an ``Autoencoder`` or a ``LinearAutoencoder``.
    scale, shift: u = (z - shift) scale for what the encoder gives; numbers, or tensors that
        broadcast with a latent. ``scaling_factor`` and ``shift_factor`` of a diffusers
        configuration.
    range: of the images that the autoencoder makes; None where their numbers have no such meaning.
    at_once: images decoded, encoded or differentiated together; by default as many as hold a
        million numbers. Samples do not depend on it.
    probe: images (B, *E) in ``range``, such as the autoencoder was trained on, on which it and
        ``scale`` are checked. By default draws of the prior are: a linear autoencoder, or one that
        forgives a wrong scale, then passes with any scale.
    check: the round trip through the autoencoder and the variance of latents, here.
    round_trip: largest root mean square of Dec(Enc(x)) - x, over the standard deviation of x.
    variance_ratio: how many times larger or smaller than the prior's ``variance`` that of the
        scaled latents of x may be.

    Posteriors have ``shape`` and noise levels of u; ``Run.samples`` are images. ``sample`` gives
    images in ``range``; ``prior.sample`` its latents.
    Raises ``ValueError`` for a scale that is 0 or not finite, and where the check fails, with what
    was measured.
    """

    def __init__(
        self,
        prior: Prior,
        autoencoder: Autoencoder | LinearAutoencoder,
        *,
        scale: float | Tensor = 1.0,
        shift: float | Tensor = 0.0,
        range: _Interval | None = (-1.0, 1.0),
        at_once: int | None = None,
        probe: Tensor | None = None,
        check: bool = True,
        round_trip: Positive = 0.3,
        variance_ratio: Positive = 2.5,
    ) -> None:
        if prior.complex or isinstance(prior, Latent):
            raise ValueError(
                f"Latent needs a prior of real latents, got {type(prior).__name__}{prior.shape}"
            )
        super().__init__(prior.shape, range=None, complex=False, **limits_of(prior))
        units, origin = torch.as_tensor(scale), torch.as_tensor(shift)
        if not bool((units.isfinite() & (units != 0)).all()) or not bool(origin.isfinite().all()):
            raise ValueError(
                f"Latent: scale must be finite and not 0, and shift finite, got {scale} and {shift}"
            )
        # No buffers: a prior whose tensors have one precision is used as it is, not copied.
        self.scale, self.shift = scale, shift
        self.prior, self.autoencoder = prior, autoencoder
        self.image_range, self.at_once = range, at_once
        self.probe, self.round_trip, self.variance_ratio = probe, round_trip, variance_ratio
        if check:
            self._examine()

    def chart(self, range: _Interval | None, shape: tuple[int, ...]) -> Decoder:
        own, a, b = self.image_range, 1.0, 0.0
        if own is not None:
            if range is None:
                raise ValueError(
                    f"the autoencoder makes images in the range {own}; say in which range the "
                    "measurement is expressed, for example Likelihood(..., range=(0, 1)) or "
                    f"range={own}"
                )
            a = (range[1] - range[0]) / (own[1] - own[0])
            b = range[0] - a * own[0]
        latent = self.autoencoder.latent_shape(tuple(shape))
        try:
            check_shape(self.prior, latent)
        except ValueError:
            raise ValueError(
                f"images {tuple(shape)} have latents {latent}, the prior models latents "
                f"{tuple('any' if n is None else n for n in self.prior.shape)}"
            ) from None
        rows = self.at_once or max(1, IMAGE_NUMBERS_AT_ONCE // torch.Size(shape).numel())
        return Decoder(
            self.autoencoder, self.scale, self.shift, latent, tuple(shape), a, b, rows, range
        )

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.prior.denoise(x, sigma)

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        return self.prior.linearize(x, sigma)

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.prior.start(z, sigma)

    def at(self, /, **leaves: Tensor) -> Prior:
        """With other leaves of the prior of latents, by their own names."""
        return self.around(self.prior.at(**leaves)) if leaves else self

    def conditioned(
        self,
        text: str | None = None,
        *,
        guidance: float | tuple[float, float] = 1.0,
        negative: str | Mapping[str, Tensor] = "",
        **leaves: Tensor,
    ) -> Latent:
        """With the prior of latents conditioned."""
        told = self.prior.conditioned(text, guidance=guidance, negative=negative, **leaves)
        return self.around(told)

    def around(self, prior: Prior) -> Latent:
        """The same autoencoder, scale and shift with another prior of latents."""
        return Latent(
            prior,
            self.autoencoder,
            scale=self.scale,
            shift=self.shift,
            range=self.image_range,
            at_once=self.at_once,
            probe=self.probe,
            check=False,
            round_trip=self.round_trip,
            variance_ratio=self.variance_ratio,
        )

    def know(self) -> Knowledge:
        """That of the prior of latents: of u, whatever it says."""
        return replace(self.prior.know(), name=type(self).__name__)

    def sample(
        self, n: int, seed: int = 0, *, steps: int = 50, shape: tuple[int, ...] | None = None
    ) -> Tensor:
        """n images (n, *E) in ``range``: decoded draws of the prior of latents.

        shape: E, where latents may have any size.
        """
        latent = None if shape is None else self.autoencoder.latent_shape(tuple(shape))
        u = self.prior.sample(n, seed, steps=steps, shape=latent)
        image = self.autoencoder.image_shape(tuple(u.shape[1:]))
        with torch.no_grad():
            return self.chart(self.image_range, image).push(u)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        check_shape(self.prior, shape)

    def _linearize_at(
        self, x: Tensor, sigma: Tensor, leaves: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Pull]]:
        return self.prior._linearize_at(x, sigma, leaves)

    def _linearize_leaves(
        self, x: Tensor, sigma: Tensor, leaves: dict[str, Tensor]
    ) -> tuple[Tensor, Any]:
        return self.prior._linearize_leaves(x, sigma, leaves)

    @torch.no_grad()
    def _examine(self) -> None:
        """Images to latents and back, and how wide the latents are."""
        x, of = self.probe, "the probe images"
        if x is None:
            x, of = self._drawn(), "decoded draws of the prior"
        held = next(iter([*self.autoencoder.parameters(), *self.autoencoder.buffers()]), x)
        chart = self.chart(self.image_range, tuple(x.shape[1:]))
        x = x.to(held.device)
        u = chart.lift(x)
        gap = float((chart.push(u) - x).square().mean().sqrt() / x.std().clamp(min=1e-30))
        if not gap <= self.round_trip:
            raise ValueError(
                f"Latent: decoded latents of {of} differ from these by {gap:.3g} of their standard "
                f"deviation (at most {self.round_trip:g}): check that encode and decode are those "
                "of one autoencoder, take unscaled latents and images in the range "
                f"{self.image_range}, and scale and shift; check=False takes it as it is"
            )
        # Of a few images the spread of their numbers, of many draws that of each number.
        wide = float(u.var() if self.probe is not None else u.var(0).mean())
        if not self.variance / self.variance_ratio <= wide <= self.variance * self.variance_ratio:
            scale = float(torch.as_tensor(self.scale).double().mean())
            fitting = scale * (self.variance / max(wide, 1e-30)) ** 0.5
            raise ValueError(
                f"Latent: with scale={scale:.5g} the scaled latents of {of} have variance "
                f"{wide:.4g}, the prior claims {self.variance:.4g}; a scale of {fitting:.4g} would "
                "fit. Take scale and shift from the configuration that the autoencoder came with "
                "(scaling_factor, shift_factor); check=False takes it as it is"
            )

    def _drawn(self) -> Tensor:
        sides = tuple(CHECKED_SIDE if n is None else n for n in self.prior.shape)
        n, steps = (64, 1) if self.prior.know().closed is not None else (4, 8)
        image = self.autoencoder.image_shape(sides)
        u = self.prior.sample(n, steps=steps, shape=sides)
        held = next(iter([*self.prior.parameters(), *self.prior.buffers()]), u)
        return self.chart(self.image_range, image).push(u.to(held.device))


def image_sides(prior: Prior) -> tuple[int | None, ...]:
    """The shape of the images of a prior, with None for a side of any length: of a latent prior
    those that are decoded."""
    if not isinstance(prior, Latent):
        return prior.shape
    open_sides = [n is None for n in prior.shape]
    shape = prior.autoencoder.image_shape(tuple(1 if n is None else n for n in prior.shape))
    if not any(open_sides):
        return shape
    return tuple(None if free else n for free, n in zip(open_sides, shape, strict=True))
