"""Blur kernels: compared over shifts, and doubted where a blind run has failed."""

from dataclasses import replace

import pytest
import torch
from blind import blind_post
from reference import draw

import posteriori as po
from posteriori.evaluation import summary
from posteriori.evaluation.kernels import kernel_correlation, kernel_error
from posteriori.kernel_doubts import GAIN, kernel_facts, kernel_remarks
from posteriori.kernel_evidence import climbed, kernel_spectra
from posteriori.methods.blind.pair import blind_pair
from posteriori.packing import pack
from posteriori.priors.error_spectrum import Covariance, radius
from posteriori.priors.joint import Joint

F64 = torch.float64


def test_a_shifted_kernel_is_the_same_and_another_is_not():
    k = torch.zeros(7, 9, dtype=F64)
    k[1:4, 2:5] = draw(3, 3).abs()
    moved = torch.stack([k, k.roll((3, 3), (0, 1)), k.roll((2, -1), (0, 1))])
    torch.testing.assert_close(kernel_correlation(moved, k), torch.ones(3, dtype=F64))
    assert float(kernel_error(moved, k).max()) < 1e-7
    torch.testing.assert_close(kernel_correlation(2 * moved, k), torch.ones(3, dtype=F64))
    torch.testing.assert_close(kernel_error(2 * moved, k), torch.ones(3, dtype=F64))
    # By all shifts one by one, of kernels of two sizes.
    a, b = draw(5, 5, seed=1), draw(3, 4, seed=2)
    best = max(
        float((a[i : i + 3, j : j + 4] * b[: 5 - i, : 5 - j]).sum())
        if i >= 0 and j >= 0
        else float((a[: 3 + i, : 4 + j] * b[-i:, -j:]).sum())
        if i < 0 and j < 0
        else float((a[i : i + 3, : 4 + j] * b[: 5 - i, -j:]).sum())
        if j < 0
        else float((a[: 3 + i, j : j + 4] * b[-i:, : 5 - j]).sum())
        for i in range(-2, 5)
        for j in range(-3, 5)
    )
    wanted = best / float(a.norm() * b.norm())
    assert float(kernel_correlation(a[None], b)) == pytest.approx(wanted, rel=1e-10)
    assert float(kernel_correlation(0 * a[None], b)) == 0
    with pytest.raises(ValueError, match="not 0"):
        kernel_error(a[None], 0 * b)


def found(kernel):
    """The record and the flags of a run whose samples have this kernel."""
    post = blind_post(dtype=torch.float32, side=8)
    run = po.sample(post, po.methods.DPS(), n=2, steps=2)
    image = run.parts["image"].samples
    samples = pack({"image": image, "kernel": kernel.float().expand(2, 3, 3)})
    run.samples.copy_(samples)
    truth = pack({"image": image[:1], "kernel": po.operators.gaussian_kernel(0.8, 3)[None]})[0]
    return summary(run, post, truth)


def test_a_failed_kernel_is_said_and_a_sound_one_is_not():
    sound = po.operators.gaussian_kernel(0.8, 3)
    record = found(sound)
    assert not kernel_remarks(record["kernel"])
    assert record["kernel"]["correlation"] == pytest.approx(1.0, abs=1e-6)
    assert record["kernel"]["error"] == pytest.approx(0.0, abs=1e-3)
    point, corner = torch.zeros(3, 3), torch.zeros(3, 3)
    point[1, 1], corner[0, 0], corner[0, 1] = 1.0, 0.8, 0.2
    for kernel, said in (
        (point, "is a point: 100 %"),
        (2 * sound, "sum to 2.00"),
        (corner, "drifted: its centre of mass lies 100 %"),
    ):
        record = found(kernel)
        assert any(said in flag for flag in record["flags"]), (said, record["flags"])
        assert record["kernel"]["correlation"] > 0.3


