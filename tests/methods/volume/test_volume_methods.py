"""Methods of volumes and videos: what they reduce to, and what of them is exact."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from cases import full_gaussian
from reference import F64, Given, draw, drive, flat, level, moved
from scipy.integrate import solve_ivp

import posteriori as po
from posteriori import methods, priors
from posteriori.methods.data_steps.total_variation import jumps, no_split
from posteriori.noise import Gaussian
from posteriori.operators import Dense, Slicewise

DEPTH = 4


def volume(sigma=0.2, depth=DEPTH, alike=False):
    """Slices of six correlated numbers, each seen through four."""
    one = Dense(draw(4, 6, seed=1))
    y = draw(1 if alike else depth, 4, seed=2).expand(depth, 4).clone()
    prior = priors.Slices(full_gaussian(F64, (6,)), depth)
    return po.Posterior(prior, po.Likelihood(y, Slicewise(one, depth), Gaussian(sigma)))


LEVELS = torch.tensor([8.0, 3.0, 1.0, 0.3, 0.0], dtype=F64)


def test_dds3d_without_weight_is_dds():
    post = volume()
    for direction in ("implied", "network"):
        whole = methods.DDS3D(lam=0.0, direction=direction, iterations=30, rtol=0.0)
        slices = methods.DDS("matched", direction=direction, iterations=30, rtol=0.0)
        a, _ = drive(post, whole, 2, LEVELS)
        b, _ = drive(post, slices, 2, LEVELS)
        torch.testing.assert_close(a[0], b, rtol=1e-7, atol=1e-7)


def test_the_converged_data_step_is_the_projection_and_the_proximal_point():
    post, x0 = volume(), draw(2, DEPTH, 6, seed=4)
    A, y = po.operators.matrix(post.likelihood.A), post.likelihood.y.flatten()
    converged = methods.DDS3D(0.0, weighting="noiseless", iterations=60, rtol=1e-13)
    out, _ = converged.data_step(post, x0, no_split(x0), level(0.7))
    closest = x0.flatten(1) + (y - x0.flatten(1) @ A.T) @ torch.linalg.pinv(A).T
    torch.testing.assert_close(out.flatten(1), closest, rtol=1e-7, atol=1e-7)
    out, _ = replace(converged, weighting="matched").data_step(post, x0, no_split(x0), level(0.7))
    w = 0.2**2 / post.prior.know().error(0.7)
    near = torch.linalg.solve(
        A.T @ A + w * torch.eye(24, dtype=F64), (A.T @ y + w * x0.flatten(1)).T
    )
    torch.testing.assert_close(out.flatten(1), near.T, rtol=1e-8, atol=1e-8)
    misfits = []
    for k in range(1, 8):
        u, _ = replace(converged, iterations=k).data_step(post, x0, no_split(x0), level(0.7))
        misfits.append(float(post.likelihood.residual(u).norm()))
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(misfits))


def test_a_huge_weight_makes_the_slices_one():
    post, x0 = volume(), draw(1, DEPTH, 6, seed=4)
    tied = methods.DDS3D(1e3, rho=1.0, iterations=12, outer=60, rtol=1e-9)
    out, _ = tied.data_step(post, x0, no_split(x0), level(0.7))
    assert float(jumps(out).abs().max()) < 1e-4
    loose, _ = replace(tied, lam=1e-3).data_step(post, x0, no_split(x0), level(0.7))
    assert float(jumps(loose).abs().max()) > 0.1


@pytest.mark.parametrize("method", [methods.DDS3D(), methods.DiffusionMBIR()])
def test_the_split_lives_on_from_step_to_step(method):
    """A run that forgets it between steps ends elsewhere."""
    post = volume()
    state, _ = drive(post, method, 1, LEVELS)

    class Forgetful(type(method)):
        def step(self, post, state, sigma, s, rng):
            return super().step(post, (state[0], no_split(state[0])), sigma, s, rng)

    forgot, _ = drive(post, Forgetful(), 1, LEVELS)
    assert float((state[0] - forgot[0]).abs().max()) > 1e-3


def test_diffusion_mbir_takes_one_descent_step_without_weight():
    post, x = volume(), draw(1, DEPTH, 6, seed=4)
    out, _ = methods.DiffusionMBIR(lam=0.0, noise="ignored").data_step(post, x, no_split(x))
    A = post.likelihood.A
    g = A.adjoint(post.likelihood.residual(x))
    torch.testing.assert_close(out, x + g * g.square().sum() / A(g).square().sum())


def test_diffusion_mbir_corrects_by_langevin_steps_of_its_own_size():
    """With a flat likelihood and no total variation: predictor, then x + h score + sqrt(2 h) z."""
    post = flat(volume())
    sigma, s = level(2.0), level(1.0)
    numbers = torch.cat([draw(1, 24, seed=6), draw(1, 24, seed=7)], 1)
    x = draw(1, DEPTH, 6, seed=5)
    method = methods.DiffusionMBIR(lam=0.0)
    (out, _), _ = method.step(post, (x, no_split(x)), sigma, s, Given(numbers))
    ahead = methods.DDIM(1.0)(post.prior.denoise, x, sigma, s, Given(numbers[:, :24]))
    z = numbers[:, 24:].view(1, DEPTH, 6)
    score = post.prior.denoise(ahead, s) - ahead
    h = 2 * (0.16 * z.norm() / score.norm()) ** 2
    torch.testing.assert_close(out, ahead + h * score + (2 * h).sqrt() * z, rtol=1e-6, atol=1e-6)


# VIDEO
# --------------------------------------------------------------------------------------------------


def test_frames_that_are_measured_alike_stay_alike():
    post = volume(0.0, alike=True)
    frames, _ = drive(post, methods.SVI(), 2, LEVELS)
    assert float(jumps(frames).abs().max()) < 1e-12
    apart, _ = drive(post, methods.SVI(shared=False), 2, LEVELS)
    assert float(jumps(apart).abs().max()) > 1e-2


def test_a_video_seen_frame_by_frame_is_each_frame_with_the_same_noise():
    post = volume(0.0)
    method = methods.SVI(iterations=60, rtol=1e-13)
    z, fresh = draw(1, 6, seed=8), draw(4, 1, 6, seed=9)

    class Same:
        def __init__(self):
            self.calls = -1

        def normal(self, like):
            self.calls += 1
            # One draw for all frames is the sum of theirs over the root of their number.
            z = torch.zeros_like(like)
            z[:, 0] = fresh[self.calls] * like.shape[1] ** 0.5
            return z

    def run(target, x):
        state, rng = method.init(target, x, None), Same()
        for sigma, s in pairwise(LEVELS):
            state, _ = method.step(target, state, sigma, s, rng)
        return state

    whole = run(post, 8.0 * z[None].expand(1, DEPTH, 6).clone())
    one = post.likelihood.A.inner
    for k in range(DEPTH):
        like = po.Likelihood(post.likelihood.y[k : k + 1], Slicewise(one, 1), Gaussian(0.0))
        frame = po.Posterior(priors.Slices(full_gaussian(F64, (6,)), 1), like)
        alone = run(frame, 8.0 * z[None])
        torch.testing.assert_close(alone[:, 0], whole[:, k], rtol=1e-7, atol=1e-7)


# PERPENDICULAR PRIORS
# --------------------------------------------------------------------------------------------------

C1 = torch.tensor([[1.6, 0.5], [0.5, 0.4]], dtype=F64)
C2 = torch.tensor([[0.5, -0.2], [-0.2, 0.9]], dtype=F64)


def two_views(weights=None):
    parts = [priors.Gaussian(torch.zeros(2, dtype=F64), C) for C in (C1, C2)]
    return priors.AveragedScores(parts, weights)


def unguided(prior):
    like = po.Likelihood(
        torch.zeros(1, dtype=F64), Dense(torch.ones(1, 2, dtype=F64)), Gaussian(1e7)
    )
    return po.Posterior(prior, like)


def turns_law(post, method, levels):
    """The exact covariance of the samples of a sampler that takes turns."""
    covariance = levels[0] ** 2 * torch.eye(2, dtype=F64)
    mean = torch.zeros(2, dtype=F64)
    for k, (sigma, s) in enumerate(pairwise(levels)):

        def step(x, rng, k=k, sigma=sigma, s=s):
            made = torch.full((len(x),), k)
            return method.step(post, (x, made), sigma, s, rng)[0][0]

        mean, covariance = moved(step, mean, covariance)
    return covariance


def averaged_limit(weights, top):
    """The covariance of reverse diffusion under the averaged score, by an integrator of order 8:
    dP = ((G - I) P + P (G - I)) / sigma^2 + I over a fall of sigma^2."""

    def slope(t, p):
        s2 = top**2 * np.exp(-t)
        P = p.reshape(2, 2)
        G = sum(
            w * C.numpy() @ np.linalg.inv(C.numpy() + s2 * np.eye(2))
            for w, C in zip(weights, (C1, C2), strict=True)
        )
        M = G - np.eye(2)
        # In ln sigma^2, which falls evenly.
        return (M @ P + P @ M.T + s2 * np.eye(2)).ravel()

    end = np.log(top**2 / 1e-10)
    out = solve_ivp(slope, (0, end), (top**2 * np.eye(2)).ravel(), "DOP853", rtol=1e-10, atol=1e-13)
    return torch.from_numpy(out.y[:, -1].reshape(2, 2))


@pytest.mark.parametrize(("every", "weights"), [(2, (0.5, 0.5)), (3, (2 / 3, 1 / 3))])
def test_taking_turns_tends_to_the_averaged_score_to_first_order(every, weights):
    post, top = unguided(two_views()), 30.0
    limit = averaged_limit(weights, top)
    errors = []
    for steps in (40, 160):
        levels = torch.cat([po.grid.log(steps, top, 1e-4), torch.zeros(1, dtype=F64)])[: steps + 1]
        found = turns_law(post, methods.TPDM(every=every), levels)
        errors.append(float((found - limit).abs().max()))
    assert errors[-1] < 0.1
    for coarse, fine in pairwise(errors):
        assert 3 < coarse / fine < 5.5  # four times as many steps


def test_the_averaged_score_is_not_the_product_of_the_priors():
    limit = averaged_limit((0.5, 0.5), 30.0)
    product = torch.linalg.inv(0.5 * torch.linalg.inv(C1) + 0.5 * torch.linalg.inv(C2))
    assert float((limit - product).abs().max()) > 0.05
    # At no noise the scores do agree: what differs is the noise.
    prior, x, s = two_views(), draw(3, 2), level(1e-4)
    score = (prior.denoise(x, s) - x) / s**2
    torch.testing.assert_close(score, -x @ torch.linalg.inv(product), rtol=1e-5, atol=1e-5)


def test_equal_isotropic_views_are_one_prior():
    one = priors.Gaussian(torch.zeros(3, 3, dtype=F64), 0.7)
    pair = priors.AveragedScores([one, priors.Turned(one, (1, 0))])
    like = po.Likelihood(draw(9, seed=1), Dense(draw(9, 9), (3, 3)), Gaussian(0.3))
    x, s = draw(2, 3, 3), level(0.5)
    torch.testing.assert_close(pair.denoise(x, s), one.denoise(x, s))
    flatly = [flat(po.Posterior(p, like)) for p in (one, pair)]
    a, _ = drive(flatly[0], methods.Unconditional(methods.DDIM(1.0)), 2, LEVELS)
    b, _ = drive(flatly[1], methods.TPDM(), 2, LEVELS)
    torch.testing.assert_close(a, b[0], rtol=1e-6, atol=1e-6)


def test_a_turn_and_back_is_nothing_and_swapping_views_turns_the_volume():
    slices = priors.Slices(full_gaussian(F64, (2, 3)), 3)
    x, s = draw(2, 3, 2, 3), level(0.6)
    across = priors.Turned(slices, (2, 1, 0))
    assert torch.equal(priors.Turned(across, (2, 1, 0)).denoise(x, s), slices.denoise(x, s))
    turned = x.permute(0, 3, 2, 1)
    torch.testing.assert_close(across.denoise(turned, s), slices.denoise(x, s).permute(0, 3, 2, 1))
    both = priors.AveragedScores([slices, across])
    torch.testing.assert_close(both.denoise(turned, s), both.denoise(x, s).permute(0, 3, 2, 1))


def test_the_second_view_has_one_of_every_so_many_steps():
    class Told(priors.Prior):
        def __init__(self, name, log):
            super().__init__((2,), variance=1.0, sigma_max=30.0, sigma_min=0.01)
            self.name, self.log = name, log

        def denoise(self, x, sigma):
            self.log.append(self.name)
            return x / (1 + sigma**2)

    for every, turns in (
        (2.0, "abababab"),
        (3.0, "aabaabaa"),
        (1.0, "bbbbbbbb"),
        (2.5, "aababaab"),
    ):
        log = []
        pair = priors.AveragedScores([Told("a", log), Told("b", log)])
        post = unguided(pair)
        levels = torch.linspace(8, 0, 9, dtype=F64)
        drive(post, methods.TPDM(every=every), 1, levels)
        assert "".join(log) == turns
        run = po.sample(post, methods.TPDM(every=every), n=3, grid=levels)
        assert run.counts["denoiser"] == 8


def test_views_of_other_kinds_are_refused_by_name():
    one = full_gaussian(F64, (2, 3))
    with pytest.raises(ValueError, match="axes must be 0 to 1 in some order"):
        priors.Turned(one, (0, 0))
    with pytest.raises(ValueError, match="one shape, range and kind"):
        priors.AveragedScores([one, full_gaussian(F64, (3, 2))])
    with pytest.raises(ValueError, match="as many weights > 0"):
        priors.AveragedScores([one], [0.0])
    with pytest.raises(ValueError, match=r"TPDM.every: expected a number >= 1, got 0.5"):
        methods.TPDM(every=0.5)
    with pytest.raises(ValueError, match="second denoised image"):
        methods.DDS3D(transition=methods.Midpoint())
