"""Adaptation of a prior to one measurement: adapters that begin as nothing, move what y tells and
no more, and end where the noise begins."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from cases import PRIORS, bed, full_gaussian, toy_unet

import posteriori as po
from posteriori.methods import DDIP, DDS, SCD
from posteriori.methods.adaptive.fitting import beginning, fitted
from posteriori.methods.adaptive.low_rank import Adapter
from posteriori.methods.transitions import DDIM
from posteriori.operators import solve
from posteriori.priors import Gaussian, Network, Prior, linearize_at, linearize_leaves
from posteriori.rng import Streams

F64 = torch.float64


def network(dtype=F64):
    return Network(toy_unet(dtype), shape=(1, 8, 12), multiple=4, sigma_data=0.5)


def begun(prior, rows=2, rank=3, vectors=True):
    """Images, an adapter and its first theta."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(rows, *prior.shape, generator=g, dtype=F64)
    adapter = Adapter.of(prior, rank, vectors=vectors)
    return x, adapter, adapter.start(x, Streams(4, range(rows)))


def moved(theta, by=0.05):
    g = torch.Generator().manual_seed(1)
    return theta + by * torch.randn(theta.shape, generator=g, dtype=theta.dtype)


@pytest.mark.parametrize("vectors", [True, False])
def test_adapters_begin_as_the_network_bit_by_bit_and_leave_it_as_it_was(vectors):
    prior, sigma = network(torch.float32), torch.tensor(0.7)
    kept = {name: p.clone() for name, p in prior.named_parameters()}
    x, adapter, theta = begun(prior, vectors=vectors)
    x = x.float()
    leaves = adapter.leaves(theta)
    assert all(torch.equal(leaves[name], kept[name].expand_as(leaves[name])) for name in leaves)
    alone = torch.cat([prior.denoise(row[None], sigma) for row in x])
    begun_at = prior.at(**leaves).denoise(x, sigma)
    own = {name: kept[name].expand_as(leaf) for name, leaf in leaves.items()}
    assert torch.equal(begun_at, prior.at(**own).denoise(x, sigma))
    # Weights that a module holds may take another kernel than those that are handed to it.
    torch.testing.assert_close(begun_at, alone, rtol=0, atol=1e-5)
    other = prior.at(**adapter.leaves(moved(theta))).denoise(x, sigma)
    assert float((other - alone).abs().max()) > 1e-3
    assert all(torch.equal(p, kept[name]) for name, p in prior.named_parameters())
    assert torch.equal(prior.denoise(x[:1], sigma), alone[:1])


def test_moves_of_matrices_have_the_rank_of_the_adapter_and_vectors_are_free():
    prior = network()
    _, adapter, theta = begun(prior, rows=1, rank=3)
    for name, value in adapter.leaves(moved(theta)).items():
        base = adapter.base[name]
        move = (value[0] - base).flatten(1) if base.ndim > 1 else value[0] - base
        if base.ndim > 1:
            assert int(torch.linalg.matrix_rank(move)) == min(3, *move.shape), name
        assert bool(move.any()), name
    sizes = {name: sum(pair) for name, pair in zip(adapter.base, adapter.sizes(), strict=True)}
    assert sizes["net.enter.weight"] == 3 * (8 + 4 * 9)
    assert sizes["net.enter.bias"] == 8
    assert adapter.size == sum(sizes.values())
    assert all(base.ndim > 1 for base in begun(prior, vectors=False)[1].base.values())


def problem(prior, shape, sigma=0.1, m=10):
    g = torch.Generator().manual_seed(2)
    A = po.operators.Dense(torch.randn(m, math.prod(shape), generator=g, dtype=F64) / 3, shape)
    y = torch.randn(m, generator=g, dtype=F64)
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(sigma), range=prior.range))


@pytest.mark.parametrize("loss", ["likelihood", "residual"])
def test_the_gradient_of_the_misfit_is_its_difference_quotient(loss):
    prior, sigma, s2, r2 = network(), torch.tensor(0.7, dtype=F64), 0.01, 0.3
    post = problem(prior, prior.shape)
    x, adapter, theta = begun(prior)
    A, theta = post.likelihood.linear, moved(theta)

    def value(theta):
        r = post.likelihood.y - A(prior.at(**adapter.leaves(theta)).denoise(x, sigma))
        w = solve(A, r, r2, s2)
        return 0.5 * ((r * w) if loss == "likelihood" else s2**2 * w.square()).sum(1)

    x0, pull = linearize_leaves(prior, x, sigma, **adapter.leaves(theta))
    w = solve(A, post.likelihood.y - A(x0), r2, s2)
    u = -A.adjoint(w if loss == "likelihood" else s2**2 * solve(A, w, r2, s2))
    g = adapter.gradient(theta, pull(u))
    way = torch.randn(theta.shape, generator=torch.Generator().manual_seed(3), dtype=F64)
    quotient = (value(theta + 1e-6 * way) - value(theta - 1e-6 * way)) / 2e-6
    torch.testing.assert_close((g * way).sum(1), quotient, rtol=1e-6, atol=1e-9)
    # Where the moments of Adam are 0 a move is against the sign of this gradient.
    state, info = fitted(
        post,
        beginning(x, theta),
        sigma,
        adapter,
        r2=r2,
        s2=s2,
        loss=loss,
        iterations=1,
        rate=1e-3,
        discrepancy=0.0,
    )
    steep = g.abs() > 1e-3 * g.abs().max(1, keepdim=True).values
    assert torch.equal(torch.sign(theta - state.theta)[steep], torch.sign(g)[steep])
    assert info["adaptations"].tolist() == [1, 1]
    r = post.likelihood.y - A(x0)
    torch.testing.assert_close(info["chi2"], (r * solve(A, r, r2, s2)).mean(1))


