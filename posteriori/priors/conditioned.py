"""A prior that is told what its images show: a sentence, an embedding, a class, and how much that
counts.

    D = D_0 + w (D_c - D_0)      D_c(x, sigma) = E[x0 | x, c],  D_0 without c

    prior.conditioned(text="a nine", guidance=2.0)              words, by the prior's text encoder
    prior.conditioned(embedding=e)                              what the encoder gives, or any other
    prior.conditioned(class_labels=c, negative={"class_labels": none}, guidance=1.5)
    prior.conditioned(text="Axial T2, brain, 3 T, slice 12")    metadata written as a sentence

w = 0 is the prior without c, w = 1 that given c, both at one network pass. Any other w is
classifier-free guidance at two passes, in one call of the network. Guided D is the denoised image
of no fixed density.

    prior.conditioned(text="a nine", guidance=(1.0, 4.0))       w along the noise levels

A pair is w at noise and at data, linear in the time t = sigma / (1 + sigma) of a flow between them
for images in [-1, 1]: a large w at the first levels works against the data (Bang et al., Triadic
dynamics aware diffusion posterior sampling for inverse problems, 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from posteriori.chart import Chart
from posteriori.priors.anisotropic import WhiteOnly
from posteriori.priors.base import Prior, Pull, check_shape, limits_of
from posteriori.priors.knowledge import Knowledge, Sides
from posteriori.priors.leaves import rows_of_leaves

NEGATIVE = "negative_"
Guidance = float | tuple[float, float]


class Conditioned(Prior):
    """``prior`` given c, under classifier-free guidance; made by ``Prior.conditioned``.

    Parameters
    ----------
    condition: leaves of ``prior`` that are c, by name; one for all rows or one per row.
    negative: those of D_0; none for the prior as it is.
    guidance: w, a finite number, or the pair of its values at noise and at data.

    The leaves of ``at`` are those of the prior, and "negative_" with the name of each leaf in
    ``negative``: what text-driven methods tune.
    Raises ``ValueError`` as ``Prior.at`` does.

    Reference: Ho, Salimans, Classifier-free diffusion guidance, 2022, equation 6, where w is one
        less. Metadata as the sentence: Chung, Lee, Wu, Bell, Bouman, Ye, ContextMRI, 2025.
    """

    def __init__(
        self,
        prior: Prior,
        condition: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None = None,
        guidance: Guidance = 1.0,
    ) -> None:
        condition, negative = dict(condition), dict(negative or {})
        for leaves in (condition, negative):
            rows_of_leaves(prior, leaves)
        told = prior.at(**(condition if guidance else negative))
        super().__init__(prior.shape, range=prior.range, complex=prior.complex, **limits_of(told))
        self.prior, self.own_precision = prior, prior.own_precision
        self.condition, self.negative = condition, negative
        self.guidance: Guidance = (
            (float(guidance[0]), float(guidance[1]))
            if isinstance(guidance, tuple | list)
            else float(guidance)
        )

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.guidance in (0, 1):
            return self._told().denoise(x, sigma)
        return self._pair(x, sigma)[0]

    def _told(self) -> Prior:
        """The prior given c; without it at guidance 0."""
        return self.prior.at(**(self.condition if self.guidance else self.negative))

    def _pair(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """D and D_0, at two network passes a row: in one call where both have the same leaves."""
        if self.condition.keys() == self.negative.keys():
            known = self.prior.know().leaves()
            both = {
                name: torch.cat(
                    [_each(part[name], known[name], x) for part in (self.condition, self.negative)]
                )
                for name in self.condition
            }
            given, free = self.prior.at(**both).denoise(torch.cat([x, x]), sigma).chunk(2)
        else:
            given, free = (
                self.prior.at(**part).denoise(x, sigma) for part in (self.condition, self.negative)
            )
        return free + self._weight(sigma) * (given - free), free

    def _weight(self, sigma: Tensor) -> float:
        if isinstance(self.guidance, float):
            return self.guidance
        unit = 1.0 if self.range is None else 0.5 * (self.range[1] - self.range[0])
        noise, data = self.guidance
        return data + (noise - data) * float(sigma) / (unit + float(sigma))

    def _guided(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Pull]:
        """``Knowledge.guided``."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            x0, free = self._pair(leaf, sigma)

        def pull(u: Tensor) -> Tensor:
            return torch.autograd.grad(x0, leaf, u, retain_graph=True)[0]

        return x0.detach(), free.detach(), pull if x0.requires_grad else torch.zeros_like

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self._told().start(z, sigma)

    def chart(self, range: tuple[float, float] | None, shape: tuple[int, ...]) -> Chart:
        return self.prior.chart(range, shape)

    def at(self, /, **leaves: Tensor) -> Prior:
        tuned = {name for name in leaves if name in self.condition}
        against = {
            name
            for name in leaves
            if name.startswith(NEGATIVE) and name.removeprefix(NEGATIVE) in self.negative
        }
        rest = {name: value for name, value in leaves.items() if name not in tuned | against}
        return Conditioned(
            self.prior.at(**rest),
            self.condition | {name: leaves[name] for name in tuned},
            self.negative | {name.removeprefix(NEGATIVE): leaves[name] for name in against},
            self.guidance,
        )

    def know(self) -> Knowledge:
        """That of the prior given c (without it at guidance 0). Under any other guidance than 0
        and 1 it has no closed form, and denoisers under white noise alone."""
        known = self._told().know()
        mine = replace(
            known,
            leaves=self._leaves_known,
            adjustable=lambda: known.adjustable() | self._adjustable(),
            guided=self._guided,
        )
        if self.guidance in (0, 1):
            return mine
        return replace(
            mine,
            name=type(self).__name__,
            predicted=None,
            views=(),
            closed=None,
            anisotropic=WhiteOnly(self),
            passes=2 * known.passes,
        )

    def _leaves_known(self) -> dict[str, Sides]:
        known = self.prior.know().leaves()
        return known | {NEGATIVE + name: known[name] for name in self.negative}

    def _adjustable(self) -> dict[str, Tensor]:
        """Those of the condition that are one for all rows and no whole numbers."""
        named = self.condition | {NEGATIVE + name: value for name, value in self.negative.items()}
        known = self._leaves_known()
        return {
            name: value.detach()
            for name, value in named.items()
            if value.is_floating_point() and value.ndim == len(known[name])
        }

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        check_shape(self.prior, shape)


