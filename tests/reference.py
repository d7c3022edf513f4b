"""What tests start from and compare with: numbers in double precision, flat likelihoods, the exact
law of an affine sampler."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

import posteriori as po
from posteriori import grid as grids
from posteriori.driver import Job
from posteriori.evaluation import exact_posterior, gaussian_kl
from posteriori.noise import Gaussian
from posteriori.rng import Streams

REPOSITORY = Path(__file__).parents[1]
F64 = torch.float64


def level(sigma):
    return torch.tensor(sigma, dtype=F64)


def draw(*size, dtype=F64, seed=0):
    return torch.randn(*size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def images(post, sigma, rows=3, seed=1):
    """Rows that a run could hold at the level sigma."""
    return post.prior.start(draw(rows, *post.shape, seed=seed), torch.as_tensor(sigma, dtype=F64))


def flat(post):
    """The same measurement with so much noise that it says nothing."""
    return po.Posterior(post.prior, replace(post.given, noise=Gaussian(1e7)))


class Fixed:
    """Hands out one prescribed normal draw."""

    def __init__(self, z):
        self.z = z

    def normal(self, like):
        return self.z


class Given:
    """A noise source with the numbers (rows, n) laid down beforehand; zeros beyond them."""

    def __init__(self, numbers):
        self.numbers, self.used = numbers, 0

    def normal(self, like):
        real = torch.view_as_real(like) if like.is_complex() else like
        size = real[0].numel()
        z = torch.zeros(len(like), size, dtype=F64)
        block = self.numbers[:, self.used : self.used + size]
        z[:, : block.shape[1]] = block
        self.used += size
        z = z.view(real.shape)
        return torch.view_as_complex(z) if like.is_complex() else z

    def uniform(self, count):
        return torch.full((len(self.numbers), count), 0.5, dtype=F64)


def moved(step, mean, covariance):
    """Mean (d,) and covariance of step(x, rng), x of that mean and covariance, for an affine map
    x -> a + M x + N z read off unit rows.

    Fails when a row of its own is not where the map says.
    """
    d, count = len(mean), Given(torch.zeros(1, 0, dtype=F64))
    a = step(torch.zeros(1, d, dtype=F64), count)
    units = torch.cat([torch.eye(d + count.used, dtype=F64), draw(1, d + count.used, seed=8)])
    out = step(units[:, :d], Given(units[:, d:])) - a
    columns, found = out[:-1], out[-1]
    torch.testing.assert_close(
        found, units[-1] @ columns, rtol=1e-6, atol=1e-6 * float(columns.abs().max())
    )
    M, N = columns[:d], columns[d:]
    return a[0] + mean @ M, M.T @ covariance @ M + N.T @ N


def law(post, method, steps, grid="karras"):
    """Exact mean (d,) and covariance (d, d) of the samples of a method whose every step is affine
    in its rows and random numbers.

    The moments are carried from level to level, which costs about 2 d rows for each:
    ``affine_probe``, which reads the same off whole runs and so needs nothing of the steps in
    between, costs as many runs as a run has random numbers.
    """
    levels = grids.make(
        grid, steps, post.prior.sigma_max, post.prior.sigma_min, post.prior.know().ladder
    )
    d = math.prod(post.shape)

    def images_of(x):
        return x.view(len(x), *post.shape)

    zero, eye = torch.zeros(1, d, dtype=F64), torch.eye(d, dtype=F64)
    with torch.no_grad():
        mean = post.prior.start(images_of(zero), levels[0]).flatten()
        columns = post.prior.start(images_of(eye), levels[0]).flatten(1) - mean
        covariance = columns.T @ columns
        for sigma, s in pairwise(levels):

            def step(x, rng, sigma=sigma, s=s):
                x = images_of(x)
                assert method.init(post, x, rng) is x, (
                    f"{type(method).__name__} has a state beside its rows"
                )
                return method.step(post, x, sigma, s, rng)[0].flatten(1)

            mean, covariance = moved(step, mean, covariance)
    return mean, covariance


def kl(post, method, steps=150, grid="karras"):
    """KL( law of the samples || exact posterior ), without Monte Carlo."""
    exact = exact_posterior(post)
    return float(
        gaussian_kl(*law(post, method, steps, grid), exact.mean.flatten(), exact.covariance)
    )


def drive(post, method, groups, levels, seed=0):
    """The final state of so many groups, and the info of each step."""
    rng = Streams(seed, range(groups), method.group)
    blank = torch.zeros(groups * method.group, *post.shape, dtype=F64)
    infos = []
    with torch.no_grad():
        state = method.init(post, post.prior.start(rng.normal(blank), levels[0]), rng)
        for sigma, s in pairwise(levels):
            state, info = method.step(post, state, sigma, s, rng)
            infos.append(info)
    return state, infos


def watched(monkeypatch):
    """The rows of each step that is done."""
    rows, advance = [], Job.advance

    def advanced(self, post, batch, counter):
        rows.append(batch.groups)
        advance(self, post, batch, counter)

    monkeypatch.setattr(Job, "advance", advanced)
    return rows
