"""Where the time of a run goes: the denoiser, its derivatives, and what is left."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from posteriori.priors.base import Prior


def timed(prior: Prior) -> tuple[Prior, dict[str, float]]:
    """A twin of the prior, and the seconds spent in its ``linearize`` ("denoiser") and in the
    products that it hands out ("vjp")."""
    twin, spent = copy.copy(prior), {"denoiser": 0.0, "vjp": 0.0}

    def watch(kind: str, call: Callable[..., Any], *given: Any) -> Any:
        began = time.perf_counter()
        out = call(*given)
        spent[kind] += time.perf_counter() - began
        return out

    def linearize(x: Tensor, sigma: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        x0, pull = watch("denoiser", prior.linearize, x, sigma)
        return x0, lambda u: watch("vjp", pull, u)

    twin.__dict__["linearize"] = linearize
    return twin, spent
