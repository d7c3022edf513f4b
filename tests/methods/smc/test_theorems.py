"""What particle methods promise: an unbiased evidence with four particles, errors that fall as
1 / sqrt(N), weights that need no sample.

The prior is a mixture in one dimension. Each chain's own law is carried from level to level on a
grid, so that no error of a finite step enters: the references are exact to about 1e-6.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from cases import bed
from reference import F64, drive, level
from torch.distributions import MultivariateNormal

import posteriori as po
from posteriori import methods
from posteriori.evaluation import exact_posterior
from posteriori.methods import DDSMC, FPS, TDS, Bootstrap, MCGDiff, MomentSMC, SMCDiff
from posteriori.methods.base import Method
from posteriori.methods.data_steps import svd_coordinates
from posteriori.methods.smc import particles as clouds
from posteriori.noise import Gaussian
from posteriori.priors.base import bank_images
from posteriori.rng import Streams

SCHEMES = ("systematic", "stratified", "residual", "multinomial")


def two_bumps(y=0.5):
    """0.35 N(-1, 0.1) + 0.65 N(1.2, 0.06), seen as 0.8 x + 0.3 z."""
    variances = torch.tensor([0.1, 0.06], dtype=F64)[:, None, None]
    prior = po.priors.GaussianMixture(
        torch.tensor([0.35, 0.65], dtype=F64), torch.tensor([[-1.0], [1.2]], dtype=F64), variances
    )
    A = po.operators.Dense(torch.tensor([[0.8]], dtype=F64))
    return po.Posterior(prior, po.Likelihood(torch.tensor([y], dtype=F64), A, Gaussian(0.3)))


def one_bump():
    """Two modes that have grown together: no x0 given x is wider than PiGDM's bound by much, so
    that its weights have light tails."""
    variances = torch.tensor([0.3, 0.2], dtype=F64)[:, None, None]
    prior = po.priors.GaussianMixture(
        torch.tensor([0.4, 0.6], dtype=F64), torch.tensor([[-0.4], [0.5]], dtype=F64), variances
    )
    return po.Posterior(prior, two_bumps().likelihood)


# The level 0.375 = 0.3 / 0.8 is that of the measurement.
LEVELS = torch.cat([po.grid.log(5, 8.0, 0.375)[:-1], po.grid.log(4, 0.375, 0.05)[1:]])


# THE CHAINS: mean and variance of x' given x (B, 1), from sigma to s; at s = 0, of x0
# ---------------------------------------------------


def ancestral(prior, x, sigma, s, eta=1.0):
    a = (sigma**2 - s**2) / (sigma**2 - (1 - eta) * s**2)
    return (1 - a) * x + a * prior.denoise(x, sigma), (a * s**2).expand_as(x)


def second_order(prior, x, sigma, s):
    x0, pull = prior.linearize(x, sigma)
    a = 1 - s**2 / sigma**2
    return (1 - a) * x + a * x0, a * s**2 + a**2 * sigma**2 * pull(torch.ones_like(x))


def points(s, count=900):
    return torch.linspace(-1, 1, count, dtype=F64)[:, None] * (3.0 + 6.5 * float(s))


def normal(x, mean, variance):
    return (-0.5 * (x - mean) ** 2 / variance).exp() / (2 * math.pi * variance).sqrt()


def carry(prior, kernel, levels, x, p, to=points):
    """The density (n, 1) p at points x of the first of ``levels``, carried down to the last of them
    at the points ``to``."""
    for sigma, s in pairwise(levels):
        mean, variance = kernel(prior, x, sigma, s)
        ahead, weight = to(s), p * (x[1] - x[0])
        x, p = ahead, normal(ahead, mean.T, variance.T) @ weight
    return x, p


def begun(prior, levels):
    x = points(levels[0])
    centre, far = prior.start(torch.tensor([[0.0], [1.0]], dtype=F64), levels[0])
    return x, normal(x, centre, (far - centre) ** 2)


def banked(prior, levels):
    """As ``begun``, from 64 of the prior's images in the noise of the first level."""
    x = points(levels[0])
    return x, normal(x, bank_images(prior, 64, (1,)).T, levels[0] ** 2).mean(1, keepdim=True)


def of_the_chain(post, kernel, levels=LEVELS, start=begun):
    """Z = E p(y | x0) and E[x0 | y] of a chain's own law of x0."""
    prior, a, noise = post.prior, float(post.likelihood.A.matrix), post.likelihood.std
    x, p = carry(prior, kernel, levels[:-1], *start(prior, levels))
    mean, variance = kernel(prior, x, levels[-2], levels[-1])
    total = a**2 * variance + noise**2
    w = p * (x[1] - x[0]) * normal(post.likelihood.y, a * mean, total)
    expected = mean + a * variance / total * (post.likelihood.y - a * mean)
    return float(w.sum()), float((w * expected).sum() / w.sum())