MEAN = torch.tensor([3.0, -2.0, 4.0, -3.0], dtype=F64)


def mismatch(A, sigma=0.1):
    """The prior is N(0, I), the image is a draw of N(MEAN, I)."""
    g = torch.Generator().manual_seed(6)
    x = MEAN + torch.randn(4, generator=g, dtype=F64)
    operator = po.operators.Dense(A)
    y = operator(x[None])[0] + sigma * torch.randn(len(A), generator=g, dtype=F64)
    prior = Gaussian(torch.zeros(4, dtype=F64), 1.0)
    return po.Posterior(prior, po.Likelihood(y, operator, po.noise.Gaussian(sigma)))


def adapted(post, iterations, discrepancy, state=None, rate=0.05):
    """At the level 1, from an image of another law."""
    x, adapter, theta = begun(post.prior, rows=1)
    level = torch.tensor(1.0, dtype=F64)
    return fitted(
        post,
        state or beginning(MEAN + x, theta),
        level,
        adapter,
        r2=post.prior.know().error(level),
        s2=post.likelihood.std**2,
        loss="likelihood",
        iterations=iterations,
        rate=rate,
        discrepancy=discrepancy,
    )


def test_the_misfit_of_a_wrong_prior_falls_at_every_move_until_the_noise_explains_it():
    g = torch.Generator().manual_seed(0)
    post = mismatch(torch.linalg.qr(torch.randn(4, 4, generator=g, dtype=F64))[0])
    state, told = adapted(post, 0, 0.0)[0], []
    for _ in range(400):
        state, info = adapted(post, 1, 0.0, state)
        told.append(float(info["chi2"]))
    above = sum(value > 1 for value in told)
    assert above > 20
    assert all(after < before for before, after in pairwise(told[: above + 1]))
    assert min(told) < 0.05  # the control: without a stop the noise of y is fitted
    state, info = adapted(post, 1000, 1.0)
    assert 0.9 < float(info["chi2"]) <= 1.0
    assert float(info["adaptations"]) == above
    # The denoised image has moved to the one that y tells: D = (x + mean) / 2 at the level 1.
    told_by_y = post.likelihood.linear.adjoint(post.likelihood.y[None])
    before, after = (
        float(((state.x + mean) / 2 - told_by_y).norm()) for mean in (0 * state.theta, state.theta)
    )
    assert after < 0.4 * before


def test_what_is_not_measured_is_not_adapted():
    """With the last two numbers unseen, a mean has no gradient there."""
    post = mismatch(torch.eye(4, dtype=F64)[:2])
    state, _ = adapted(post, 40, 1.0)
    assert torch.equal(state.theta[:, 2:], torch.zeros(1, 2, dtype=F64))
    assert float(state.theta[:, :2].abs().min()) > 0.1


def test_a_right_prior_is_hardly_adapted():
    """chi2 has mean 1 at every level there: of 400 images and measurements by the prior about half
    are above, and no move is made for the others."""
    prior = Gaussian(torch.zeros(6, dtype=F64), 0.8)
    g = torch.Generator().manual_seed(0)
    A = po.operators.Dense(torch.randn(5, 6, generator=g, dtype=F64))
    x0 = prior.sample(400, seed=1)
    y = A(x0) + 0.1 * torch.randn(400, 5, generator=g, dtype=F64)
    for level in (5.0, 0.5, 0.05):
        sigma = torch.tensor(level, dtype=F64)
        x = x0 + sigma * torch.randn(x0.shape, generator=g, dtype=F64)
        r = y - A(prior.denoise(x, sigma))
        chi2 = (r * solve(A, r, prior.know().error(sigma), 0.01)).mean(1)
        assert abs(float(chi2.mean()) - 1) < 5 * (2 / 5 / 400) ** 0.5


@pytest.mark.parametrize(
    ("method", "sampler"),
    [
        (DDIP(iterations=0, sampler=DDS(iterations=20)), DDS(iterations=20)),
        (
            SCD(iterations=0, eta=0.3, sampler=DDS(iterations=20)),
            DDS(direction="network", transition=DDIM(eta=0.3), iterations=20),
        ),
    ],
)
def test_without_iterations_they_are_the_samplers_they_stand_on(method, sampler):
    prior = full_gaussian(F64, (2, 3))
    post = problem(prior, (2, 3), m=4)
    x = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    sigma, s = torch.tensor(1.3, dtype=F64), torch.tensor(0.8, dtype=F64)
    for lower in (s, torch.tensor(0.0, dtype=F64)):
        state = method.init(post, x, Streams(1, range(3)))
        ours, _ = method.step(post, state, sigma, lower, Streams(5, range(3)))
        theirs, _ = sampler.step(post, x, sigma, lower, Streams(5, range(3)))
        torch.testing.assert_close(ours.x, theirs, rtol=1e-12, atol=1e-12)
        assert torch.equal(ours.theta, state.theta)


