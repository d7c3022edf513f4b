"""FastDiffusionEM: its M-step is a regression, exact expectations raise the evidence, draws of a
known instrument follow the posterior."""

from dataclasses import replace

import pytest
import torch
from blind import Same, blind_post, known_kernel, wide_post
from reference import draw

import posteriori as po
from posteriori.diffusion_em import fit_instrument
from posteriori.evaluation.blind import known_instrument
from posteriori.methods import FastDiffusionEM
from posteriori.methods.blind.beliefs import belief_of, maximised, normal_equations
from posteriori.methods.blind.berkson import drawn_images, regression_on_denoised
from posteriori.methods.blind.pair import blind_pair
from posteriori.methods.data_steps.gaussian_draws import Tilted, exact_draw
from posteriori.priors import Gaussian
from posteriori.priors.error_spectrum import Covariance

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


class Wrapped(Covariance):
    """A covariance that is a torus's already."""

    def wrapped(self):
        return self


class Told(Gaussian):
    """A stationary Gaussian on a torus of 8 x 8 pixels that knows its error by frequency."""

    def __init__(self):
        t = torch.arange(8, dtype=F64)
        near = torch.exp(-torch.minimum(t, 8 - t) / 2)
        row = near[(t[:, None] - t).long() % 8]
        C = torch.kron(row, row)
        super().__init__(torch.zeros(1, 8, 8, dtype=F64), C)
        self.power = torch.fft.fft2(C[0].view(1, 8, 8)).real

    def know(self):
        def at(sigma, shape):
            s2 = float(sigma) ** 2
            return Wrapped(self.power * s2 / (self.power + s2), None, True)

        return replace(super().know(), covariance=at)


