"""The noise level that a residual tells, and that a measurement tells by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference import F64

import posteriori as po
from posteriori import problem_file
from posteriori.evaluation.noise_level import noise_level
from posteriori.measurements import read_image
from posteriori.measurements.photos import COFFEE
from posteriori.noise import Gaussian, Poisson
from posteriori.operators import Blur, Dense, Identity, gaussian_kernel
from posteriori.problem_file.noise_level import estimated
from posteriori.rng import Streams
from posteriori.run import Run, Status

D = 600
K = torch.arange(1, D + 1, dtype=F64)
# Variances of the prior along its axes, and how A weakens them.
C, A = 10 * K**-1.5, (-K / 150).exp()
OPERATOR = Dense(torch.diag(A))
PRIOR = po.priors.Gaussian(torch.zeros(D, dtype=F64), torch.diag(C))


def posterior(true, stated, seed=0):
    z = torch.randn(2, D, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return po.Posterior(
        PRIOR, po.Likelihood(A * C.sqrt() * z[0] + true * z[1], OPERATOR, Gaussian(stated))
    )


def exact_run(post, n=4, seed=1000):
    """Draws of the known posterior, axis by axis, as a run."""
    S = 1 / (1 / C + A**2 / post.given.std**2)
    z = torch.randn(n, D, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return run_of(S * A * post.given.y / post.given.std**2 + S.sqrt() * z)


def run_of(samples, log_w=None):
    log_w = torch.zeros(len(samples), dtype=F64) if log_w is None else log_w
    return Run(samples, log_w, None, (Status(),) * len(samples), {}, {}, 0.0, {}, ())


def test_the_stated_level_is_found_where_it_is_right():
    """Over 40 problems the mean of estimate / level is 1 within 4 standard errors, and the stated
    error is the scatter within a third."""
    posts = [posterior(0.2, 0.2, seed) for seed in range(40)]
    told = [noise_level(exact_run(post, seed=1000 + k), post) for k, post in enumerate(posts)]
    ratios = torch.tensor([level.estimate / 0.2 for level in told])
    assert float(ratios.mean()) == pytest.approx(1, abs=4 * float(ratios.std()) / 40**0.5)
    assert float(ratios.std()) == pytest.approx(told[0].error / 0.2, rel=1 / 3)
    assert not any(level.differs for level in told)


@pytest.mark.parametrize("factor", [1 / 3, 1 / 2, 2.0, 3.0])
def test_a_wrong_level_is_told_within_fifteen_percent(factor):
    for seed in range(4):
        post = posterior(0.2, 0.2 * factor, seed)
        level = noise_level(exact_run(post), post)
        assert level.differs
        assert level.estimate == pytest.approx(0.2, rel=0.15)
        assert "an estimate" in str(level)


def test_weights_count_as_they_should():
    post = posterior(0.2, 0.1)
    run = exact_run(post)
    doubled = Run(
        run.samples[[0, 0, 1, 2, 3]],
        torch.tensor([0.5, 0.5, 1, 1, 1], dtype=F64).log(),
        None,
        run.status,
        {},
        {},
        0.0,
        run.config,
        (),
    )
    doubled = run_of(
        run.samples[[0, 0, 1, 2, 3]], torch.tensor([0.5, 0.5, 1, 1, 1], dtype=F64).log()
    )
    one, two = noise_level(run, post), noise_level(doubled, post)
    # The weights are the same distribution of points, of which v is told by fewer independent
    # numbers.
    assert two.estimate == pytest.approx(one.estimate, rel=0.02)


def test_where_nothing_is_told():
    post = posterior(0.2, 0.2)
    assert noise_level(exact_run(post, n=1), post) is None, "one sample has no spread"
    silent = po.Posterior(PRIOR, po.Likelihood(post.given.y, OPERATOR, Gaussian(0.0)))
    assert noise_level(exact_run(post), silent) is None
    close = po.Posterior(PRIOR, po.Likelihood(post.given.y, OPERATOR, Gaussian(1e-6)))
    assert noise_level(exact_run(close), close) is None, (
        "the samples follow y: nothing is left over"
    )
    counts = po.Posterior(PRIOR, po.Likelihood(post.given.y.abs(), OPERATOR, Poisson(50.0)))
    assert noise_level(exact_run(post), counts) is None


# From y alone.


@pytest.mark.parametrize("sigma", [0.01, 0.05])
def test_directions_that_no_image_reaches_tell_the_level(sigma):
    x, _ = read_image(COFFEE, channels=3)
    x = x[:, :64, :64].contiguous()
    A = Blur(gaussian_kernel(2.0), tuple(x.shape), boundary="circular")
    level, said = estimated(A, Gaussian(sigma).sample(A(x[None]), Streams(0, [0]))[0])
    k = int(said.split("from ")[1].split()[0])
    assert k >= 100
    assert level == pytest.approx(sigma, rel=4 / math.sqrt(2 * k))


@pytest.mark.parametrize("sigma", [0.03, 0.1])
def test_neighbouring_pixels_of_a_photograph_tell_the_level(sigma):
    """A photograph that is not blurred: patches tell the level, texture may add, by less than a
    quarter here; 4 standard errors below."""
    x, _ = read_image(COFFEE, channels=3)
    A = Identity(tuple(x.shape))
    level, said = estimated(A, Gaussian(sigma).sample(x[None], Streams(0, [0]))[0])
    blocks = x.numel() // 4
    assert sigma * (1 - 4 * 1.17 / math.sqrt(blocks)) < level < 1.25 * sigma
    assert "the patches of y" in said


def test_what_tells_nothing_is_refused():
    with pytest.raises(ValueError, match="cannot be told from a measurement of shape \\(3,\\)"):
        estimated(Identity((3,)), torch.ones(3))
    with pytest.raises(ValueError, match="shows no noise at all"):
        estimated(Identity((1, 32, 32)), torch.ones(1, 32, 32))


def file(folder, sigma, measurement="{file: y.npy}"):
    place = folder / "problem.yaml"
    place.write_text(
        "prior: {gaussian: {mean: 0.5, std: 0.2, shape: [1, 32, 32], range: [0, 1]}}\n"
        "operator: {name: blur, std: 2, boundary: circular}\n"
        f"noise: {{law: gaussian, {sigma}range: [0, 1]}}\nmeasurement: {measurement}\n"
        "method: MMPS\nsteps: 5\n"
    )
    return place


def test_a_file_may_leave_the_level_to_the_measurement(tmp_path):
    y = 0.5 + 0.04 * torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "y.npy", y.numpy())
    task = problem_file.load(file(tmp_path, "sigma: estimate, ")).build()
    assert task.posterior.given.std == pytest.approx(0.04, rel=0.2)
    assert any("noise level: about 0.0" in note and "estimated from" in note for note in task.notes)
    with pytest.raises(
        ValueError,
        match=r"noise.sigma: this setting is required; where nobody knows it, sigma: estimate",
    ):
        problem_file.load(file(tmp_path, ""))
    with pytest.raises(
        ValueError, match="simulated from an image has the noise that the file states"
    ):
        problem_file.load(file(tmp_path, "sigma: estimate, ", "{image: x.png}"))
    with pytest.raises(ValueError, match="sigma"):
        problem_file.load(file(tmp_path, "sigma: guess, "))
