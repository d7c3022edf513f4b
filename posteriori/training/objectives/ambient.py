"""Ambient Diffusion: learn E[x0 | what is seen of x0 + sigma z] from images of which some pixels
were never measured.

    A of each image its mask, which is known        M = F A, F a further mask drawn at each step
    input   M (A x0 + sigma z) and M
    minimise  E w ||A (h(M x, M, sigma) - x0)||^2 / p,  p the measured share of the image,
              w that of ``priors.edm`` where M sees, 1 / d^2 elsewhere

The loss is over A, the pixels that were measured, not over M: h is then also taught pixels that it
does not see, and since it cannot tell those that F hid from those that A hid,

    h = E[x0 | M x, M]        wherever E[A^T A | M] has full rank

It has for F of independent pixels, each hidden with probability ``further``, as long as every pixel
is measured in some image. Masks must not depend on what they hide.

Reference: Daras, Shah, Dagan, Gollakota, Dimakis, Klivans, Ambient Diffusion: learning clean
distributions from corrupted data, 2023, equation 3.2 and theorem 4.2. Departs from the authors'
code: F is drawn anew at each step, where theirs is fixed for each image; a pixel that M hides is
preconditioned as one at the level infinity (``edm.of_hidden``), where theirs has the coefficients
of sigma, which vanish with it. Measurements with noise are refused: the target of the loss would be
noisy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posteriori.priors import edm
from posteriori.training.config import AmbientObjective, TrainingConfig
from posteriori.training.objectives.noise import (
    autocast_of,
    drawn,
    numbers_and_mask,
    over_measured,
    unit_weight,
)


def loss(network: nn.Module, batch: Tensor, config: TrainingConfig, step: int) -> Tensor:
    """The loss of one batch (0-d), with noise and further masks drawn from (seed, step).

    network: called with images, labels and masks (B, 1, H, W). batch: (B, C + 1, H, W), see
    ``noise.numbers_and_mask``.
    """
    assert isinstance(config.objective, AmbientObjective)
    x0, mask = numbers_and_mask(batch)
    level, z, rng = drawn(x0, config, step)
    kept = torch.from_numpy(rng.random(tuple(mask.shape)) >= config.objective.further).to(mask)
    seen = mask * kept
    out = edm.denoise(
        lambda x, label: network(x, label, seen),
        seen * (x0 + level * z),
        level.flatten(),
        config.sigma_data,
        autocast_of(config),
    )
    out = out * edm.of_hidden(level, config.sigma_data, seen)
    weight = seen * unit_weight(level, config.sigma_data) + (1 - seen) / config.sigma_data**2
    return over_measured(weight * (out - x0).square(), mask).mean()
