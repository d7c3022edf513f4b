"""Volumes seen along several axes: a prior with its axes turned, and the average of such priors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from posteriori.priors.anisotropic import WhiteOnly
from posteriori.priors.base import Prior, Pull, check_shape, limits_of
from posteriori.priors.knowledge import Knowledge


class Turned(Prior):
    """x whose axes, put in another order, are an image of ``prior``:  D(x) = P^T D_prior(P x).

    axes: axis k of the prior's images is axis axes[k] of x, the axes of one image counted from 0.
    Of volumes (D, C, H, W) the slices across H are ``Turned(Slices(prior), (2, 1, 0, 3))``, images
    (C, D, W). Raises ``ValueError`` for axes that are no order of the prior's.
    """

    def __init__(self, prior: Prior, axes: Sequence[int]) -> None:
        axes = tuple(axes)
        if sorted(axes) != list(range(len(prior.shape))):
            raise ValueError(
                f"Turned: axes must be 0 to {len(prior.shape) - 1} in some order, got {axes}"
            )
        back = tuple(axes.index(k) for k in range(len(axes)))
        super().__init__(
            tuple(prior.shape[k] for k in back),
            range=prior.range,
            complex=prior.complex,
            **limits_of(prior),
        )
        self.prior, self.axes, self.back = prior, axes, back

    def _turn(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.permute(0, *(1 + k for k in axes)).contiguous()

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._turn(self.prior.denoise(self._turn(x, self.axes), sigma), self.back)

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        x0, pull = self.prior.linearize(self._turn(x, self.axes), sigma)
        return self._turn(x0, self.back), lambda u: self._turn(
            pull(self._turn(u, self.axes)), self.back
        )

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self._turn(self.prior.start(self._turn(z, self.axes), sigma), self.back)

    def at(self, /, **leaves: Tensor) -> Prior:
        return Turned(self.prior.at(**leaves), self.axes)

    def know(self) -> Knowledge:
        """That of the prior, without what is told axis by axis, and without a closed form."""
        return replace(
            self.prior.know(),
            name=type(self).__name__,
            spectrum=None,
            covariance=None,
            predicted=None,
            anisotropic=WhiteOnly(self),
            closed=None,
            views=(),
            patch=None,
        )

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        super()._check_shape(shape)
        check_shape(self.prior, tuple(shape[k] for k in self.axes))


class AveragedScores(Prior):
    """D = sum_k w_k D_k of several priors of the same images: the weighted mean of their scores at
    each noise level.

    At no noise this is the score of the product of the priors to the powers w_k; at noise it is not
    the score of that product with noise, so that samples are near the product and not of it. What
    two priors of perpendicular slices that take turns (``methods.TPDM``) tend to.

    priors: at least one. weights: normalised; equal when None. ``know().error`` is the weighted
    mean of theirs, ``know().views`` the priors themselves. Raises ``ValueError`` for shapes, ranges
    or kinds of number that differ, and weights that are not as many numbers > 0.
    """

    def __init__(self, priors: Sequence[Prior], weights: Sequence[float] | None = None) -> None:
        priors = list(priors)
        given = [1.0] * len(priors) if weights is None else [float(w) for w in weights]
        if not priors or len(given) != len(priors) or not all(0 < w < float("inf") for w in given):
            raise ValueError(
                f"AveragedScores needs priors and as many weights > 0, got {len(priors)} priors "
                f"and weights {given}"
            )
        first = priors[0]
        for prior in priors[1:]:
            if (prior.shape, prior.range, prior.complex) != (
                first.shape,
                first.range,
                first.complex,
            ):
                raise ValueError(
                    f"AveragedScores: the priors are of images of one shape, range and kind, got "
                    f"{first!r} and {prior!r}"
                )
        self_weights = [w / sum(given) for w in given]
        super().__init__(
            first.shape,
            range=first.range,
            complex=first.complex,
            variance=sum(w * p.variance for w, p in zip(self_weights, priors, strict=True)),
            max_std=max(p.max_std for p in priors),
            sigma_max=max(p.sigma_max for p in priors),
            sigma_min=min(p.sigma_min for p in priors),
        )
        self.priors, self.weights = nn.ModuleList(priors), self_weights

    @property
    def views(self) -> tuple[Prior, ...]:
        return tuple(self.priors)  # type: ignore[arg-type]

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for w, prior in zip(self.weights, self.views, strict=True):
            out = out + w * prior.denoise(x, sigma)
        return out

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        parts = [prior.linearize(x, sigma) for prior in self.views]
        mean = sum(w * x0 for w, (x0, _) in zip(self.weights, parts, strict=True))
        assert isinstance(mean, Tensor)

        def pull(u: Tensor) -> Tensor:
            total = torch.zeros_like(u)
            for w, (_, back) in zip(self.weights, parts, strict=True):
                total = total + w * back(u)
            return total

        return mean, pull

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.views[0].start(z, sigma)

    def know(self) -> Knowledge:
        """Its error as the mean of theirs, which it is at most where they are exact for the same
        images; no density."""

        def error(sigma: Tensor | float) -> float:
            return sum(
                w * p.know().error(sigma) for w, p in zip(self.weights, self.views, strict=True)
            )

        return replace(super().know(), error=error, views=self.views)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        super()._check_shape(shape)
        for prior in self.views:
            check_shape(prior, shape)
