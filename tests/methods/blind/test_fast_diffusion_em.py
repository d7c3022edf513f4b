"""FastDiffusionEM: its M-step is a regression, exact expectations raise the evidence, draws of a
known instrument follow the posterior."""

import torch
from blind import Same, blind_post, known_kernel
from reference import draw

import posteriori as po
from posteriori.evaluation.blind import known_instrument
from posteriori.methods import FastDiffusionEM
from posteriori.methods.blind.beliefs import belief_of, normal_equations
from posteriori.methods.blind.pair import blind_pair
from posteriori.methods.data_steps.gaussian_draws import Tilted, exact_draw

F64 = torch.float64


def test_the_best_kernel_of_several_images_solves_the_summed_normal_equations():
    """The gradient of log p(k) - sum_i ||y - A(x_i; k)||^2 / (2 s^2) is 0 there."""
    pair, s = blind_pair(blind_post(side=4)), 0.05
    x = 0.5 + 0.2 * draw(6, 1, 4, 4)
    each = normal_equations(pair, x, torch.full((6,), s, dtype=F64))
    for group in (1, 3):
        for k, best in enumerate(each.summed(group).best()):
            leaf = best.clone().requires_grad_()
            rows = x[k * group : (k + 1) * group]
            misfit = (pair.post.given.y - pair.A.apply(rows, leaf.view(3, 3))).square().sum()
            value = belief_of(pair).log_prob(leaf.view(1, 3, 3)).sum() - misfit / (2 * s**2)
            (slope,) = torch.autograd.grad(value, leaf)
            assert float(slope.abs().max()) < 1e-6 * float(misfit.detach() / s**2 + 1)


def points(posterior):
    """Images of the mean and the covariance of a Gaussian: mean +- sqrt(d) L e_i."""
    C = posterior.covariance
    d = len(C)
    L = torch.linalg.cholesky(C + 1e-12 * torch.eye(d, dtype=F64)) * d**0.5
    mean = posterior.mean
    return torch.cat([mean + sign * L.T.view(d, *mean.shape) for sign in (1, -1)])


def rounds(post, k, use_mean, count):
    """log p(k) + log p(y | k) along rounds of EM with exact expectations, and the last kernel."""
    pair, found = blind_pair(post), []
    for _ in range(count):
        exact = known_instrument(post, k)
        found.append(exact.log_evidence + float(belief_of(pair).log_prob(k[None])))
        x = exact.mean[None] if use_mean else points(exact)
        noise = torch.full((len(x),), post.given.std * len(x) ** 0.5, dtype=F64)
        k = normal_equations(pair, x, noise).summed(len(x)).best().view(3, 3)
    return torch.tensor(found, dtype=F64), k


def test_with_exact_expectations_every_round_raises_the_evidence_and_with_means_it_falls():
    post = blind_post(spread=0.3, side=5, sigma=0.1)
    point = torch.zeros(3, 3, dtype=F64)
    point[1, 1] = 1.0
    rising, k = rounds(post, point, False, 12)
    assert float(rising.diff().min()) > -1e-7
    assert float(rising[-1] - rising[0]) > 1
    falling, _ = rounds(post, k, True, 8)
    assert float(falling[-1] - falling[0]) < -0.01


def test_an_image_of_a_known_kernel_is_a_draw_from_the_spring_at_the_denoised_one():
    """The exact draw of N(x; D, r2 I) p(y | x) with the next level's noise: the step of DAPS, which
    follows the posterior of a Gaussian prior; at the last level the draw itself."""
    post, alone = known_kernel(1e-9)
    pair = blind_pair(post)
    c, sigma, s = pair.units[0], torch.tensor(0.8, dtype=F64), torch.tensor(0.4, dtype=F64)
    u = pair.packed(0.5 * draw(3, 1, 4, 4), pair.told(post.prior.sample(3, 1))[1])
    v = c * pair.split(u)[0]
    D, r2 = alone.prior.denoise(v, c * sigma), alone.prior.know().error(c * sigma)
    for lower in (s, 0 * s):
        found, _ = FastDiffusionEM(samples=1).step(post, u, sigma, lower, Same())
        wanted = exact_draw(Tilted(alone.likelihood, D, r2), Same())
        if float(lower) > 0:
            wanted = wanted + c * lower * Same().normal(v)
        torch.testing.assert_close(c * pair.split(found)[0], wanted, rtol=1e-5, atol=1e-6)


def test_equal_images_give_one_kernel_however_many_they_are():
    """The belief weighs as much beside one image as beside three that are the same."""
    post = blind_post(side=4)
    u = (0.3 * draw(1, *post.shape)).expand(3, -1)
    sigma, s = torch.tensor(0.8, dtype=F64), torch.tensor(0.4, dtype=F64)
    ends = []
    for samples in (1, 3):
        method = FastDiffusionEM(samples, "mean")
        ends.append(blind_pair(post).split(method.step(post, u, sigma, s, Same(0.0))[0])[1])
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-7, atol=1e-9)


def test_rows_of_a_cloud_share_a_kernel_and_clouds_do_not():
    post = blind_post(side=4)
    run = po.sample(post, FastDiffusionEM(samples=3), n=6, steps=8, seed=1)
    k = run.parts["kernel"].samples
    assert torch.equal(k[0], k[1])
    assert torch.equal(k[3], k[5])
    assert not torch.equal(k[0], k[3])
    assert not torch.equal(run.parts["image"].samples[0], run.parts["image"].samples[1])
