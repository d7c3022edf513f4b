"""EPS against the oracle, which conditions the prior itself; what its steps keep of a posterior's
variance; and what it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from cases import full_gaussian, mixture, toy_unet
from reference import draw

import posteriori as po
from posteriori import operators as ops
from posteriori import priors as pri
from posteriori.evaluation.exact import exact_posterior, oracle
from posteriori.evaluation.probe import affine_probe
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods import DDIM, DPS, EPS, MMPS, Reweighted
from posteriori.methods.explicit.eps import WHITE_BELOW
from posteriori.noise import ComplexGaussian, Gaussian
from posteriori.tasks import beds

double = {"dtype": torch.float64}
KINDS = ("white", "diagonal", "general")
BEDS = {
    **{kind: lambda kind=kind: beds.gaussian_bed(kind) for kind in KINDS},
    **{
        f"gmm25 {d} {m}": lambda d=d, m=m: beds.gmm25(d, m, 0, "extended")
        for d in beds.DIMENSIONS
        for m in beds.MEASURED
    },
    **{f"ksd toy {s}": lambda s=s: beds.ksd_toy(s) for s in (0.2, 0.5)},
    "mixture256": lambda: beds.mixture256(0),
}


def levels(high, low, count=6):
    return torch.logspace(math.log10(high), math.log10(low), count, **double)


def gap(post, conditional, high, low):
    """The largest difference to the exact conditional denoiser, over its largest value."""
    assert EPS().refuses(post) is None
    x0 = post.prior.sample(3, 1)
    apart = []
    for sigma in levels(high, low):
        x = x0 + sigma * draw(*x0.shape, dtype=x0.dtype, seed=2)
        exact = conditional(x, sigma)
        apart.append(float((EPS().denoise(post, x, sigma) - exact).abs().max() / exact.abs().max()))
    return max(apart)


@pytest.mark.parametrize("name", BEDS)
def test_eps_is_the_oracle_on_every_bed(name):
    bed = BEDS[name]()
    exact = oracle(bed.posterior).prior
    assert gap(bed.posterior, exact.denoise, bed.sigma_max, bed.sigma_min) < 1e-10


# Every member of the family of covariances, on images.
INSTRUMENTS = {
    "identity": lambda: ops.Identity((3, 2, 4)),
    "mask": lambda: ops.Mask(ops.random_mask((2, 4), 0.5, 0), (3, 2, 4)),
    "circular blur": lambda: ops.Blur(draw(2, 3, **double), (3, 2, 4)),
    "box": lambda: ops.Downsample((3, 2, 4), 2).double(),
    "bicubic": lambda: ops.Downsample((3, 2, 4), 2, kind="bicubic").double(),
    "grey": lambda: ops.Grey((3, 2, 4)).double(),
}


@pytest.mark.parametrize("prior", ["Gaussian", "mixture"])
@pytest.mark.parametrize("name", INSTRUMENTS)
@pytest.mark.filterwarnings("ignore:Blur")
def test_eps_is_the_oracle_on_images(name, prior):
    A = INSTRUMENTS[name]()
    shape = A.in_shape
    p = full_gaussian(shape=shape) if prior == "Gaussian" else mixture(d=24, shape=shape)
    y = A(p.know().closed.sample(1, 3).view(1, *shape))[0]
    post = Posterior(p, Likelihood(y + 0.1, A, Gaussian(0.05)))
    assert gap(post, oracle(post).prior.denoise, 50.0, 0.01) < 1e-10


def test_eps_is_the_oracle_on_real_channels_of_a_complex_measurement():
    A = ops.MaskedFourier(ops.random_mask((3, 4), 0.5, 0), (3, 4)) @ ops.ComplexChannels((2, 3, 4))
    p = mixture(d=24, shape=(2, 3, 4))
    y = A(p.sample(1, 3))[0]
    post = Posterior(p, Likelihood(y, A, ComplexGaussian(sigma_per_channel=0.05)))
    assert gap(post, oracle(post).prior.denoise, 50.0, 0.01) < 1e-10


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("parts", ["Gaussian", "mixture"])
def test_eps_is_the_oracle_on_complex_images(parts, centred):
    pairs = (
        full_gaussian(shape=(2, 3, 4)) if parts == "Gaussian" else mixture(d=24, shape=(2, 3, 4))
    )
    prior = pri.ComplexImages(pairs)
    A = ops.MaskedFourier(ops.random_mask((3, 4), 0.5, 0), (3, 4), centred=centred)
    y = A(prior.sample(1, 3))[0]
    post = Posterior(prior, Likelihood(y, A, ComplexGaussian(sigma_per_channel=0.05)))
    M = A(torch.eye(12, dtype=torch.complex128).view(12, 3, 4)).T
    after, _ = prior.know().exact("posterior").condition(M, y, 0.05)
    assert gap(post, after.denoise, 50.0, 0.01) < 1e-10


@pytest.mark.parametrize("closed", [True, False])
def test_rows_with_masks_of_their_own_are_the_runs_of_each(closed):
    prior = mixture(d=8, shape=(2, 4)) if closed else told(ops.Identity((2, 4)))[0].prior
    likelihoods = []
    for seed in range(3):
        A = ops.Mask(ops.random_mask((2, 4), 0.5, seed))
        likelihoods.append(Likelihood(A(draw(1, 2, 4, **double, seed=seed))[0], A, Gaussian(0.1)))
    runs = po.sample_each(prior, likelihoods, EPS(), n=2, steps=6, seed=5)
    for j, (like, run) in enumerate(zip(likelihoods, runs, strict=True)):
        alone = po.sample(Posterior(prior, like), EPS(), n=2, steps=6, seed=5 + j)
        torch.testing.assert_close(run.samples, alone.samples, rtol=1e-9, atol=1e-9)


def kept(kind, method, steps):
    """The share of the exact variance along each axis of the posterior."""
    post = beds.gaussian_bed(kind).posterior
    exact = exact_posterior(post)
    grid = method.levels(post, steps)
    _, C = affine_probe(post, method, steps, grid)
    values, axes = torch.linalg.eigh(exact.covariance)
    return (axes.T @ C @ axes).diagonal() / values


@pytest.mark.parametrize("kind", KINDS)
def test_few_calls_keep_the_variance(kind):
    """19 calls: within a twelfth; 20 ancestral ones on the same levels lose a quarter at least, 39
    calls are within 2 %."""
    few, many = kept(kind, EPS(), 10), kept(kind, EPS(), 20)
    assert float(few.min()) > 0.92
    assert float(few.max()) < 1.08
    assert float(many.min()) > 0.98
    assert float(many.max()) < 1.02
    assert float(kept(kind, EPS(transition=DDIM()), 20).max()) < 0.8


def test_levels_end_where_y_leaves_little():
    post = beds.gaussian_bed("white").posterior
    levels = EPS().levels(post, 10)
    size = ops.norm2(post.likelihood.linear)
    assert float(levels[0]) == pytest.approx(4.0)
    assert float(levels[-2]) == pytest.approx(0.1 * 0.1 / size)
    flat = Posterior(
        post.prior, Likelihood(torch.zeros(1, **double), ops.Null((8,)), Gaussian(1.0))
    )
    assert float(EPS().levels(flat, 10)[-2]) == pytest.approx(post.prior.sigma_min)


def test_calls_are_two_denoisers_a_step_and_one_at_the_end():
    run = po.sample(beds.gaussian_bed("general").posterior, EPS(), n=2, steps=5)
    counts = {kind: run.counts[kind] for kind in ("denoiser", "vjp", "operator", "adjoint")}
    assert counts == {"denoiser": 9, "vjp": 0, "operator": 9, "adjoint": 9}


@dataclass(frozen=True)
class Rough:
    """A denoiser under noise that is off by a hundredth."""

    exact: object

    def refuses(self, covariance):
        return self.exact.refuses(covariance)

    def denoise(self, mu, covariance):
        return 1.01 * self.exact.denoise(mu, covariance)


class Told(pri.Gaussian):
    """Has no closed form, and a rough denoiser under noise that is not white, as a network that was
    trained for such noise."""

    def know(self):
        known = super().know()
        return replace(known.without_closed_form(), anisotropic=Rough(known.anisotropic))


def told(A, std=0.1):
    """The posterior of such a prior, and that of the Gaussian it is."""
    gaussian = full_gaussian(shape=A.in_shape)
    rough = Told(gaussian.mean, gaussian.covariance)
    like = Likelihood(A(gaussian.sample(1, 3))[0], A, Gaussian(std))
    return Posterior(rough, like), Posterior(gaussian, like)


def last(method, post, x, sigma):
    """D_y of a method at x: where its last step, to level 0, ends."""
    return method.step(post, x, sigma, torch.tensor(0.0, **double), None)[0]


@pytest.mark.parametrize("name", ["mask", "box"])
def test_near_the_level_of_y_a_network_is_asked_for_its_jacobian(name):
    """For 0.4 u < sigma < 2.5 u, u = sigma_y / ||A||, D_y of a last step is that of its denoiser
    under white noise: exact for a Gaussian by as many products as A has rows, to the solver's
    tolerance, MMPS's for fewer. Elsewhere, and with ``near`` of 0, it is that of its denoiser under
    P^-1, which is off by a hundredth."""
    A = INSTRUMENTS[name]()
    post, gaussian = told(A)
    size = {"mask": 1.0, "box": 0.5}[name]
    x = gaussian.prior.sample(3, 1)
    for times in (0.2, 0.39, 0.41, 1.0, 2.4, 2.6, 10.0):
        sigma = torch.tensor(times * post.likelihood.std / size, **double)
        exact = EPS().denoise(gaussian, x, sigma)
        near = 0.4 < times < 2.5
        found = last(EPS(iterations=math.prod(A.out_shape)), post, x, sigma)
        torch.testing.assert_close(found, exact if near else 1.01 * exact, rtol=0, atol=1e-3)
        plain = last(EPS(near=0), post, x, sigma)
        torch.testing.assert_close(plain, 1.01 * exact, rtol=1e-9, atol=1e-9)
        if near:
            two = MMPS(iterations=2).denoise(post, x, sigma)
            torch.testing.assert_close(last(EPS(), post, x, sigma), two, rtol=0, atol=0)


def test_derivatives_are_taken_near_the_level_of_y_alone():
    """Steps from 0.2 to 0.1 and to 0.02, where y has noise 0.1, in both calls of each. None where x
    and y leave white noise, nor of a prior in closed form."""
    mask = ops.Mask(ops.random_mask((2, 4), 0.5, 0), (2, 4))
    levels = torch.tensor([4.0, 0.5, 0.2, 0.1, 0.02, 0.0], **double)

    def products(post, method):
        counts = po.sample(post, method, n=2, grid=levels).counts
        assert counts["denoiser"] == 9
        return counts["vjp"]

    post, gaussian = told(mask)
    assert products(post, EPS()) == 8
    assert products(post, EPS(iterations=1)) == 4
    assert products(post, EPS(near=0)) == 0
    assert products(gaussian, EPS()) == 0
    for all_seen in (ops.Identity((2, 4)), ops.Mask(torch.ones(2, 4, dtype=torch.bool), (2, 4))):
        assert products(told(all_seen)[0], EPS()) == 0


@pytest.mark.parametrize("units", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("std", [0.1, 0.15, 0.3, 0.7])
@pytest.mark.parametrize("times", [WHITE_BELOW, EPS.near])
def test_a_level_at_the_border_takes_none_whatever_the_unit_of_y(times, std, units):
    mask = ops.Mask(ops.random_mask((2, 4), 0.5, 0), (2, 4))
    post = told(ops.Scaled(mask, units), std=units * std)[0]
    sigma, inside = torch.tensor(times * std, **double), 1.01 if times < 1 else 0.99
    for s in (0.0, 0.1, 0.5):
        # The middle of a step, sqrt(sigma s), is at the border; the last one is where it begins.
        begin = sigma / s**0.5 if s else sigma
        assert not EPS().phase(post, begin, s * begin)
        assert EPS().phase(post, inside * begin, inside * s * begin)


@pytest.mark.parametrize("kind", ["identity", "mask"])
def test_instruments_that_see_all_are_one_whoever_shares_their_batch(kind):
    """Several objects make a covariance for each row: white in all."""
    prior = told(ops.Identity((2, 4)))[0].prior
    likelihoods = []
    for seed in range(3):
        every = ops.Mask(torch.ones(2, 4, dtype=torch.bool), (2, 4))
        A = ops.Identity((2, 4)) if kind == "identity" else every
        likelihoods.append(Likelihood(draw(*A.out_shape, **double, seed=seed), A, Gaussian(0.1)))
    for batch in (None, 1, 2, 4):
        runs = po.sample_each(prior, likelihoods, EPS(), n=2, steps=8, seed=5, batch=batch)
        for j, (like, run) in enumerate(zip(likelihoods, runs, strict=True)):
            alone = po.sample(Posterior(prior, like), EPS(), n=2, steps=8, seed=5 + j)
            torch.testing.assert_close(run.samples, alone.samples, rtol=1e-9, atol=1e-9)
            assert run.counts["vjp"] == alone.counts["vjp"] == 0


@pytest.mark.parametrize("closed", [True, False])
def test_a_prior_that_knows_no_rows_takes_instruments_one_by_one(closed):
    """``Slices`` has a denoiser under the noise of one mask and not of one for each row."""
    plane = ops.Identity((2, 4))
    prior = pri.Slices(told(plane)[1 if closed else 0].prior)
    likelihoods = []
    for seed in range(2):
        A = ops.Mask(ops.random_mask((2, 4), 0.5, seed), (3, 2, 4))
        likelihoods.append(Likelihood(draw(*A.out_shape, **double, seed=seed), A, Gaussian(0.1)))
    assert EPS().refuses(Posterior(prior, likelihoods[0])) is None
    runs = po.sample_each(prior, likelihoods, EPS(), n=2, steps=6, seed=5)
    for j, (like, run) in enumerate(zip(likelihoods, runs, strict=True)):
        alone = po.sample(Posterior(prior, like), EPS(), n=2, steps=6, seed=5 + j)
        assert torch.equal(run.samples, alone.samples)


@pytest.mark.parametrize("std", [0.02, 0.1, 0.5, 1.0])
def test_a_plan_counts_the_derivatives_of_the_steps_that_take_them(std):
    mask = ops.Mask(ops.random_mask((2, 4), 0.5, 0), (2, 4))
    post = told(mask, std=std)[0]
    run = po.sample(post, EPS(iterations=1), n=2, steps=10)
    plan = post.plan(EPS(iterations=1), n=2, steps=10)
    assert plan.calls["vjp"] == run.counts["vjp"] > 0
    assert plan.calls["denoiser"] == 20
    assert "preconditioned GMRES" in plan.solves


def test_a_plan_of_another_method_around_it_counts_them_too():
    mask = ops.Mask(ops.random_mask((2, 4), 0.5, 0), (2, 4))
    post, method = told(mask)[0], Reweighted(EPS(iterations=1))
    run = po.sample(post, method, n=2, steps=10)
    assert post.plan(method, n=2, steps=10).calls["vjp"] == run.counts["vjp"] > 0


def test_complex_images_of_a_prior_without_a_closed_form_are_asked_as_such():
    """An uneven mask of k-space leaves complex images alone a covariance."""

    class Hidden(pri.ComplexImages):
        def know(self):
            return super().know().without_closed_form()

    pairs = full_gaussian(shape=(2, 4, 4))
    A = ops.MaskedFourier(ops.random_mask((4, 4), 0.5, 0), (4, 4))
    y = draw(*A.out_shape, dtype=torch.complex128)
    run = po.sample(
        Posterior(Hidden(pairs), Likelihood(y, A, ComplexGaussian(0.1))), EPS(), n=1, steps=15
    )
    assert run.counts["vjp"] > 0
    assert bool(run.samples.isfinite().all())


def test_passes_of_a_guided_prior_count_as_those_of_its_denoiser():
    class Twice(Told):
        def know(self):
            return replace(super().know(), passes=2)

    post, _ = told(ops.Identity((2, 4)))
    twice = Posterior(Twice(post.prior.mean, post.prior.covariance), post.given)
    assert po.sample(post, EPS(), n=2, steps=4).counts["denoiser"] == 7
    assert po.sample(twice, EPS(), n=2, steps=4).counts["denoiser"] == 14


def test_the_norm_of_an_operator_is_no_call_of_a_run():
    """It is measured once and kept with the operator."""
    A = ops.Units(torch.full((2, 4), 2.0, **double))
    run = po.sample(told(A)[0], DPS(), n=2, steps=4)
    assert run.counts["operator"] == 4
    levels = po.sample(told(A)[0], EPS(near=0), n=2, steps=4)
    assert levels.config["pilot"] is False


def test_refusals_name_the_nearest_method():
    net = pri.Network(toy_unet(), shape=(1, 8, 12), multiple=4, sigma_data=0.5)
    mask = ops.Mask(ops.random_mask((8, 12), 0.5, 0), (1, 8, 12))
    cases = {
        "trained for one noise level an image": (net, mask),
        "this network was not trained for noise with a level for each Fourier frequency": (
            net,
            ops.Blur(ops.gaussian_kernel(0.8), (1, 8, 12)),
        ),
        "no closed form is known": (
            net,
            ops.Blur(ops.gaussian_kernel(0.8), (1, 8, 12), boundary="reflect"),
        ),
    }
    for words, (prior, A) in cases.items():
        y = torch.zeros(A.out_shape)
        said = EPS().refuses(Posterior(prior, Likelihood(y, A, Gaussian(0.1), range=(-1, 1))))
        assert words in said
        assert "MMPS" in said