def told_post(rows, sigma=0.1):
    """Rows of a blur by one kernel, each with an image of its own: the pair, the images, the
    kernel."""
    image, kernel = Told(), torch.rand(3, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    kernel = kernel / kernel.sum()
    prior = po.priors.Joint({"image": image, "kernel": Gaussian(kernel, 0.1**2)})
    A = po.operators.BlindConvolution((1, 8, 8), (3, 3))
    x = image.sample(rows, 1)
    y = A.apply(x, kernel) + sigma * draw(rows, 1, 8, 8, seed=2)
    post = po.Posterior(prior, po.Likelihood(y[0], A, po.noise.Gaussian(sigma)))
    return post.for_rows(y), x, kernel


def test_a_kernel_from_denoised_images_has_the_error_that_the_regression_states():
    """Of images through noise, whose denoiser is exact: (k - truth)^T G (k - truth) is chi-square
    of 9 numbers, over 300 kernels of 4 images each, within 4.5 standard errors. With the noise of y
    alone it would be many times that."""
    rows, s = 1200, torch.tensor(0.7, dtype=F64)
    post, x, truth = told_post(rows)
    pair = blind_pair(post)
    x0 = pair.image.denoise(x + float(s) * draw(rows, 1, 8, 8, seed=3), s)
    at = truth.expand(rows, 3, 3)
    equations = regression_on_denoised(pair, x0, at, s, 1, Same()).summed(4)
    off = equations.near(truth.flatten().expand(300, 9), 1e6) - truth.flatten()
    square = torch.einsum("bi,bij,bj->b", off, equations.G, off)
    assert abs(float(square.mean()) - 9) < 4.5 * (18 / 300) ** 0.5
    blind = normal_equations(pair, x0, pair.noise(rows)).summed(4)
    off = blind.near(truth.flatten().expand(300, 9), 1e6) - truth.flatten()
    assert float(torch.einsum("bi,bij,bj->b", off, blind.G, off).mean()) > 30


def test_images_of_a_known_kernel_are_drawn_by_the_covariance_that_was_measured():
    """The law of the draw is that of N(D, C) p(y | x): its mean and covariance by dense matrices,
    from the unit vectors of its normal numbers."""
    post, _, truth = told_post(1)
    pair, s = blind_pair(post), torch.tensor(0.7, dtype=F64)
    D = 0.3 * draw(1, 1, 8, 8, seed=5)
    eye = torch.cat([torch.zeros(1, 128, dtype=F64), torch.eye(128, dtype=F64)])
    numbers = [eye[:, :64].view(-1, 1, 8, 8), eye[:, 64:].view(-1, 1, 8, 8)]

    class Units:
        def normal(self, like):
            return numbers.pop(0)

    whole = blind_pair(post.for_rows(post.likelihood.each.expand(129, -1, -1, -1)))
    phi = truth.expand(129, 3, 3)
    out = drawn_images(whole, D.expand(129, -1, -1, -1), phi, s, 129, Units()).flatten(1)
    M = pair.matrices(truth[None])[0]
    C = torch.linalg.inv(torch.linalg.inv(pair.image.covariance) + torch.eye(64) / s**2)
    gain = C @ M.T @ torch.linalg.inv(M @ C @ M.T + 0.01 * torch.eye(64, dtype=F64))
    y = post.likelihood.each[0].flatten()
    torch.testing.assert_close(
        out[0], D.flatten() + gain @ (y - M @ D.flatten()), rtol=1e-7, atol=1e-8
    )
    steps = out[1:] - out[0]
    torch.testing.assert_close(steps.T @ steps, C - gain @ M @ C, rtol=1e-6, atol=1e-8)


class Shrunk(po.priors.Prior):
    """A belief without a closed form whose denoiser halves the way to even taps."""

    def __init__(self):
        super().__init__((3, 3), variance=0.01, sigma_max=10.0, sigma_min=1e-4)

    def denoise(self, x, sigma):
        return 0.5 * (x + 1 / 9)


def test_any_other_belief_enters_by_its_denoiser_at_the_level_of_the_spring():
    """D_k of the regularised least squares, made feasible."""
    post = blind_post(side=4)
    image, _ = post.prior.priors
    joint = po.priors.Joint({"image": image, "kernel": Shrunk()}, ranges={"image": (0, 1)})
    pair = blind_pair(po.Posterior(joint, post.given))
    x, rho = 0.5 + 0.2 * draw(2, 1, 4, 4), 0.05
    before = torch.full((1, 9), 1 / 9, dtype=F64)
    data = normal_equations(pair, x, pair.noise(2)).summed(2).over(2)
    k = maximised(pair, data, before, rho).view(3, 3)
    leaf = before[0].clone().requires_grad_()
    misfit = (post.given.y - pair.A.apply(x, leaf.view(3, 3))).square().sum() / 2 / (2 * 0.02**2)
    goal = misfit + (leaf - before[0]).square().sum() / (2 * rho**2)
    (slope,) = torch.autograd.grad(goal, leaf, create_graph=True)
    H = torch.stack([torch.autograd.grad(g, leaf, retain_graph=True)[0] for g in slope])
    least = before[0] - torch.linalg.solve(H, slope.detach())
    half = (0.5 * (least + 1 / 9)).clamp(min=0)
    torch.testing.assert_close(k.flatten(), half / half.sum(), rtol=1e-7, atol=1e-9)
    run = po.sample(pair.post, FastDiffusionEM(samples=2), n=2, steps=4)
    assert float(run.parts["kernel"].samples.sum((1, 2)).sub(1).abs().max()) < 1e-6


def evidences(post, path):
    return [
        known_instrument(post, k).log_evidence
        + float(belief_of(blind_pair(post)).log_prob(k[None]))
        for k in path
    ]


def test_rounds_of_whole_runs_are_rounds_of_em():
    """With many exact draws a round ends where that with exact expectations does, and none lowers
    log p(k) p(y | k) by more than the draws explain."""
    post = blind_post(spread=0.3, side=5, sigma=0.1)
    point = torch.zeros(3, 3, dtype=F64)
    point[1, 1] = 1.0
    exact = po.methods.DAPS(draw="exact")
    fitted = fit_instrument(post, exact, rounds=5, n=400, start=point, steps=2)
    wanted, k = rounds(post, point, False, 1)
    assert fitted.parameters.shape == (6, 3, 3)
    far = float((k - point).norm())
    assert float((fitted.parameters[1] - k).norm()) < 0.1 * far
    found = torch.tensor(evidences(post, fitted.parameters), dtype=F64)
    assert float(found[0]) == pytest.approx(float(wanted[0]))
    assert float(found.diff().min()) > -0.05
    assert float(found[-1] - found[0]) > 1
    other = fit_instrument(post, po.methods.MMPS(), rounds=2, n=4, steps=6)
    assert evidences(post, other.parameters)[2] > evidences(post, point[None])[0]
    with pytest.raises(ValueError, match="at least 1"):
        fit_instrument(post, exact, rounds=0)
    with pytest.raises(ValueError, match="BlindGaussianBlur is not"):
        fit_instrument(wide_post(), exact)
