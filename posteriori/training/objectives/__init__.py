"""What a network is trained to be, one paper one file: a loss of a batch, with the randomness of
its step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from posteriori.training.objectives import (
    ambient,
    autoencoder,
    coloured_noise,
    conditional,
    gsure,
    noise_maps,
    score_matching,
)

# Each takes the configuration of its own kind of run.
Loss = Callable[[nn.Module, Tensor, Any, int], Tensor]

# The M-step of "em" is score matching on the images of its E-step.
LOSSES: dict[str, Loss] = {
    "score-matching": score_matching.loss,
    "noise-maps": noise_maps.loss,
    "coloured-noise": coloured_noise.loss,
    "ambient": ambient.loss,
    "gsure": gsure.loss,
    "conditional": conditional.loss,
    "autoencoder": autoencoder.loss,
    "em": score_matching.loss,
}