def conditioned(
    prior: Prior,
    text: str | None,
    guidance: Guidance,
    negative: str | Mapping[str, Tensor],
    leaves: Mapping[str, Tensor],
) -> Conditioned:
    """See ``Prior.conditioned``."""
    encode = prior.know().text
    if (text is None) == (not leaves):
        got = "neither" if text is None else f"text={text!r} and {', '.join(leaves)}"
        raise ValueError(
            f"a condition is a text, or leaves of the prior ({_named(prior)}), got {got}"
        )
    if text is not None:
        leaves = _encoder(prior, encode, text)(text)
    if isinstance(negative, str):
        if negative:
            negative = _encoder(prior, encode, negative)(negative)
        else:  # the empty text, of a prior that reads none: what it does when it is told nothing
            negative = {} if encode is None else encode("")
            negative = negative if negative.keys() == leaves.keys() else {}
    return Conditioned(prior, leaves, negative, guidance)


def _encoder(
    prior: Prior, encode: Callable[[str], dict[str, Tensor]] | None, text: str
) -> Callable[[str], dict[str, Tensor]]:
    if encode is None:
        raise ValueError(
            f"{type(prior).__name__} has no text encoder to read {text!r}; give its leaves instead "
            f"({_named(prior)}), or a prior with one, such as priors.text_digits()"
        )
    return encode


def _named(prior: Prior) -> str:
    names = [name for name in prior.know().leaves() if "." not in name]
    return ", ".join(names[:6]) or "it has none"


def _each(value: Tensor, sides: Sides, x: Tensor) -> Tensor:
    """One value of a leaf for each row of x."""
    return value.expand(len(x), *value.shape) if value.ndim == len(sides) else value