def through_the_data(post, kernel, levels=LEVELS):
    """Z = p(x(tau) = u) / a, u = y / a at its own level tau, and E[x0] of the chain that goes on
    from there."""
    prior, a = post.prior, float(post.likelihood.A.matrix)
    u, at = post.likelihood.y[None] / a, int((levels - post.likelihood.std / a).abs().argmin())
    x, p = carry(prior, kernel, levels[:at], *begun(prior, levels))
    z = float(carry(prior, kernel, levels[at - 1 : at + 1], x, p, lambda s: u)[1]) / a
    mean, variance = kernel(prior, u, levels[at], levels[at + 1])
    x = points(levels[at + 1])
    x, p = carry(prior, kernel, levels[at + 1 : -1], x, normal(x, mean, variance))
    return z, float((kernel(prior, x, levels[-2], levels[-1])[0] * p * (x[1] - x[0])).sum())


def half_decoupled(prior, x, sigma, s):
    return ancestral(prior, x, sigma, s, 0.5)


# EVIDENCE
# --------------------------------------------------------------------------------------------------

CASES = {
    **{
        f"TDS {twist}": (TDS(4, twist), of_the_chain, ancestral)
        for twist in ("moments", "row sums")
    },
    "TDS pigdm": (TDS(4, "pigdm"), of_the_chain, ancestral),
    "TDS published": (TDS.published(), of_the_chain, ancestral),
    "Bootstrap": (Bootstrap(4), of_the_chain, ancestral),
    "Bootstrap end": (Bootstrap(4, "end"), of_the_chain, ancestral),
    "DDSMC": (DDSMC(4), of_the_chain, ancestral),
    "DDSMC 0.5": (DDSMC(4, 0.5, rho=0.3), of_the_chain, half_decoupled),
    "MCGDiff": (MCGDiff(4), through_the_data, ancestral),
    "MCGDiff kept": (MCGDiff(4, ratio=2.0, last="kept"), of_the_chain, ancestral),
    "FPS": (FPS(4), through_the_data, ancestral),
    "MomentSMC": (MomentSMC(4), of_the_chain, second_order),
    "MomentSMC bank": (MomentSMC(4, bank=64), partial(of_the_chain, start=banked), second_order),
}
# A method that is not named above is held to the ancestral sampler's chain.
CLAIM = {
    name: cls
    for name, cls in methods.ALL.items()
    if cls.family == "smc" and cls.log_evidence is not Method.log_evidence
}
NAMED = {type(method) for method, _, _ in CASES.values()}
CASES |= {
    name: (cls(particles=4), of_the_chain, ancestral)
    for name, cls in CLAIM.items()
    if cls not in NAMED
}


def weighed(post, method, groups, levels=LEVELS, seed=0):
    """Of each cloud: its estimate of p(y), and its weighted mean of x0; (groups,)."""
    state, _ = drive(post, method, groups, levels, seed)
    cloud = state[0] if isinstance(state, tuple) else state
    return method.log_evidence(post, state).exp(), (
        cloud.clouds.softmax(1) * cloud.x.view(groups, -1)
    ).sum(1)


def off(estimates, truth):
    """How many standard errors the mean of independent estimates is from the truth."""
    return abs(float(estimates.mean()) - truth) / float(estimates.std()) * len(estimates) ** 0.5


@pytest.mark.parametrize("name", CASES)
def test_evidence_and_unnormalised_means_of_four_particles_are_unbiased(name):
    """E Zhat = Z, and E[Zhat sum_i w_i x0_i] = Z E[x0 | y], for the chain's own law, whatever the
    number of particles."""
    method, oracle, kernel = CASES[name]
    post, groups = one_bump() if name in ("TDS pigdm", "TDS published") else two_bumps(), 4000
    # A twist that ignores the prior has weights of finite use near the prior's width only.
    levels = po.grid.log(30, 2.0, 0.05) if name == "AFDPS" else LEVELS
    # A bank saves particles where its images differ in what y says of them: at 1.7 and below.
    levels = levels[2:] if name == "MomentSMC bank" else levels
    z, mean = oracle(post, kernel, levels)
    estimates, means = weighed(post, method, groups, levels)
    # Sharp enough that the law without steps would be told apart, or a tenth more.
    for seed in range(1, 8):
        if float(estimates.std()) / len(estimates) ** 0.5 < 0.03 * z:
            break
        more = weighed(post, method, groups, levels, seed)
        estimates, means = torch.cat([estimates, more[0]]), torch.cat([means, more[1]])
    assert method.particles == 4
    assert off(estimates, z) < 4
    assert off(estimates * means, z * mean) < 4
    assert float(estimates.std()) / len(estimates) ** 0.5 < 0.03 * z
    assert float(estimates.log().mean()) < math.log(z)


