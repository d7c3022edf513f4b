"""Methods that only call the instrument: calibrated guidance against the exact conditional
denoiser, and ensemble Kalman guidance."""

import io

import numpy as np
import pytest
import torch
from blind import smooth
from cases import bed, mixture, two_modes
from PIL import Image
from reference import draw

import posteriori as po
from posteriori.evaluation import exact_posterior
from posteriori.evaluation.ensembles import crps, spread_skill
from posteriori.methods import CBG, DDIM, EnKG
from posteriori.packing import pack, unpack
from posteriori.rng import Streams

F64 = torch.float64


class Closed(po.operators.Operator):
    """A compiled simulator: it breaks the graph, and is no function of tensors to torch."""

    def __init__(self, A):
        super().__init__(A.in_shape)
        self.A = A
        self.__dict__["_out_shape"] = A.out_shape

    def forward(self, x):
        assert not x.requires_grad
        return torch.from_numpy(self.A(x.detach()).numpy().copy())


def shut(post):
    given = post.given
    return po.Posterior(post.prior, po.Likelihood(given.y, Closed(given.A), given.noise))


def test_the_weighted_mean_of_candidates_tends_to_the_exact_conditional_denoiser():
    """Its error falls as one over the root of their number, on a mixture of three."""
    prior = mixture()
    A = po.operators.Dense(draw(2, 4, seed=3))
    post = po.Posterior(prior, po.Likelihood(draw(2, seed=4), A, po.noise.Gaussian(2.0)))
    exact, sigma = exact_posterior(post), torch.tensor(0.8, dtype=F64)
    x = prior.sample(32, 5) + 0.8 * draw(32, 4, seed=6)
    wanted, errors = exact.denoise(x, sigma), []
    for K in (16, 256, 4096):
        found, share = CBG(K, "exact").denoise(post, x, sigma, Streams(1, range(32)))
        errors.append(float((found - wanted).square().mean().sqrt()))
        assert bool((share > 0).all())
        assert bool((share <= 1).all())
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2
    assert errors[2] < 0.05


def test_candidates_of_a_run_of_the_prior_and_white_ones_are_those_of_the_closed_form():
    """Mean and variance of p(x0 | x) of a white Gaussian, within five standard errors."""
    post, n = bed("white"), 4000
    sigma, x = torch.tensor(0.9, dtype=F64), 0.5 * draw(1, 6)
    flat = po.Posterior(
        post.prior,
        po.Likelihood(torch.zeros(1).double(), po.operators.Null((6,)), po.noise.Gaussian(1.0)),
    )
    mean = flat.prior.denoise(x, sigma)
    r2 = 0.8 * 0.81 / (0.8 + 0.81)
    for method in (CBG(n, "exact"), CBG(n, "gaussian"), CBG(n, "diffusion", prior_steps=80)):
        found, share = method.denoise(flat, x, sigma, Streams(3, [0]))
        assert float(share) == pytest.approx(1.0)
        room = 5 * (r2 / n) ** 0.5 + (0.02 if method.draw == "diffusion" else 0.0)
        assert float((found - mean).abs().max()) < room


def over_levels(method, sigma, levels, rows):
    """The error of D_y after the last of these levels, and of candidates drawn anew there."""
    prior, A = mixture(), po.operators.Dense(draw(2, 4, seed=3))
    post = po.Posterior(prior, po.Likelihood(draw(2, seed=4), A, po.noise.Gaussian(sigma)))
    rng, z = Streams(1, range(rows)), draw(rows, 4, seed=6)
    state = method.init(post, z, rng)
    for level in levels:
        x = prior.sample(rows, 5) + level * z
        found, share, state = method.denoise_with(post, state, x, level, rng)
    wanted = exact_posterior(post).denoise(x, levels[-1])
    alone, before = method.denoise(post, x, levels[-1], rng)
    assert bool((share <= 1).all())
    assert float(share.mean()) > 2 * float(before.mean())
    return (float((d - wanted).square().mean().sqrt()) for d in (found, alone))


def test_candidates_that_are_kept_count_as_more_and_tend_to_the_exact_conditional_denoiser():
    """Few candidates meet y at high noise, where the levels hardly differ: those of ten levels
    together halve the error. It falls with their number."""
    levels = torch.linspace(20, 8, 10, dtype=F64)
    kept, alone = over_levels(CBG(64, "exact", keep=True), 0.5, levels, 200)
    assert kept < 0.7 * alone
    few, many = (
        next(over_levels(CBG(K, "exact", keep=True), 0.5, levels[-3:], 64)) for K in (32, 2048)
    )
    assert many < few / 3


