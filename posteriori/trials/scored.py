"""The numbers of one trial, as JSON values: what a diagnosis is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posteriori.evaluation import calibration
from posteriori.evaluation.distances import effective_size, flat, resample
from posteriori.evaluation.ensembles import crps
from posteriori.evaluation.rank_tests import order
from posteriori.likelihood import Posterior
from posteriori.run import Run
from posteriori.trials.functions import function_values

# Of these the levels are looked at that the samples can state.
RANK_LEVELS = (50, 80, 90, 95)
# With a multiple of ten of them minus one, ranks fall into equal bins; one more is a reference.
FEWEST = 20


def ranked_count(n: int) -> int:
    """How many of n >= 20 samples a truth is ranked among: of the others one is TARP's
    reference."""
    return n // 10 * 10 - 1


def equal_weights(run: Run, n: int, seed: int) -> Tensor:
    """n samples of a run that count alike, (n, *E)."""
    samples = run.samples
    if effective_size(run.log_w) < len(samples) - 1e-6:
        return resample(samples, run.log_w, n, seed)
    return samples[:n]


def scored_trial(
    samples: Tensor, truth: Tensor, post: Posterior, elsewhere: Tensor, seed: int
) -> dict[str, Any]:
    """samples: (n, *E), n >= 20, that count alike. elsewhere: an image independent of truth and
    samples. seed: breaks ties.

    ranks: of the truth among m = ``ranked_count`` samples, of each of ``function_values``. crps:
    of these samples. spread: (1 + 1 / m) times their variance; error: squared, of their mean; both
    averaged over numbers. chi2: of the samples; None without noise.
    members: of the truth, and of each sample in its place among the others, m + 1 numbers:
    distance, the mean of |x - X| over numbers and the others X; error, the squared distance to the
    mean of all; both over their mean. inside_80 ...: the share of numbers within the central
    intervals of the others. For exact samples these are exchangeable.
    """
    m = ranked_count(len(samples))
    among, near, truth = samples[:m], samples[m], truth.to(samples)
    values = function_values(post, torch.cat([truth[None], among]), elsewhere, near)
    pool = flat(torch.cat([truth[None], among]))
    members = {"distance": _distances(pool), "error": _errors(pool)}
    for level in RANK_LEVELS:
        if order(m, level) is not None:
            shares = calibration.members(among, truth, level / 100, seed=seed)
            members[f"inside_{level}"] = shares
    return {
        "ranks": calibration.ranks(values[1:], values[0], seed=seed)[0].tolist(),
        "crps": crps(pool[1:], pool[0]),
        "spread": float((1 + 1 / m) * pool[1:].var(0).mean()),
        "error": float((pool[1:].mean(0) - pool[0]).square().mean()),
        "chi2": float(post.given.chi2(among).mean()) if post.given.noise.std != 0 else None,
        "members": {name: numbers.tolist() for name, numbers in members.items()},
    }


def _distances(pool: Tensor) -> Tensor:
    far = torch.stack([(pool - x).abs().mean() for x in pool])
    return far / far.mean().clamp(min=1e-300)


def _errors(pool: Tensor) -> Tensor:
    far = (pool - pool.mean(0)).square().mean(1)
    return far / far.mean().clamp(min=1e-300)