def test_every_method_that_claims_an_evidence_is_tested_for_it():
    found = {
        cls for cls in methods.ALL.values() if cls.__module__.startswith("posteriori.methods.smc.")
    }
    assert (
        set(CLAIM.values())
        == {type(method) for method, _, _ in CASES.values()}
        == found - {SMCDiff}
    )
    assert (
        FPS.published().log_evidence(two_bumps(), drive(two_bumps(), FPS.published(), 1, LEVELS)[0])
        is None
    )


def test_the_chains_differ_from_the_law_without_steps_and_tend_to_it():
    """Against the continuous evidence a correct sampler of few steps would fail; a grid of many
    levels gives it back."""
    post = two_bumps()
    exact = math.exp(exact_posterior(post).log_evidence)
    fine = torch.cat([po.grid.log(90, 20.0, 0.375)[:-1], po.grid.log(40, 0.375, 0.02)[1:]])
    for oracle, kernel in (
        (of_the_chain, ancestral),
        (through_the_data, ancestral),
        (of_the_chain, second_order),
    ):
        gaps = [abs(math.log(oracle(post, kernel, levels)[0] / exact)) for levels in (LEVELS, fine)]
        assert gaps[1] < 0.03
        assert gaps[0] > 3 * gaps[1]


# RATE AND INVARIANCE
# --------------------------------------------------------------------------------------------------


def test_the_error_of_the_evidence_falls_as_one_over_the_root_of_the_matched_particles():
    post, sizes, groups = one_bump(), (16, 64, 256), 1000
    z, _ = of_the_chain(post, ancestral)
    squares = [
        (weighed(post, TDS(n, "moments"), groups, seed=n)[0] / z - 1).square() for n in sizes
    ]
    for k, j in ((0, 1), (1, 2), (0, 2)):
        few, many, ratio = squares[k], squares[j], sizes[j] / sizes[k]
        slope = 0.5 * math.log(float(many.mean() / few.mean())) / math.log(ratio)
        # d log rmse = d mean square / (2 mean square), of two independent mean squares.
        error = math.hypot(
            *(float(v.std() / v.mean()) / (2 * groups**0.5) for v in (few, many))
        ) / math.log(ratio)
        assert abs(slope + 0.5) < 3.5 * error, (slope, error)
    # Over all three sizes: a rate of N^-0.35 would not pass.
    assert error < 0.04


def test_different_twists_agree_on_the_posterior():
    post = one_bump()
    z, mean = of_the_chain(post, ancestral)
    found = {
        twist: weighed(post, TDS(64, twist), 400, seed=k)
        for k, twist in enumerate(("moments", "row sums", "pigdm"))
    }
    for twist, (estimates, means) in found.items():
        for values, truth in ((estimates, z), (means, mean)):
            assert off(values, truth) < 4, twist
            assert float(values.std()) / 20 < 0.01
    (a, b), (c, d) = found["moments"], found["pigdm"]
    for one, other in ((a, c), (b, d)):
        assert (
            abs(float(one.mean() - other.mean()))
            < 4 * math.hypot(float(one.std()), float(other.std())) / 20
        )
    # They are different twists: their proposals are not the same.
    assert not torch.equal(b, d)


# WEIGHTS THAT NEED NO SAMPLE, AND PATHS
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "s"),
    [("consistent", 0.5), ("consistent", 0.25), ("published", 0.5), ("published", 0.25)],
)
def test_the_weight_of_fps_does_not_depend_on_the_sampled_image(form, s):
    """Half of a cloud at one x, half at another: within a half all x' differ and no weight does;
    between them they differ as N(o; m, v + h) says, o being the path's next place. One or two tau
    lie between the levels."""
    post, sigma = bed("general", sigma=0.4), 0.8
    method, f, rng = FPS(64, form, share=0.0), svd_coordinates.frame(post), Streams(2, [0], 64)
    pair = torch.randn(2, 6, dtype=F64, generator=torch.Generator().manual_seed(4))
    state = method.init(post, pair[:1].expand(64, 6), rng)
    (cloud, *rest), _ = method.step(post, state, level(1.6), level(sigma), rng)
    cloud = replace(cloud, x=pair.repeat_interleave(32, 0), log_w=torch.zeros(64, dtype=F64))
    (after, e, _), _ = method.step(post, (cloud, *rest), level(sigma), level(s), rng)
    halves = after.log_w.view(2, 32)
    assert float(after.x.view(2, 32, 6).std(1).max()) > 0.1
    assert float((halves - halves[:, :1]).abs().max()) < 1e-9
    if form == "consistent":
        seen, t, h = f.tau < sigma, f.tau.clamp(min=s), torch.zeros(6, dtype=F64)
        length = (t**2 - f.tau**2).clamp(min=0).sqrt()
        assert int(((f.tau > s) & seen).sum()) == {0.5: 1, 0.25: 2}[s]
    else:
        seen, t, h = f.tau.isfinite(), torch.full_like(f.tau, s), f.tau**2
        length = t
    x, x0 = f.spectrum.Vh(pair), f.spectrum.Vh(post.prior.denoise(pair, level(sigma)))
    kept = (t / sigma) ** 2
    o, m, v = f.u + length * e[:1], (1 - kept) * x0 + kept * x, t**2 * (1 - kept) + h
    said = MultivariateNormal(m[:, seen], torch.diag(v[seen])).log_prob(o[0, seen])
    torch.testing.assert_close(halves[1, 0] - halves[0, 0], said[1] - said[0])
    assert abs(float(said[1] - said[0])) > 0.1