@pytest.mark.parametrize("method", [CBG(64, "exact"), CBG(24, "exact", keep=True)], ids=str)
def test_calibrated_guidance_finds_the_masses_of_two_modes_through_a_closed_simulator(method):
    """Within four standard errors; the mass of the second mode is 0.67."""
    post = two_modes(6.0, F64)
    exact = exact_posterior(post)
    run = po.sample(shut(post), method, n=300, steps=60, seed=2)
    right = float((run.samples[:, 0] > 0).double().mean())
    wanted = float(exact.mixture.weights[1])
    assert abs(right - wanted) < 4 * (wanted * (1 - wanted) / 300) ** 0.5 + 0.02
    off = (run.samples.mean(0) - exact.mean) / exact.std
    assert float(off.abs().max()) < 4 / 300**0.5 + 0.05


def test_photon_counts_weigh_candidates_as_the_law_does():
    """E[x0 | x, y] of one number by quadrature, within five standard errors of its candidates."""
    prior, K = po.priors.Gaussian(torch.full((1,), 1.0, dtype=F64), 0.2), 4000
    noise = po.noise.Poisson(4.0)
    y = torch.tensor([1.75], dtype=F64)
    post = po.Posterior(prior, po.Likelihood(y, po.operators.Identity((1,)), noise))
    x, sigma = torch.tensor([[1.3]], dtype=F64), torch.tensor(0.6, dtype=F64)
    found, _ = CBG(K, "gaussian").denoise(post, x, sigma, Streams(1, [0]))
    grid = torch.linspace(1e-4, 4, 4001, dtype=F64)
    logs = torch.xlogy(4 * y, grid) - 4 * grid
    logs = logs - 0.5 * (grid - 1) ** 2 / 0.2 - 0.5 * (grid - 1.3) ** 2 / 0.36
    w = logs.softmax(0)
    mean = float(w @ grid)
    std = float(w @ (grid - mean).square()) ** 0.5
    assert abs(float(found) - mean) < 5 * 1.5 * std / K**0.5


def test_without_guidance_an_ensemble_follows_the_flow_and_with_it_stays_in_its_span():
    post, sigma, s = bed(), torch.tensor(1.5, dtype=F64), torch.tensor(0.7, dtype=F64)
    x, rng = draw(8, 6), Streams(0, range(2), 4)
    free = DDIM(eta=0.0)(post.prior.denoise, x, sigma, s, rng)
    still, _ = EnKG(4, scale=0.0).step(post, x, sigma, s, rng)
    assert torch.equal(still, free)
    moved, _ = EnKG(4, scale=0.3).step(post, x, sigma, s, rng)
    for cloud in (slice(0, 4), slice(4, 8)):
        span = free[cloud] - free[cloud].mean(0)
        step = moved[cloud] - free[cloud]
        left = step - step @ torch.linalg.pinv(span) @ span
        assert float(left.abs().max()) < 1e-10
        assert float(step.abs().max()) > 1e-3


def test_an_ensembles_move_is_its_covariance_times_the_gradient_of_the_likelihood():
    """For an ideal prior (D = x) and a linear A: C A^T (y - A x_j) / sigma_y^2, up to the norm."""
    post = bed()
    post.prior.denoise = lambda x, sigma: x
    x = draw(16, 6)
    moved = EnKG(16).move(post, x, torch.tensor(0.5, dtype=F64))
    C = (x - x.mean(0)).T @ (x - x.mean(0)) / 16
    gradient = post.likelihood.A.adjoint(post.likelihood.residual(x)) / 0.1**2
    wanted = gradient @ C
    ratio = moved / wanted
    torch.testing.assert_close(ratio, ratio[:1, :1].expand(16, 6), rtol=1e-8, atol=0)
    assert float(ratio[0, 0]) > 0


def test_an_ensemble_meets_the_measurement_of_a_closed_simulator_and_has_less_spread():
    """Its mean lies nearer to y than the prior's; its spread is below the posterior's, as is known
    of it."""
    post = bed(sigma=0.3)
    exact, A, y = exact_posterior(post), post.given.A, post.given.y
    run = po.sample(shut(post), EnKG(64, scale=0.5), n=64, steps=40, seed=1)
    before = (y - A(post.prior.mean[None])[0]).square().mean()
    after = (y - A(run.mean[None])[0]).square().mean()
    assert float(after) < 0.2 * float(before)
    assert float(run.std.mean()) < 0.8 * float(exact.std.mean())
    assert run.counts["vjp"] == run.counts["adjoint"] == 0


