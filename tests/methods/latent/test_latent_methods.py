"""Methods for latent priors: what they are on a linear autoencoder, and what each formula says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import Told, full_gaussian, mixture, orthonormal, phases, told, toy_autoencoder
from reference import F64, draw

import posteriori as po
from posteriori import methods
from posteriori import operators as ops
from posteriori import priors as pri
from posteriori.methods import DAPS, DPS, P2L, PSLD, STSL, DreamSampler, ReSample, TReg
from posteriori.methods.data_steps.descent import Conjugate
from posteriori.methods.data_steps.images import consistent, mixed, on_images, regularised
from posteriori.methods.latent.stsl import trace, trace_gradient
from posteriori.noise import Gaussian
from posteriori.packing import pack
from posteriori.rng import Streams

LEVEL = torch.tensor(0.7, dtype=F64)


def curved(prior=None, A=None, sigma=0.2, **how):
    """A posterior of images 1 x 6 x 4 decoded by a network of random weights."""
    prior = prior or full_gaussian(F64, (2, 3, 2))
    A = A or ops.Mask(ops.random_mask((6, 4), 0.5, 0), (1, 6, 4))
    latent = pri.Latent(prior, toy_autoencoder(F64), check=False, **how)
    y = A(draw(1, 1, 6, 4, seed=5))[0]
    return po.Posterior(latent, po.Likelihood(y, A, Gaussian(sigma), range=(-1, 1)))


def straight(B, z=None, sigma=0.2):
    """Latents of x = W u seen by A = B W^T, whose rows lie in the span of W; and u seen by B."""
    z, W = z or full_gaussian(F64, (4,)), orthonormal(B.shape[1] + 3, B.shape[1])
    latent = pri.Latent(z, pri.LinearAutoencoder(W, None, z.shape), range=None)
    y = draw(len(B), seed=5)
    noise = Gaussian(sigma)
    images = po.Posterior(latent, po.Likelihood(y, ops.Dense(B @ W.T), noise))
    return images, po.Posterior(z, po.Likelihood(y, ops.Dense(B, z.shape), noise)), W


METHODS = {
    "DPS": DPS(),
    "PSLD": PSLD(gamma=0.5),
    "PSLD norm": PSLD(0.8, 0.3, "norm"),
    "PSLD adjoint": PSLD(gamma=0.5, inverse="adjoint"),
    "STSL": STSL(),
    "TReg": TReg(every=2),
    "TReg weighed": TReg(lam=0.1, inner=9),
    "DreamSampler": DreamSampler(every=2),
    "DreamSampler edit": DreamSampler(start="measurement"),
    "DAPS": DAPS(),
    "ReSample": ReSample(),
    "ReSample on images": ReSample(pixels=0.0),
}


@pytest.mark.parametrize("name", METHODS)
def test_with_orthonormal_columns_a_method_is_itself_on_the_coordinates(name):
    latent, plain, W = straight(draw(3, 4))
    ours = po.sample(latent, METHODS[name], n=3, steps=5).samples
    theirs = po.sample(plain, METHODS[name], n=3, steps=5).samples
    torch.testing.assert_close(ours, theirs @ W.T, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("project", [0, 2])
def test_a_tuned_leaf_is_the_same_through_a_linear_decoder(project):
    latent, plain, W = straight(draw(5, 12), Told())
    method = P2L(tuning=2, rate=0.05, project=project)
    ours = po.sample(latent, method, n=2, steps=4).samples
    theirs = po.sample(plain, method, n=2, steps=4).samples
    torch.testing.assert_close(ours, theirs.flatten(1) @ W.T, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("PSLD norm", "DAPS")])
def test_a_scale_that_the_prior_shares_changes_nothing(name):
    """Latents 3 u of a prior of 3 u, along noise levels three times as large."""
    runs = []
    for scale in (1.0, 3.0):
        z = full_gaussian(F64, (2, 3, 2))
        u = pri.Gaussian(scale * z.mean, scale**2 * z.covariance)
        levels = scale * torch.tensor([9.0, 1.0, 0.2, 0.0], dtype=F64)
        post = curved(u, scale=scale)
        runs.append(po.sample(post, METHODS[name], n=2, steps=3, grid=levels).samples)
    torch.testing.assert_close(*runs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["PSLD", "TReg"])
def test_several_measurements_each_have_the_run_that_they_have_alone(name):
    """Also where images are met as the user states them, by operators of their own."""
    prior = curved().prior
    masks = [ops.Mask(ops.random_mask((6, 4), 0.5, k), (1, 6, 4)) for k in range(2)]
    likes = [
        po.Likelihood(A(draw(1, 1, 6, 4, seed=k))[0], A, Gaussian(0.2), range=(-1, 1))
        for k, A in enumerate(masks)
    ]
    runs = po.sample_each(prior, likes, METHODS[name], n=2, steps=2, seed=4)
    for k, like in enumerate(likes):
        alone = po.sample(po.Posterior(prior, like), METHODS[name], n=2, steps=2, seed=4 + k)
        torch.testing.assert_close(runs[k].samples, alone.samples, rtol=1e-9, atol=1e-9)


# PSLD
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glued", "plain"),
    [
        (PSLD(gamma=0.0), DPS()),
        (PSLD(0.3, 0.0, "norm"), DPS("norm", 0.3)),
    ],
    ids=["bounded", "norm"],
)
def test_without_gluing_it_is_latent_dps(glued, plain):
    post = curved()
    ours, theirs = (po.sample(post, method, n=3, steps=4).samples for method in (glued, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    more = po.sample(post, replace(glued, gamma=0.1), n=3, steps=4).samples
    assert float((more - theirs).abs().max()) > 1e-3


def test_the_gluing_vanishes_where_and_only_where_the_image_is_as_measured():
    """For A W with orthonormal rows B: h = B^T (y - B D), of which every residual is seen."""
    B = orthonormal(4, 2).T
    post, _, _ = straight(B)
    x0 = draw(3, 4)
    _, h = PSLD().gluing(post, x0)
    torch.testing.assert_close(h, (post.given.y - x0 @ B.T) @ B, rtol=1e-11, atol=1e-11)
    there = x0 + (post.given.y - x0 @ B.T) @ B
    q, h = PSLD().gluing(post, there)
    torch.testing.assert_close(q, torch.zeros_like(q), rtol=0, atol=1e-12)
    torch.testing.assert_close(h, torch.zeros_like(h), rtol=0, atol=1e-12)


@pytest.mark.parametrize("inverse", ["exact", "adjoint"])
def test_the_gluing_goes_down_the_gradient_of_its_length(inverse):
    """Through a curved decoder and encoder, by differentiating the length itself."""
    matrix = draw(7, 24)
    post = curved(A=ops.Dense(matrix, (1, 6, 4)))
    B = torch.linalg.pinv(matrix) if inverse == "exact" else matrix.T
    x0 = draw(2, 2, 3, 2)
    leaf = x0.clone().requires_grad_()
    x = post.chart.push(leaf)
    glued = x + ((post.given.y - x.flatten(1) @ matrix.T) @ B.T).view(x.shape)
    length = (post.chart.lift(glued) - leaf).square().sum() / 2
    (wanted,) = torch.autograd.grad(length, leaf)
    q, h = PSLD(inverse=inverse).gluing(post, x0)
    torch.testing.assert_close(q.square().sum() / 2, length.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(h, -wanted, rtol=1e-8, atol=1e-8)


def test_a_noiseless_truth_is_a_fixed_point():
    """A latent whose image is the truth is moved by neither term."""
    post, _, _ = straight(draw(3, 4), sigma=0.0)
    truth = draw(1, 4)
    y = (truth @ post.likelihood.A.B.M.T) @ post.given.A.matrix.T
    post = po.Posterior(post.prior, replace(post.given, y=y[0]))
    q, h = PSLD().gluing(post, truth)
    assert float(q.abs().max() + h.abs().max()) < 1e-10


def test_psld_refuses_an_operator_that_is_not_linear_on_images():
    assert "linear on images, PhaseRetrieval is not" in PSLD().refuses(phases())
    assert PSLD().refuses(curved()) is None


# STSL
# --------------------------------------------------------------------------------------------------


def basis(d, shape):
    """sqrt(d) times each unit vector: e with mean e e^T = I."""
    return [d**0.5 * row.view(1, *shape) for row in torch.eye(d, dtype=F64)]


def test_the_trace_is_exact_for_a_linear_denoiser():
    prior = full_gaussian(F64, (6,))
    post = po.Posterior(prior, po.Likelihood(draw(3), ops.Dense(draw(3, 6)), Gaussian(0.1)))
    C = prior.covariance
    J = C @ torch.linalg.inv(C + LEVEL**2 * torch.eye(6, dtype=F64))
    for h in (0.01, 3.0):
        found = trace(post, draw(1, 6), LEVEL, h, basis(6, (6,)))
        torch.testing.assert_close(found[0], LEVEL**2 * J.trace(), rtol=1e-9, atol=1e-9)


def test_the_descent_of_the_trace_is_its_derivative():
    post = po.Posterior(mixture(), po.Likelihood(draw(2), ops.Dense(draw(2, 4)), Gaussian(0.1)))
    x, h, draws = draw(1, 4), 0.1, [draw(1, 4, seed=k) for k in (3, 4)]
    pull = post.prior.linearize(x, LEVEL)[1]
    ours = trace_gradient(post, x, LEVEL, h, draws, pull)
    for k, step in enumerate(1e-5 * torch.eye(4, dtype=F64)):
        ahead, behind = (trace(post, x + t, LEVEL, h, draws) for t in (step, -step))
        torch.testing.assert_close(ours[0, k], (ahead - behind)[0] / 2e-5, rtol=1e-5, atol=1e-7)
    assert float(ours.abs().max()) > 1e-3


def test_without_the_spread_and_for_a_gaussian_prior_stsl_is_dps():
    general = po.Posterior(mixture(), po.Likelihood(draw(2), ops.Dense(draw(2, 4)), Gaussian(0.1)))
    x = draw(3, 4)
    for post, method in ((general, STSL(eta=0.0)), (straight(draw(3, 4))[0], STSL(eta=2.0))):
        ours = method.denoise(post, x, LEVEL, Streams(0, range(3)))
        wanted = DPS().denoise(post, x, LEVEL)
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)
    moved = STSL().denoise(general, x, LEVEL, Streams(0, range(3)))
    assert float((moved - DPS().denoise(general, x, LEVEL)).abs().max()) > 1e-4


# TREG
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0.3, 4.0])
def test_the_renewed_noise_has_the_variance_of_its_level(s):
    """In the authors' coordinates, times sqrt(a): (1 - a) of the old noise, sqrt(a (1 - a)) fresh,
    1 - a together; and a of what the data made."""
    s, zero = torch.tensor(s, dtype=F64), torch.zeros(1, 5, dtype=F64)
    a, noise = 1 / (1 + s**2), draw(1, 5)
    fresh = Streams(0, [0]).normal(zero)
    x = LEVEL * noise
    out = a.sqrt() * mixed(zero, zero, zero, x, LEVEL, s, 1.0, Streams(0, [0]))
    old, new = 1 - a, (a * (1 - a)).sqrt()
    torch.testing.assert_close(out, old * noise + new * fresh, rtol=1e-12, atol=1e-12)
    assert float(old**2 + new**2) == pytest.approx(float(1 - a), rel=1e-12)
    ones = torch.ones_like(zero)
    moved = mixed(ones, zero, zero, x, LEVEL, s, 1.0, Streams(0, [0])) - out / a.sqrt()
    torch.testing.assert_close(moved, a * ones, rtol=1e-12, atol=1e-12)


def test_a_heavy_weight_leaves_the_denoised_latent_and_a_light_one_fits_the_data():
    post, _, _ = straight(draw(3, 4))
    x0 = draw(2, 4)
    heavy, light = (regularised(post, x0, lam, 20) for lam in (1e12, 1e-9))
    torch.testing.assert_close(heavy, x0, rtol=1e-9, atol=1e-9)
    assert float(post.likelihood.residual(light).abs().max()) < 1e-6
    lam, (B, y) = 0.3, (post.likelihood.A, post.likelihood.y)
    between = regularised(post, x0, lam, 20)
    optimum = B.adjoint(B(between) - y) + lam * (between - x0)
    torch.testing.assert_close(optimum, torch.zeros_like(x0), rtol=0, atol=1e-10)


def test_consistency_on_images_ends_at_the_noise():
    """The image before it is encoded again has ||y - A x||^2 = m sigma_y^2."""
    post = curved(sigma=0.3)
    seen = []

    def watched(fit, x, steps, floor):
        seen.append(Conjugate()(fit, x, steps, floor))
        return seen[-1]

    x0 = 3 * draw(2, 2, 3, 2)
    z = consistent(post, x0, watched, 20)
    given = on_images(post)
    torch.testing.assert_close(given.chi2(seen[0]), torch.ones(2, dtype=F64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(z, post.chart.lift(seen[0]), rtol=0, atol=0)
    assert bool((given.chi2(pack(post.chart.push(x0))) > 1).all())


def test_the_null_text_comes_closer_to_what_the_data_ask_for():
    post = told()
    x = draw(2, 2, 3, 2)
    method = TReg(null_steps=3, null_rate=0.05, leaf="embedding")
    state = method.init(post, x, Streams(0, range(2)))
    x0 = post.prior.denoise(x, LEVEL)
    z = method.consistent(post, x0)
    (_, null, _), _ = method.step(post, state, LEVEL, LEVEL / 2, Streams(0, range(2)))
    after = post.prior.at(embedding=null).denoise(x, LEVEL)
    before, ahead = ((d - z).flatten(1).norm(dim=1) for d in (x0, after))
    assert bool((ahead < before).all())
    assert null.shape == (2, 2)


def test_treg_refuses_what_it_cannot_do():
    assert "lam needs an A linear on images" in TReg(lam=0.1).refuses(phases())
    assert TReg().refuses(phases()) is None
    assert "no leaf 'negative_embedding'" in TReg(null_steps=1).refuses(told())


# DREAMSAMPLER AND PRIORS THAT ARE TOLD SOMETHING
# --------------------------------------------------------------------------------------------------


class Means(torch.nn.Module):
    """The denoiser of white latents of variance 0.6 around means for each channel."""

    conditions = {"embedding": (2,)}

    def forward(self, x, label, embedding=None):
        share = 0.6 / (0.6 + label.view(-1, 1, 1, 1) ** 2)
        m = 0.0 if embedding is None else embedding[..., None, None]
        return m + (x - m) * share


def conditioned(guidance=2.5):
    """Latents told of one mean against another, decoded to images of which half is seen."""
    prior = pri.Network(
        Means(),
        shape=(2, 3, 2),
        parametrization="x0",
        schedule=pri.VE(0.01, 50.0),
        variance=0.6,
        conditions=Means.conditions,
    )
    told_of, against = (torch.tensor(m, dtype=F64) for m in ([0.5, -0.3], [-0.2, 0.1]))
    post = curved(prior)
    latent = post.prior.conditioned(
        embedding=told_of, negative={"embedding": against}, guidance=guidance
    )
    return po.Posterior(latent, post.given), told_of, against


def test_an_edit_moves_by_the_share_of_the_signal_and_renoises_without_the_text():
    post, told_of, against = conditioned()
    x, sigma, s = draw(2, 2, 3, 2), torch.tensor(1.2, dtype=F64), torch.tensor(0.4, dtype=F64)
    method = DreamSampler(inner=0)
    state = method.init(post, x, Streams(0, range(2)))
    (ours, _), _ = method.step(post, state, sigma, s, Streams(0, range(2)))
    share = 0.6 / (0.6 + sigma**2)
    low, high = (m.view(2, 1, 1) for m in (against, told_of))
    free = low + (x - low) * share
    moved = free + share * 2.5 * (1 - share) * (high - low)
    torch.testing.assert_close(ours, moved + s * (x - free) / sigma, rtol=1e-10, atol=1e-10)


def test_without_text_and_data_dreamsampler_is_ddim():
    post = curved()
    ours = po.sample(post, DreamSampler(inner=0), n=2, steps=4).samples
    ddim = po.sample(post, methods.Unconditional(methods.DDIM(0.0)), n=2, steps=4).samples
    torch.testing.assert_close(ours, ddim, rtol=1e-11, atol=1e-11)


def test_an_edit_starts_from_what_was_measured():
    """Enc(A^+ y) under noise of the first level, whatever the prior starts from."""
    post, x = curved(), draw(2, 2, 3, 2)
    method = DreamSampler(start="measurement", inner=0)
    state = method.init(post, x, Streams(0, range(2)))
    (ours, _), _ = method.step(post, state, LEVEL, LEVEL / 2, Streams(0, range(2)))
    source = post.chart.lift(post.given.A.adjoint(post.given.y[None]))
    begun = source + LEVEL * Streams(0, range(2)).normal(x)
    x0 = post.prior.denoise(begun, LEVEL)
    torch.testing.assert_close(ours, x0 + (begun - x0) / 2, rtol=1e-11, atol=1e-11)
    assert "pseudo-inverse" in replace(method).refuses(phases())


def test_the_leaves_of_a_conditioned_prior_are_what_p2l_and_treg_tune():
    post, told_of, against = conditioned()
    x = draw(2, 2, 3, 2)
    tuned = P2L(rate=0.05)
    state = tuned.init(post, x, Streams(0, range(2)))
    torch.testing.assert_close(state[1], told_of.expand(2, 2))
    (_, c, _), _ = tuned.step(post, state, LEVEL, LEVEL / 2, Streams(0, range(2)))
    assert float((c - told_of).abs().min()) > 1e-3
    null = TReg(null_steps=1, null_rate=0.05)
    state = null.init(post, x, Streams(0, range(2)))
    torch.testing.assert_close(state[1], against.expand(2, 2))
    (_, c, _), _ = null.step(post, state, LEVEL, LEVEL / 2, Streams(0, range(2)))
    assert float((c - against).abs().min()) > 1e-3
    for method in (tuned, null, DreamSampler(), PSLD(), STSL()):
        run = po.sample(post, method, n=1, steps=2)
        assert run.samples.shape == (1, 1, 6, 4)
        assert bool(run.samples.isfinite().all())


# P2L
# --------------------------------------------------------------------------------------------------


def test_prompts_that_are_not_tuned_leave_the_guidance():
    post = told()
    guide = po.sample(post, DPS(), n=2, steps=3).samples
    for method in (P2L(rate=0.0), P2L(tuning=0)):
        same = po.sample(post, method, n=2, steps=3).samples
        torch.testing.assert_close(same, guide, rtol=1e-12, atol=1e-12)


def test_each_step_tunes_the_prompt_of_each_row_down_the_misfit():
    post, method = told(), P2L(tuning=3, rate=0.02)
    x = draw(2, 2, 3, 2)
    state = method.init(post, x, Streams(0, range(2)))
    for level in (LEVEL, LEVEL / 2):
        c = state[1]
        tuned = method.tuned(post, state[0], level, c)
        assert bool(((tuned - c).abs().flatten(1).max(1).values > 1e-3).all())

        def misfit(c, x=state[0], level=level):
            x0 = post.prior.at(embedding=c).denoise(x, level)
            return post.likelihood.residual(x0).square().flatten(1).sum(1)

        assert bool((misfit(tuned) < misfit(c)).all())
        state, _ = method.step(post, state, level, level / 2, Streams(0, range(2)))
        torch.testing.assert_close(state[1], tuned, rtol=0, atol=0)


def test_a_prior_without_the_leaf_is_refused_with_those_that_it_has():
    with pytest.raises(ValueError, match="P2L: .* no leaf 'embedding' to tune .*has mean"):
        po.sample(straight(draw(3, 4))[0], P2L(), n=1, steps=1)


# RESAMPLE
# --------------------------------------------------------------------------------------------------


def test_the_residual_of_latents_stops_at_the_noise_level():
    """The end of a run is one of hard consistency through the decoder."""
    post = curved(sigma=0.3)
    run = po.sample(post, methods.ReSample(inner=40), n=3, steps=4)
    chi2 = post.given.chi2(run.samples)
    torch.testing.assert_close(chi2, torch.ones(3, dtype=F64), rtol=0.1, atol=0)


def test_at_high_levels_resample_meets_the_data_on_images():
    post, x0 = curved(), draw(2, 2, 3, 2)
    method = ReSample(pixels=1.0, inner=6)
    high, low = (torch.tensor(s, dtype=F64) for s in (2.0, 0.5))
    images = consistent(post, x0, Conjugate(), 6)
    torch.testing.assert_close(method.consistent(post, x0, high), images, rtol=0, atol=0)
    latents = ReSample(inner=6).consistent(post, x0, low)
    torch.testing.assert_close(method.consistent(post, x0, low), latents, rtol=0, atol=0)
    assert float((images - latents).abs().max()) > 1e-3