class Along:
    """Random numbers of clouds that all follow one path: the measured coordinate of each first
    particle comes from a stream of its own."""

    def __init__(self, path, groups, particles):
        self.rng = Streams(100 + path, range(groups), particles)
        self.path = Streams(path, [0])
        self.shape = (groups, particles, 2)

    def normal(self, like):
        z = self.rng.normal(like)
        z.view(self.shape)[:, 0, 0] = self.path.normal(torch.zeros(1, dtype=F64))
        return z

    def uniform(self, count):
        return self.rng.uniform(count)


def crossed():
    """Two modes in two dimensions, correlated; the first number is known to be 0.4."""
    means = torch.tensor([[-1.0, 0.6], [0.8, -0.5]], dtype=F64)
    covariances = torch.tensor([[[1.0, 0.6], [0.6, 0.8]], [[0.5, -0.3], [-0.3, 0.4]]], dtype=F64)
    prior = po.priors.GaussianMixture(torch.tensor([0.5, 0.5], dtype=F64), means, covariances)
    A = po.operators.Mask(torch.tensor([True, False]))
    return po.Posterior(prior, po.Likelihood(torch.tensor([0.4], dtype=F64), A, Gaussian(0.0)))


@pytest.mark.parametrize("kernel", ["exact", "ancestral"])
def test_smcdiff_is_exact_for_every_single_path_with_the_exact_kernel(kernel):
    """Forty clouds along each path; their mean is E[x2 | x1 = 0.4] within standard errors, and with
    the ancestral kernel it is not."""
    post, groups, particles = crossed(), 40, 1000 if kernel == "exact" else 300
    tight = po.Posterior(post.prior, replace(post.given, noise=Gaussian(1e-5)))
    truth = float(exact_posterior(tight).mean[1])
    method, levels, far = SMCDiff(particles, kernel), po.grid.log(8, 20.0, 0.005), []
    for path in range(8):
        rng = Along(path, groups, particles)
        blank = torch.zeros(groups * particles, 2, dtype=F64)
        state = method.init(post, post.prior.start(rng.normal(blank), levels[0]), rng)
        for sigma, s in pairwise(levels):
            state, _ = method.step(post, state, sigma, s, rng)
        assert float((state.e[:, 0] - state.e[0, 0]).abs().max()) < 1e-12
        far.append(
            off(
                (state.cloud.clouds.softmax(1) * state.cloud.x[:, 1].view(groups, particles)).sum(
                    1
                ),
                truth,
            )
        )
    assert (max(far) < 4.5) if kernel == "exact" else (sorted(far)[4] > 8), far


# RESAMPLING
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_resampling_copies_each_particle_n_w_times_on_average(scheme, ordered):
    """Through ``resample`` with and without an order, and ``collect``: E[count_i] = N w_i, of M
    returned ones M w_i."""
    w, groups, returned = torch.tensor([0.02, 0.4, 0.13, 0.25, 0.2], dtype=F64), 4000, 2
    along = torch.tensor([3.0, -1.0, 2.0, 0.5, -2.0], dtype=F64).repeat(groups) if ordered else None
    cloud = clouds.weigh(
        clouds.start(torch.arange(5, dtype=F64).repeat(groups)[:, None], 5), w.log().repeat(groups)
    )
    copied = clouds.resample_particles(cloud, Streams(1, range(groups), 5), 1.0, scheme, along)[0].x
    taken = clouds.collect(cloud, Streams(2, range(groups), 5), returned, scheme)[0]
    for x, count in ((copied, 5), (taken, returned)):
        got = torch.nn.functional.one_hot(x.view(groups, count).long(), 5).sum(1).double()
        error = got.std(0) / groups**0.5
        assert bool(((got.mean(0) - count * w).abs() < 4 * error + 1e-12).all())
        assert float(error.max()) < 0.03
