"""Identities that every explicit method obeys: the network's dress, the neighbours in a batch and
the units of the data do not matter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import METHODS, bed, full_gaussian, picture, wrapped
from reference import F64, level

import posteriori as po
from posteriori import methods
from posteriori.checkpoint import leaves
from posteriori.noise import Gaussian
from posteriori.priors.base import Prior
from posteriori.rng import Streams

# Ensembles are rows that know each other.
EXPLICIT = {
    name: method
    for name, method in METHODS.items()
    if method.family == "explicit" and method.group == 1
}
# Published settings that change with the unit of y (y, A and sigma_y all multiplied), with the
# reason.
UNIT_OF_Y = {
    "DPS published": "scale times the gradient of ||y - A D||, which has the unit of y",
    "DPS squared": "scale times the gradient of ||y - A D||^2, which has the unit of y squared",
    "MCG published": "scale times the gradient of ||y - A D||, as DPS",
    "FreeDoM faces": "scale times the gradient of ||y - A D||, as DPS",
    "FlowDPS published": "scale times the gradient of ||y - A u||, which has the unit of y",
    "FlowChef published": "scale times the gradient of ||y - A D||^2",
    "DDS published": "weighs the data by a fixed gamma in place of the noise level",
    "ScoreALD published": "weighs the data by a multiple of 1 / s^2 in place of the noise level",
}
# Published settings that change with the unit of the image (the prior in (0, 1) in place of
# (-1, 1), levels halved), with the reason.
UNIT_OF_X = {
    "DPS published": (
        "its step is taken in variance-preserving coordinates, a = 1 / sqrt(1 + sigma^2)"
    ),
    "DPS squared": "its step is taken in variance-preserving coordinates",
    "MCG published": "its step is taken in variance-preserving coordinates",
    "FreeDoM faces": (
        "its step is taken in variance-preserving coordinates, and its window is a list of levels"
    ),
    "PiGDM published": "r2 = sigma^2 / (1 + sigma^2) takes the image to have unit variance",
    "PiGDM paper": "r2 = sigma^2 / (1 + sigma^2) takes the image to have unit variance",
    "LGDMC published": "its width takes the image to have unit variance",
    "FlowDPS published": "a length of its steps belongs to images in [-1, 1]",
}


def spread(a, b):
    """Largest difference, relative to the largest number."""
    return float((a - b).abs().max() / b.abs().max())


# E8: the published step of DPS is a likelihood step of another noise level
# ---------------------------------------------------------------


@pytest.mark.parametrize("zeta", [0.3, 1.0])
def test_the_norm_step_is_the_likelihood_step_of_an_effective_noise(zeta):
    """sigma_eff^2 = beta ||y - A D|| / (zeta sqrt(1 - beta)), beta = 1 - a^2 / a_s^2; in VE terms
    (sigma^2 - s^2) ||y - A D|| a a_s / zeta.

    It is small where the data fit already, so that the published step never slackens."""
    post = bed("general")
    for sigma, s in ((3.0, 2.0), (0.9, 0.6), (0.05, 0.0)):
        a, a_s = (1 + sigma**2) ** -0.5, (1 + s**2) ** -0.5
        beta = 1 - (a / a_s) ** 2
        x = post.prior.start(
            torch.randn(4, *post.shape, dtype=F64, generator=torch.Generator().manual_seed(0)),
            level(sigma),
        )
        norm, _ = methods.DPS("norm", zeta).step(
            post, x, level(sigma), level(s), Streams(1, range(4))
        )
        sizes = post.likelihood.residual(post.prior.denoise(x, level(sigma))).norm(dim=1)
        for row in range(4):
            size = float(sizes[row])
            effective = beta * size / (zeta * (1 - beta) ** 0.5)
            assert effective == pytest.approx((sigma**2 - s**2) * size * a * a_s / zeta)
            other = po.Posterior(post.prior, replace(post.given, noise=Gaussian(effective**0.5)))
            squared, _ = methods.DPS("likelihood").step(
                other, x[row : row + 1], level(sigma), level(s), Streams(1, [row])
            )
            torch.testing.assert_close(norm[row : row + 1], squared, rtol=1e-10, atol=1e-10)


# E16: one prior as every kind of network
# -------------------------------------------------------------------------------------------------


class Plain(Prior):
    """The Gaussian seen only as a denoiser, with the limits of the wrapped networks."""

    def __init__(self, gaussian):
        super().__init__(
            gaussian.shape, variance=gaussian.variance, sigma_max=100.0, sigma_min=0.02
        )
        self.gaussian = gaussian

    def denoise(self, x, sigma):
        return self.gaussian.denoise(x, sigma)


KINDS = ("eps linear", "eps continuous", "score VE", "edm", "v linear", "flow", "flow flipped")


@pytest.mark.parametrize("name", EXPLICIT)
def test_the_dress_of_the_network_does_not_matter(name):
    gaussian, method, like = full_gaussian(), EXPLICIT[name], bed("general").likelihood
    if method.refuses(po.Posterior(Plain(gaussian), like)):
        pytest.skip("the method refuses this problem")
    grid = po.grid.karras(6, 90.0, 0.05)
    paths = {}
    dresses = wrapped(gaussian)
    for kind in ("plain", *KINDS):
        prior = Plain(gaussian) if kind == "plain" else dresses[kind]
        seen = paths.setdefault(kind, [])
        watch = [lambda k, s, rows, info, seen=seen: seen.append(rows.clone())]
        po.sample(po.Posterior(prior, like), method, n=2, grid=grid, seed=3, watch=watch)
    for kind in KINDS:
        for step, (ours, plain) in enumerate(zip(paths[kind], paths["plain"], strict=True)):
            assert spread(ours, plain) < 1e-6, f"{kind}, step {step}: {spread(ours, plain):.2g}"


# E17: neighbours
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [bed, picture])
@pytest.mark.parametrize("name", EXPLICIT)
def test_wild_neighbours_do_not_matter(name, make):
    """One step of a row beside ones a million times larger, already solved and no longer finite:
    what a sweep of like rows cannot show."""
    post, method = make(), EXPLICIT[name]
    if method.refuses(post):
        pytest.skip("the method refuses this problem")
    sigma, s = level(0.9), level(0.6)
    draw = torch.randn(1, *post.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    row = post.prior.start(draw, sigma)
    rows = torch.cat([row, 1e6 * row, torch.zeros_like(row), torch.full_like(row, float("nan"))])
    out = []
    with torch.no_grad():
        for x in (row, rows):
            rng = Streams(2, range(len(x)), method.group)
            state, _ = method.step(post, method.init(post, x, rng), sigma, s, rng)
            out.append(leaves(state)[0])
    assert spread(out[1][:1], out[0]) < 1e-9
    assert bool(out[1][:3].isfinite().all())


# E18: units
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLICIT)
def test_the_range_in_which_the_data_are_stated_does_not_matter(name):
    """y = A x + n of x in (0, 1), or y - A(1/2) = (A / 2) u + n of u = 2 x - 1: the same data, and
    the same samples."""
    post, method = picture(), EXPLICIT[name]
    if method.refuses(post):
        pytest.skip("the method refuses this problem")
    A, y = post.given.A, post.given.y
    halved = po.operators.Dense(po.operators.matrix(A) / 2, A.in_shape)
    half = A(torch.full((1, *A.in_shape), 0.5, dtype=F64))[0]
    other = po.Posterior(
        post.prior, po.Likelihood((y - half).flatten(), halved, post.given.noise, range=(-1, 1))
    )
    ours, theirs = (po.sample(p, method, n=3, steps=6, seed=2).samples for p in (post, other))
    gap = spread((theirs + 1) / 2, ours)
    assert (gap > 1e-6) if name in UNIT_OF_Y else (gap < 1e-6), f"{gap:.2g}"


@pytest.mark.parametrize("name", EXPLICIT)
def test_the_range_of_the_prior_does_not_matter(name):
    """The same images modelled in (-1, 1) or in (0, 1), where all noise levels are half as
    large."""
    post, method = picture(), EXPLICIT[name]
    if method.refuses(post):
        pytest.skip("the method refuses this problem")
    other = po.Posterior(post.prior.transformed(0.5, 0.5, (0, 1)), post.given)
    ours, theirs = (
        po.sample(p, method, n=3, steps=6, seed=2, grid="karras").samples for p in (post, other)
    )
    gap = spread(theirs, ours)
    assert (gap > 1e-6) if name in UNIT_OF_X else (gap < 1e-6), f"{gap:.2g}"
