"""A prior learned from measurements alone, by expectation maximisation.

    E   one image x_i ~ p(x | y_i) for each measurement, under the prior so far
    M   the prior that fits these images best

The images are samples: their mean is the prior's, their spread is that of the images, while
posterior means are too alike. No measurement needs to determine its image; all of them together
need to determine the distribution.

Reference: Rozet, Andry, Lanusse, Louppe, Learning diffusion priors from observations by expectation
maximization, 2024, algorithm 1. Their E-step is ``methods.MMPS``; their M-step, denoising score
matching; for a Gaussian family the M-step is mean and covariance.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from posteriori.diagnostics import RunWarning
from posteriori.each import sample_each
from posteriori.likelihood import Likelihood
from posteriori.methods.base import Method
from posteriori.priors.base import Prior
from posteriori.priors.mixture import Gaussian


def expectation(
    prior: Prior, likelihoods: Sequence[Likelihood], method: Method[Any], *, steps: int, seed: int
) -> Tensor:
    """One posterior sample for each measurement, in their order: (N, *E), in the range of the
    likelihoods. That of measurement i has the seed ``seed + i``. Raises ``FloatingPointError``
    where one diverged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)  # one sample tells little of a measurement
        runs = sample_each(prior, likelihoods, method, steps=steps, seed=seed)
    lost = [i for i, run in enumerate(runs) if not len(run.samples)]
    if lost:
        raise FloatingPointError(
            f"{len(lost)} of {len(runs)} posterior samples diverged, the first of measurement "
            f"{lost[0]}: {runs[lost[0]].status[0]}"
        )
    return torch.stack([run.samples[0] for run in runs])


def laps(
    start: Prior,
    likelihoods: Sequence[Likelihood],
    maximise: Callable[[Tensor, Prior], Prior],
    method: Method[Any],
    *,
    steps: int,
    seed: int = 0,
) -> Iterator[tuple[Prior, Tensor]]:
    """The prior after each lap and the images that it was fitted to, without end.

    maximise: from images (N, *E) and the prior so far to the next prior. Lap k draws with the seeds
    from ``seed + k N`` on.
    """
    prior, number = start, 0
    while True:
        images = expectation(
            prior, likelihoods, method, steps=steps, seed=seed + number * len(likelihoods)
        )
        prior = maximise(images, prior)
        yield prior, images
        number += 1


def gaussian(images: Tensor, before: Prior) -> Gaussian:
    """The M-step of the Gaussian family: N(mean, covariance) of the images (N, *E)."""
    flat = images.flatten(1)
    return Gaussian(
        flat.mean(0).view(images.shape[1:]), flat.T.cov(correction=0), range=before.range
    )
