"""GibbsDDRM: the law of the parameters it draws, DDRM where they are known, the collapsed order."""

import pytest
import torch
from blind import Same, blind_post, known_kernel, wide_post
from reference import draw

import posteriori as po
from posteriori.methods import DDRM, GibbsDDRM
from posteriori.methods.blind.beliefs import (
    belief_of,
    drawn_beliefs,
    move_parameters,
    normal_equations,
)
from posteriori.methods.blind.pair import blind_pair
from posteriori.priors import kernel_family

ops, F64 = po.operators, torch.float64


def regression(pair, x, s):
    """Precision and mean of a kernel's law given one image, by dense algebra in its own numbers."""
    belief = belief_of(pair)
    X = torch.stack([pair.A.apply(x, e.view(3, 3)).flatten() for e in torch.eye(9, dtype=F64)], 1)
    C = torch.linalg.inv(belief.covariances[0])
    Q = C + X.T @ X / s**2
    b = C @ belief.mean.flatten() + X.T @ pair.post.given.y.flatten() / s**2
    return Q, torch.linalg.solve(Q, b)


def test_a_kernel_is_drawn_from_its_law_given_the_image():
    """Mean and covariance (X^T X / s^2 + C^-1)^-1, by the unit vectors of the normal numbers."""
    pair, s = blind_pair(blind_post(side=4)), 0.05
    x = 0.5 + 0.2 * draw(1, 1, 4, 4)
    Q, mean = regression(pair, x, s)
    z = torch.cat([torch.zeros(1, 9, dtype=F64), torch.eye(9, dtype=F64)])

    class Units:
        def normal(self, like):
            return z.view(like.shape)

    rows = torch.full((10,), s, dtype=F64)
    phi = torch.zeros(10, 3, 3, dtype=F64)
    out = move_parameters(pair, x.expand(10, 1, 4, 4), phi, rows, Units(), 1).flatten(1)
    torch.testing.assert_close(out[0], mean, rtol=1e-8, atol=1e-10)
    steps = out[1:] - out[0]
    torch.testing.assert_close(steps.T @ steps, torch.linalg.inv(Q), rtol=1e-8, atol=1e-12)
    best = normal_equations(pair, x, rows[:1]).best()[0]
    torch.testing.assert_close(best, mean, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("eta_b", [1.0, 0.6])
def test_with_a_kernel_that_is_a_point_a_step_is_that_of_ddrm(eta_b):
    post, alone = known_kernel(1e-9)
    pair = blind_pair(post)
    c, sigma, s = pair.units[0], torch.tensor(0.8, dtype=F64), torch.tensor(0.4, dtype=F64)
    u = pair.packed(0.5 * draw(3, 1, 4, 4), pair.told(pair.post.prior.sample(3, 1))[1])
    for cycles in (0, 2):
        method = GibbsDDRM(cycles=cycles, start=1.0, eta=0.7, eta_b=eta_b)
        found, _ = method.step(post, u, sigma, s, Same())
        x = c * pair.split(u)[0]
        wanted, _ = DDRM(0.7, eta_b).step(alone, x, c * sigma, c * s, Same())
        torch.testing.assert_close(c * pair.split(found)[0], wanted, rtol=1e-5, atol=1e-6)


def test_the_image_is_drawn_again_with_the_kernel_that_was_drawn_last():
    """Without fresh noise the coordinates that are measured well meet y by the new kernel; by that
    of the step before they do not."""
    post = blind_post(side=4, sigma=1e-4)
    pair = blind_pair(post)
    sigma, s = torch.tensor(0.5, dtype=F64), torch.tensor(0.3, dtype=F64)
    u = 0.3 * draw(2, *post.shape)
    u = torch.cat([u[:, :16], pair.expected(u)[:, :].flatten(1)], 1)
    end, _ = GibbsDDRM(start=1.0, cycles=2, widen=50.0).step(post, u, sigma, s, Same(0.0))
    x, new = pair.told(end)
    old = pair.told(u)[1]
    assert float((new - old).abs().max()) > 1e-3
    y = post.given.y
    gap, stale = ((y - pair.A.apply(x, k)).abs().amax((1, 2, 3)) for k in (new, old))
    assert float(gap.max()) < 1e-6
    assert float(stale.min()) > 1e-3


def test_a_width_that_y_is_not_linear_in_is_drawn_too_and_the_last_step_draws_none():
    post = wide_post(side=4)
    pair = blind_pair(post)
    u = 0.3 * draw(3, *post.shape)
    sigma, s = torch.tensor(0.5, dtype=F64), torch.tensor(0.3, dtype=F64)
    rng = po.rng.Streams(0, range(3))
    moved, _ = GibbsDDRM(start=1.0, moves=20).step(post, u, sigma, s, rng)
    assert not torch.equal(pair.split(moved)[1], pair.split(u)[1])
    end, _ = GibbsDDRM(start=1.0).step(post, u, sigma, 0 * s, rng)
    assert torch.equal(pair.split(end)[1], pair.split(u)[1])


def test_a_kernel_near_one_of_several_is_drawn_by_their_probabilities_given_the_image():
    """Shares of the components within 4.5 standard errors of their evidence by dense algebra, draws
    of each about its conditional mean with its covariance."""
    rows, s = 4000, 0.05
    kernels = torch.stack([ops.gaussian_kernel(w, 3).to(F64) for w in (0.6, 0.8, 1.1)])
    post = blind_post(side=4, sigma=s)
    image, _ = post.prior.priors
    belief = kernel_family(kernels, 0.01, torch.tensor([0.5, 0.2, 0.3], dtype=F64))
    prior = po.priors.Joint({"image": image, "kernel": belief}, ranges={"image": (0, 1)})
    pair = blind_pair(po.Posterior(prior, post.given))
    x = 0.5 + 0.05 * draw(1, 1, 4, 4)
    X = torch.stack([pair.A.apply(x, e.view(3, 3)).flatten() for e in torch.eye(9, dtype=F64)], 1)
    C, y = belief.covariances[0], post.given.y.flatten()
    S = X @ C @ X.T + s**2 * torch.eye(16, dtype=F64)
    logs = [torch.distributions.MultivariateNormal(X @ k.flatten(), S).log_prob(y) for k in kernels]
    wanted = (torch.stack(logs) + belief.log_weights).softmax(0)
    assert 0.1 < float(wanted[0]) < 0.9
    phi = torch.zeros(rows, 3, 3, dtype=F64)
    rng, noise = po.rng.Streams(1, range(rows)), torch.full((rows,), s, dtype=F64)
    found = move_parameters(pair, x.expand(rows, -1, -1, -1), phi, noise, rng, 1).flatten(1)
    gain = C @ X.T @ torch.linalg.inv(S)
    centres = torch.stack([k.flatten() + gain @ (y - X @ k.flatten()) for k in kernels])
    mean = wanted @ centres
    within = C - gain @ X @ C
    between = (centres - mean).T @ (wanted[:, None] * (centres - mean))
    std = (within + between).diagonal().sqrt()
    assert float(((found.mean(0) - mean) / std).abs().max()) < 4.5 / rows**0.5
    spread = torch.cov(found.T)
    room = 4.5 * (2 / rows) ** 0.5
    assert float((spread - within - between).abs().max() / std.square().max()) < room
    far = (
        found @ (centres[0] - centres[2])
        > (centres[0] + centres[2]) @ (centres[0] - centres[2]) / 2
    )
    assert 0 < float(far.double().mean()) < 1
    own = drawn_beliefs(pair, phi, po.rng.Streams(2, range(rows))).flatten(1)
    share = torch.cdist(own, kernels.flatten(1)).argmin(1).bincount(minlength=3).double() / rows
    assert float((share - belief.weights).abs().max()) < 0.1


def test_what_is_believed_of_a_width_must_be_one_gaussian_and_of_a_kernel_a_mixture():
    post = blind_post()
    image, _ = post.prior.priors
    kernels = po.priors.gaussian_kernels(3, torch.tensor([0.5, 1.0], dtype=F64), 0.01)
    prior = po.priors.Joint({"image": image, "kernel": kernels}, ranges={"image": (0, 1)})
    several = po.Posterior(prior, post.given)
    for method in (GibbsDDRM(), po.methods.GibbsDiffusion(), po.methods.FastDiffusionEM()):
        assert method.refuses(several) is None
    assert po.methods.BlindPnPDM().refuses(several) is None
    widths = wide_post()
    two = po.priors.GaussianMixture(torch.ones(2).double(), torch.zeros(2, 1).double(), 0.1)
    joint = po.priors.Joint({"image": widths.prior.priors[0], "log_width": two})
    several = po.Posterior(joint, widths.given)
    for method in (GibbsDDRM(), po.methods.GibbsDiffusion()):
        assert "one Gaussian" in method.refuses(several)
    assert "BlindGaussianBlur is not" in po.methods.FastDiffusionEM().refuses(wide_post())