def test_runs_without_a_kernel_have_no_doubts_of_it():
    prior = po.priors.Gaussian(torch.zeros(1, 4, 4), 1.0)
    A = po.operators.Identity((1, 4, 4))
    post = po.Posterior(prior, po.Likelihood(torch.zeros(1, 4, 4), A, po.noise.Gaussian(0.5)))
    run = po.sample(post, po.methods.DPS(), n=2, steps=2)
    assert kernel_facts(run, post) is None
    assert kernel_remarks(None) == []
    assert summary(run, post)["kernel"] is None


def test_the_likelihood_of_a_kernel_is_that_of_its_gaussian_images(monkeypatch):
    """Of a stationary image in one colour, against the dense normal law, for differences of two
    kernels; and it rises most near a wrong one."""
    side, sigma, g = 16, 0.05, torch.Generator().manual_seed(0)
    S = 0.3 / (1 + 20 * radius(side, side)) ** 3
    C = Covariance(S[None]).wrapped()
    prior = Joint(
        {
            "image": po.priors.Gaussian(torch.zeros(1, side, side, dtype=F64), 1.0),
            "kernel": po.priors.Gaussian(torch.full((5, 5), 0.04, dtype=F64), 0.01),
        }
    )
    A = po.operators.BlindConvolution((1, side, side), (5, 5))
    true = torch.zeros(5, 5, dtype=F64)
    true[1, 0:3] = true[2:4, 2] = 0.2
    wide = torch.full((5, 5), 0.04, dtype=F64)
    white = torch.randn(1, 1, side, side, generator=g, dtype=F64)
    y = A.apply(C.root(white), true)[0]
    y = y + sigma * torch.randn(y.shape, generator=g, dtype=F64)
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(sigma)))
    assert kernel_spectra(post) is None  # nothing was measured of this prior
    image = blind_pair(post).image
    known = image.know()
    monkeypatch.setattr(
        type(image),
        "know",
        lambda self: replace(known, covariance=lambda s, shape: Covariance(S[None])),
    )
    found = kernel_spectra(post)
    monkeypatch.setattr("posteriori.kernel_evidence.CONTRASTS", (1.0,))
    eye = torch.eye(side**2, dtype=F64).view(-1, 1, side, side)
    keep = torch.eye(side**2, dtype=F64) - 1 / side**2  # without the mean

    def dense(k):
        M = A.apply(C.root(eye), k).flatten(1)
        law = keep @ (M.T @ M + sigma**2 * torch.eye(side**2, dtype=F64)) @ keep + 1 / side**2
        rest = keep @ y.flatten()
        return -0.5 * float(rest @ torch.linalg.solve(law, rest) + torch.logdet(law))

    a, b = (float(v) for v in found.log_likelihood(torch.stack([true, wide])))
    assert a - b == pytest.approx(dense(true) - dense(wide), rel=1e-9)
    up = [float(found.log_likelihood(climbed(found, A, k[None]))) for k in (true, wide)]
    gains = [up[0] - a, up[1] - b]
    assert 0 <= gains[0] < gains[1] / 3
    run = po.sample(post, po.methods.DPS(), n=1, steps=1)
    run.samples.copy_(pack({"image": y[None], "kernel": wide[None]}))
    assert kernel_facts(run, post)["gain"] == pytest.approx(gains[1] / side**2, rel=1e-9)


def test_a_kernel_beside_which_others_are_likelier_is_said():
    """A run with a gain as told by ``kernel_gain``; none is told where nothing was measured."""
    facts = {"point": 0.2, "sum": 1.0, "drift": 0.0, "gain": 2 * GAIN}
    (said,) = kernel_remarks(facts)
    assert "unlikely" in said
    assert "0.040 nats" in said
    assert (
        kernel_remarks(facts | {"gain": 0.5 * GAIN}) == kernel_remarks(facts | {"gain": None}) == []
    )
    assert found(po.operators.gaussian_kernel(0.8, 3))["kernel"]["gain"] is None
