"""Fits of score-prior variational inference as tests make them: what q has become, and its
draws."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise

import torch
from cases import two_modes
from reference import draw

import posteriori as po
from posteriori import methods
from posteriori.evaluation import exact_posterior
from posteriori.methods.variational.score_prior import fit
from posteriori.priors import log_density as densities
from posteriori.rng import Streams


def drive(post, method, steps, G=1, seed=0, n=4000):
    """The fitted state of G groups, what its last step says, and n draws of each q: (G, n, d)."""
    levels = po.grid.karras(steps, post.prior.sigma_max, post.prior.sigma_min)
    rng = Streams(seed, range(G), method.group)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = post.prior.start(
            rng.normal(torch.zeros(G * method.group, *post.shape, dtype=post.likelihood.y.dtype)),
            levels[0],
        )
        state = method.init(post, x, rng)
        for sigma, s in pairwise(levels):
            state, info = method.step(post, state, sigma, s, rng)
        frame = fit.FitFrame(
            densities.centre(post.prior, x),
            math.sqrt(post.prior.variance + post.prior.sigma_min**2),
            n,
        )
        d = densities.count_numbers(x)
        draws = (
            frame.inside(
                frame.images(method.members().push(state.params, draw(G, n, d, seed=1).to(x))[0])
            )
            * frame.scale
        )
        return state, {k: v.view(G, -1)[:, 0] for k, v in info.items()}, draws + frame.m.flatten()


def mass(draws):
    return (draws[..., 0] > 0).double().mean(-1)


def fitted(separation, G=5, steps=40, seed=0, **settings):
    """Masses of the second mode in the draws of q and in the weighted draws, (G,), the exact one,
    log p(y), and what the fit says."""
    post = two_modes(separation)
    exact = exact_posterior(post)
    method = methods.ScorePriorVI(**{"draws": 128, "polish": 300, "hidden": 24, **settings})
    state, info, draws = drive(post, method, steps, G, seed)
    frame = fit.FitFrame(torch.zeros(1, 2), 1.0, draws.shape[1])
    centred = fit.FitFrame(
        densities.centre(post.prior, draws[0]),
        math.sqrt(post.prior.variance + post.prior.sigma_min**2),
        draws.shape[1],
    )
    x = frame.images(draws)
    log_w = (
        post.prior.know().closed.log_prob(x)
        + post.likelihood.log_prob(x)
        - centred.log_q(method.members(), state.params, x)
    )
    weighted = ((x[:, 0] > 0).double() * log_w.view(G, -1).softmax(1).flatten()).view(G, -1).sum(1)
    return mass(draws), weighted, float(exact.mixture.weights[1]), exact.log_evidence, info
