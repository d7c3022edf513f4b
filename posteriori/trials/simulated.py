"""Truths drawn from the prior, and their measurements by the problem's own operator and noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.problem_file.reading import simulate
from posteriori.run import read_arrays, write_arrays

# A run draws from the streams (seed, k): truths and their noise have seeds of their own.
TRUTH_SEED, NOISE_SEED = 2**33, 2**34
# Steps of Heun's rule in which a prior without exact draws makes a truth.
TRUTH_STEPS = 32


class Trial(NamedTuple):
    """A truth (*E), as the operator takes it, and the posterior of its measurement."""

    truth: Tensor
    posterior: Posterior


def trial_of(post: Posterior, truth: Tensor, seed: int) -> Trial:
    """The trial of a truth of the user's (*E), as the operator takes it; seed: of its noise.

    Raises ``ValueError`` for a truth of another shape.
    """
    given = post.given
    if tuple(truth.shape) != tuple(given.A.in_shape):
        raise ValueError(
            f"a truth has the shape {tuple(truth.shape)}, images here have {given.A.in_shape}"
        )
    y = simulate(given.A, truth, given.noise, NOISE_SEED + seed).to(given.y)
    return Trial(truth, Posterior(post.prior, replace(given, y=y, check=False)))


def drawn_truths(post: Posterior, count: int, seed: int, place: Path | None = None) -> Tensor:
    """``count`` images of the prior as the operator takes them, (count, *E), the k-th a function of
    (seed, k); clipped to the range where the law of noise knows no number below 0. place: a file in
    which they are kept."""
    if place is not None and place.exists():
        kept = read_arrays(place)[0]["truths"]
        if len(kept) >= count:
            return kept[:count].to(post.given.y.device)
    with torch.no_grad():
        u = post.prior.sample(count, TRUTH_SEED + seed, steps=TRUTH_STEPS, shape=post.shape)
        kind = post.given.y.real.dtype
        u = u.to(post.given.y.device, kind.to_complex() if u.is_complex() else kind)
        truths = post.to_given(u)
        # Counts have no law of an image that is a little below 0, as a network draws it.
        if post.given.range is not None and post.given.noise.support[0] >= 0:
            truths = truths.clamp(*post.given.range)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(place, {"truths": truths})
    return truths


def simulated_trials(
    post: Posterior, count: int, seed: int = 0, place: Path | None = None
) -> list[Trial]:
    """Trials whose truths are draws of the prior, the k-th a function of (seed, k)."""
    truths = drawn_truths(post, count, seed, place)
    return [trial_of(post, truth, seed + k) for k, truth in enumerate(truths)]
