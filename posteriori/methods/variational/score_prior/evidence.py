"""What the draws of a fitted q say of log p(y), and whether q has lost a part of the posterior.

    bound       E log p(x) p(y | x) / q(x) <= log p(y)
    evidence    log mean p(x) p(y | x) / q(x), x ~ q, which does not know of a mode that q has lost
    defensive   the same with draws of q and of the prior, weighed by their mixture (q + p) / 2: it
                sees such a mode when the prior finds it
    gap         the larger of the two, less the bound: -log(1 - w) when modes of mass w are lost and
                the rest is fitted

``defensive`` counts only where its effective sample size is 10 or more: one lucky draw of the prior
says nothing.

Source: Hesterberg, Weighted average importance sampling and defensive mixture distributions, 1995.
"""

from __future__ import annotations

import itertools
import math
import warnings

import torch
from torch import Tensor

from posteriori import grid
from posteriori.likelihood import Posterior
from posteriori.methods.transitions import Heun
from posteriori.methods.variational.score_prior.fit import FitFrame, VariationalFit
from posteriori.methods.variational.score_prior.flows import Family
from posteriori.priors import log_density as densities
from posteriori.rng import Rng

# Modes of a quarter of the mass.
GAP = 0.3
SOUND = 10


def finish(
    post: Posterior,
    family: Family,
    fit: VariationalFit,
    frame: FitFrame,
    rng: Rng,
    weigh_up_to: int,
) -> tuple[VariationalFit, dict[str, Tensor]]:
    """The fit with draws of q, their log-weights and the bound, and the quantities above for each
    row. Warns of a gap above 0.3.

    Images of more than ``weigh_up_to`` numbers get log-weights 0, and only the bound, made with
    that of log p(x).
    """
    groups = len(fit.params)
    z = rng.normal(frame.numbers(fit.x).flatten(0, 1)).view(groups, frame.rows, -1)
    x = frame.images(family.push(fit.params, z)[0])
    if z.shape[-1] > weigh_up_to:
        log_p = densities.evidence_bound(post.prior, x, rng)
        bound = (
            (log_p + _log_like(post, x) - frame.log_q(family, fit.params, x))
            .view(groups, -1)
            .mean(1)
        )
        return fit._replace(x=x, bound=bound), {"bound": bound.repeat_interleave(frame.rows)}
    log_w = (
        densities.log_density(post.prior, x)
        + _log_like(post, x)
        - frame.log_q(family, fit.params, x)
    )
    found = _evidence(post, family, fit.params, frame, x, log_w, rng)
    worst = float(found["gap"].nan_to_num(0.0).max())
    if worst > GAP:
        warnings.warn(
            f"the evidence bound of a fit lies {worst:.2f} below the evidence, as if modes of "
            f"{100 * (1 - math.exp(-worst)):.0f} % of "
            "the posterior were lost: use more updates, annealing or a wider family; weights "
            "correct only what the fit covers",
            stacklevel=3,
        )
    return fit._replace(x=x, log_w=log_w, bound=found["bound"]), {
        k: v.repeat_interleave(frame.rows) for k, v in found.items()
    }


def _evidence(
    post: Posterior,
    family: Family,
    params: Tensor,
    frame: FitFrame,
    x: Tensor,
    log_w: Tensor,
    rng: Rng,
) -> dict[str, Tensor]:
    """bound, evidence, defensive, gap and the effective sample size of log_w for each group: (G,)
    float64."""
    both = torch.cat(
        [v.view(-1, frame.rows, *v.shape[1:]) for v in (x, _prior_draws(post, x, rng))], 1
    ).flatten(0, 1)
    wide = FitFrame(frame.m, frame.scale, 2 * frame.rows)
    log_p = densities.log_density(post.prior, both)
    mixed = torch.logaddexp(wide.log_q(family, params, both), log_p) - math.log(2)
    w, log_w = (
        (log_p + _log_like(post, both) - mixed).view(-1, wide.rows),
        log_w.view(-1, frame.rows),
    )
    bound, plain, defensive = (
        log_w.mean(1),
        log_w.logsumexp(1) - math.log(frame.rows),
        w.logsumexp(1) - math.log(wide.rows),
    )
    ess, sound = (1 / v.softmax(1).square().sum(1) for v in (log_w, w))
    higher = torch.where(sound >= SOUND, torch.maximum(plain, defensive), plain)
    return {
        "bound": bound,
        "evidence": plain,
        "defensive": defensive,
        "gap": higher - bound,
        "ess": ess,
    }


def _log_like(post: Posterior, x: Tensor) -> Tensor:
    """log p(y | x) in the user's units, float64: log p(y) is a density of y as it was measured."""
    return post.given.log_prob(post.to_given(x)).double()


def _prior_draws(post: Posterior, x: Tensor, rng: Rng, steps: int = 40) -> Tensor:
    """As many images of the prior as there are in x, by its probability-flow ODE."""
    levels = grid.log(steps, post.prior.sigma_max, post.prior.sigma_min)[:-1]
    x = post.prior.start(rng.normal(x), levels[0])
    for sigma, s in itertools.pairwise(levels):
        x = Heun()(post.prior.denoise, x, sigma, s, rng)
    return x