def test_adapters_go_on_from_level_to_level_and_so_do_the_moments_of_one_optimiser():
    post = problem(full_gaussian(F64, (2, 3)), (2, 3), m=4, sigma=0.02)
    x = 3 + torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    levels = [torch.tensor(v, dtype=F64) for v in (1.5, 1.0, 0.6)]
    for method, kept in ((DDIP(iterations=3), False), (SCD(iterations=3), True)):
        state = method.init(post, x, Streams(1, range(2)))
        first, info = method.step(post, state, levels[0], levels[1], Streams(5, range(2)))
        assert info["adaptations"].tolist() == [3, 3]
        assert not torch.equal(first.theta, state.theta)
        second, _ = method.step(post, first, levels[1], levels[2], Streams(6, range(2)))
        assert second.moves.tolist() == ([6, 6] if kept else [3, 3])
        begun_there, _ = method.step(
            post, first._replace(theta=state.theta), levels[1], levels[2], Streams(6, range(2))
        )
        assert not torch.equal(second.theta, begun_there.theta)


def test_calls_for_adaptation_are_counted():
    post = problem(network(), (1, 8, 12), sigma=1e-3)
    run = po.sample(post, DDIP(iterations=2, discrepancy=0.0, sampler=DDS()), n=2, steps=3)
    assert (run.counts["denoiser"], run.counts["vjp"]) == (9, 6)
    assert run.trace["adaptations"].tolist() == [[2, 2]] * 3
    silent = po.sample(post, DDIP(iterations=2, discrepancy=1e12), n=2, steps=3)
    assert (silent.counts["denoiser"], silent.counts["vjp"]) == (6, 0)


class Bare(Prior):
    """Without any weights."""

    def __init__(self):
        super().__init__((6,), variance=1.0, sigma_max=10.0, sigma_min=0.01)

    def denoise(self, x, sigma):
        return x / (1 + sigma**2)


def test_priors_without_what_is_adapted_are_refused():
    post = bed()
    assert DDIP().refuses(post) is None
    assert SCD().refuses(post) == (
        "SCD: a Gaussian prior has no matrices or kernels that could be adapted"
    )
    bare = po.Posterior(Bare(), post.given)
    assert DDIP().refuses(bare) == "DDIP: a Bare prior has no weights that could be adapted"
    with pytest.raises(ValueError, match="has no weights that could be adapted"):
        po.sample(bare, DDIP(), steps=2)


@pytest.mark.parametrize("name", PRIORS)
def test_what_is_adjustable_are_leaves_at_their_values(name):
    prior = PRIORS[name](F64)
    leaves, known = prior.know().adjustable(), prior.know().leaves()
    for leaf, value in leaves.items():
        assert not value.requires_grad
        assert tuple(value.shape) == known[leaf]
    if not leaves:
        assert not known.keys() & dict(prior.named_parameters()).keys()
        return
    shape = tuple(8 if n is None else n for n in prior.shape)
    g = torch.Generator().manual_seed(0)
    kind = torch.complex128 if prior.complex else F64
    x, sigma = torch.randn(2, *shape, generator=g, dtype=kind), torch.tensor(0.8, dtype=F64)
    want = prior.denoise(x, sigma)
    torch.testing.assert_close(prior.at(**leaves).denoise(x, sigma), want)
    name = next(iter(leaves))
    moved_leaf = {name: leaves[name] + 0.1}
    again = prior.at(**moved_leaf).know().adjustable()
    if name in again:  # a Gaussian at another mean is a mixture of one, whose leaf is "means"
        torch.testing.assert_close(again[name], moved_leaf[name])


@pytest.mark.parametrize(
    "name", ["Gaussian full", "GaussianMixture", "UNet", "Joint", "GreyImages"]
)
def test_all_leaves_in_one_backward_pass_are_those_one_by_one(name):
    prior = PRIORS[name](F64)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, *prior.shape, generator=g, dtype=F64)
    leaves = dict(list(prior.know().adjustable().items())[:3])
    rows = {leaf: value + torch.zeros(2, *value.shape, dtype=F64) for leaf, value in leaves.items()}
    u, sigma = torch.randn(x.shape, generator=g, dtype=F64), torch.tensor(0.8, dtype=F64)
    for given in (leaves, rows):
        x0, pull = linearize_leaves(prior, x, sigma, **given)
        want, pulls = linearize_at(prior, x, sigma, **given)
        torch.testing.assert_close(x0, want)
        for leaf, value in pull(u).items():
            torch.testing.assert_close(value, pulls[leaf](u))
