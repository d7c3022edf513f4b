"""Numbers that were rounded after the noise came, as those of an 8-bit picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.noise.base import NoiseLaw, check_numbers
from posteriori.rng import Streams
from posteriori.settings import Number, Positive


@dataclass(frozen=True)
class Quantised(NoiseLaw):
    """y = the multiple of ``step`` nearest to A x + sigma z, within [low, high].

        P(y) = Phi((y + h - c) / sigma) - Phi((y - h - c) / sigma),   c = A x, h = step / 2

    and all that lies beyond for the y at an end. ``log_prob`` is of the probability of y, not of a
    density. step: the distance of two values of y, such as 1 / 255 of pictures in [0, 1]. sigma: of
    the noise before. low, high: multiples of step, or None for no end.
    """

    sigma: Positive
    step: Positive
    low: Number | None = None
    high: Number | None = None

    def check_kind(self, y: Tensor) -> None:
        check_numbers(y, False, "Quantised")
        off = (y / self.step - (y / self.step).round()).abs()
        # A 32-bit number of a picture in [0, 1] is right to 1e-7.
        if float(off.max()) > 1e-2:
            raise ValueError(
                f"Quantised: y are multiples of step = {self.step:g}, one is "
                f"{float(off.max()):.2g} steps off; was y scaled, or rounded by another step?"
            )

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        check_numbers(clean, False, "Quantised")
        noisy = clean + self.sigma * rng.normal(clean)
        ends = (-math.inf if self.low is None else self.low, self.high)
        return ((noisy / self.step).round() * self.step).clamp(*ends)

    def _ends(self, y: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of the cell of y, in standard deviations from the clean number."""
        h, slack = self.step / 2, 0.25 * self.step
        a, b = (y - h - clean) / self.sigma, (y + h - clean) / self.sigma
        if self.low is not None:
            a = torch.where(y <= self.low + slack, -math.inf, a)
        if self.high is not None:
            b = torch.where(y >= self.high - slack, math.inf, b)
        return a, b

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        check_numbers(clean, False, "Quantised")
        return self.log_prob_each(y, clean).flatten(1).sum(1)

    def log_prob_each(self, y: Tensor, clean: Tensor) -> Tensor:
        return _log_between(*self._ends(y, clean))

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """(phi(a) - phi(b)) / (sigma P), a and b the ends of the cell."""
        a, b = self._ends(y, clean)
        log_p = _log_between(a, b)
        at_a, at_b = (
            (-0.5 * v.square() - 0.5 * math.log(2 * math.pi) - log_p).exp() for v in (a, b)
        )
        return (at_a - at_b) / self.sigma

    def variance(self, y: Tensor) -> Tensor:
        """That of the noise and of rounding, step^2 / 12."""
        found = self.sigma**2 + self.step**2 / 12
        return torch.as_tensor(found, dtype=y.dtype, device=y.device)

    def scaled(self, factor: float) -> Quantised:
        low, high = (None if v is None else v * factor for v in (self.low, self.high))
        low, high = (low, high) if factor > 0 else (high, low)
        return Quantised(self.sigma * abs(factor), self.step * abs(factor), low, high)


def _log_between(a: Tensor, b: Tensor) -> Tensor:
    """log(Phi(b) - Phi(a)) for a < b, also far out in either tail: on the side where both are
    small."""
    turn = a > 0
    low, high = torch.where(turn, -b, a), torch.where(turn, -a, b)
    top, bottom = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    gap = torch.where(bottom.isneginf(), -math.inf, bottom - top)
    return top + torch.log(-torch.expm1(gap))