class Compound(po.operators.Operator):
    """Blur, a JPEG file of Pillow of some quality, a tone curve of some exponent; ``noise`` is put
    on between blur and coding."""

    def __init__(self, side):
        self.shapes = {"image": (1, side, side), "quality": (1,), "log_gamma": (1,)}
        super().__init__((side**2 + 2,))
        kernel = po.operators.gaussian_kernel(1.0, 5).double()
        self.blur = po.operators.Blur(kernel, (1, side, side))
        self.__dict__["_out_shape"] = (1, side, side)

    @property
    def in_parts(self):
        return self.shapes

    def forward(self, x, noise=0.0):
        assert not x.requires_grad
        parts = unpack(x, self.shapes)
        seen = (self.blur(parts["image"]) + noise).clamp(0, 1).mul(255).round().to(torch.uint8)
        out = []
        for picture, q in zip(seen, parts["quality"], strict=True):
            file = io.BytesIO()
            quality = round(5 + 90 * float(q.sigmoid()))
            Image.fromarray(picture[0].numpy()).save(file, "JPEG", quality=quality)
            out.append(torch.from_numpy(np.array(Image.open(file))))
        shown = torch.stack(out)[:, None].to(x) / 255
        return shown.clamp(min=1e-3) ** parts["log_gamma"].exp()[..., None, None]


@pytest.mark.parametrize(
    ("method", "n", "share"),
    [(EnKG(96, scale=0.2), 96, 0.87), (CBG(64, "exact"), 24, 0.95)],
    ids=["EnKG", "CBG"],
)
def test_a_compound_degradation_with_unknown_settings_is_undone_by_calls_alone(method, n, share):
    """Blur, noise, JPEG of unknown quality and a tone curve of unknown exponent: the mean image is
    nearer to the truth than y is. Few particles find little of the exponent."""
    side, A = 16, Compound(16)
    image = po.priors.Gaussian(
        torch.full((1, side, side), 0.5, dtype=F64), 0.02 * smooth(side, 4.0)
    )
    parts = {"image": image}
    for name, std in (("quality", 1.0), ("log_gamma", 0.4)):
        parts[name] = po.priors.Gaussian(torch.zeros(1, dtype=F64), std**2)
    prior = po.priors.Joint(parts)
    hidden = {
        "image": image.sample(1, 3),
        "quality": torch.tensor([[-0.5]], dtype=F64),
        "log_gamma": torch.tensor([[0.6]], dtype=F64),
    }
    y = A(pack(hidden), 0.02 * draw(1, 1, side, side))[0]
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.05)))
    run = po.sample(post, method, n=n, steps=12, seed=0)
    truth = hidden["image"][0]
    before, after = ((u - truth).square().mean() for u in (y, run.parts["image"].mean))
    # Other seeds: EnKG 0.69 to 0.70, CBG 0.70 to 0.82; a sample of CBG by itself 0.37 to 2.1.
    assert float(after) < share * float(before)
    assert run.counts["vjp"] == run.counts["adjoint"] == 0


def test_an_ensemble_finds_the_vorticity_that_a_flow_came_from():
    """A plane flow seen at every second point some time later: EnKG calls the simulator alone. Its
    CRPS is below that of the prior; its spread is too small for its error, as is known of it."""
    side = 12
    t = torch.arange(side, dtype=F64)
    along = torch.exp(1.5 * (torch.cos(2 * torch.pi * t / side) - 1))
    row = along[(t[:, None] - t).long() % side]
    C = torch.kron(row, row) + 1e-4 * torch.eye(side**2, dtype=F64)
    prior = po.priors.Gaussian(torch.zeros(1, side, side, dtype=F64), C)
    A = po.operators.NavierStokes((1, side, side), 1.0, 0.01, steps=8, stride=2)
    x = prior.sample(1, 0)
    y = A(x)[0] + 0.1 * draw(*A.out_shape)
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.1)))
    run = po.sample(post, EnKG(96), n=96, steps=25, seed=1)
    alone = crps(prior.sample(96, 9), x[0])
    assert crps(run.samples, x[0]) < 0.75 * alone
    assert spread_skill(run.samples, x[0]) < 1
