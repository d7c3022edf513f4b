"""Diffusion EM: an unknown instrument by rounds of expectation maximisation, each a whole run of a
sampler for the known one.

    E:  x_i ~ p(x | y, k),  i = 1 ... n             by any method for a known instrument
    M:  k   = argmax log p(k) + sum_i log p(y | x_i, k) / n

With exact draws, many of them, no round lowers log p(k) + log p(y | k). Where y has little noise an
image that was drawn for k fits y by k alone, so that rounds are short steps:
``methods.FastDiffusionEM`` moves k within one run, and this takes over from what it found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posteriori import grid as grids
from posteriori.driver import sample
from posteriori.likelihood import Posterior
from posteriori.methods.base import Method
from posteriori.methods.blind.beliefs import linear_refusal, maximised, normal_equations
from posteriori.methods.blind.pair import blind_pair, linear_pair_refusal
from posteriori.run import Run

# Rounds of half-quadratic splitting in an M-step without a Gaussian belief.
SPLITTINGS = 10


@dataclass(frozen=True, eq=False)
class FittedInstrument:
    """parameters: those of the start and after each round, (rounds + 1, *P), in the user's terms.
    run: the images of the last round, drawn for the last but one of these."""

    parameters: Tensor
    run: Run


def fit_instrument(
    post: Posterior,
    method: Method[Any],
    *,
    rounds: int = 10,
    n: int = 4,
    start: Tensor | None = None,
    steps: int | None = None,
    grid: grids.GridName | Tensor | None = None,
    seed: int = 0,
) -> FittedInstrument:
    """The parameters of the instrument of a posterior on image and parameters, a ``Parametric``
    that is linear in both, and images given these.

    method: the E-step, for a known instrument. n: its samples. rounds: >= 1. start: k (*P), by
    default what the prior of the parameters expects. steps, grid: of each run. seed: round j is
    drawn with seed + j.

    The M-step is one linear system under a Gaussian belief, and otherwise ten rounds of splitting
    with the denoiser of the parameters' prior, whose levels fall from its spread to a hundredth of
    it. Raises ``ValueError`` for another posterior or fewer than one round, and as ``sample`` does.

    Reference: Laroche, Almansa, Coupete, Fast diffusion EM: a diffusion model for blind inverse
    problems with application to deconvolution, 2024, algorithm 1.
    """
    said = linear_pair_refusal(post, "fit_instrument") or linear_refusal(post, "fit_instrument")
    if said is not None:
        raise ValueError(said)
    if rounds < 1:
        raise ValueError(f"fit_instrument: rounds must be at least 1, got {rounds}")
    pair, y = blind_pair(post), post.likelihood.y
    own = pair.chart.parts[1]
    if start is None:
        middle = pair.units[1] * pair.expected(torch.zeros_like(y.real)[:1])
        start = own.push(middle)[0]
    path = [start.to(y.real)]
    for j in range(rounds):
        run = sample(pair.known(path[-1]), method, n=n, steps=steps, grid=grid, seed=seed + j)
        x = run.samples.to(y.device)
        equations = normal_equations(pair, x, pair.noise(len(x))).summed(len(x)).over(len(x))
        phi = ((path[-1] - own.b) / own.a).flatten()[None]
        spread = pair.belief.variance**0.5
        for level in grids.log(SPLITTINGS, spread, spread / 100)[:-1].tolist():
            phi = maximised(pair, equations, phi, level)
        path.append(own.push(phi.view(1, *pair.A.parameters_shape))[0].to(path[0]))
    return FittedInstrument(torch.stack(path), run)
