"""Priors learned from measurements alone: expectation maximisation in the Gaussian family against
its closed form, with samples, with means in their place, and in training runs that stop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from trainings import masked, same, written

import posteriori as po
from posteriori.evaluation import exact_posterior
from posteriori.priors import Network
from posteriori.training import em, laps, trainer
from posteriori.training.config import read_config
from posteriori.training.export import export
from posteriori.training.gaussian_family import fit_gaussian
from posteriori.training.sources import training_images

F64 = torch.float64


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


MEAN = torch.tensor([0.5, -0.3, 1.0], dtype=F64)
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.7, 0.0], [-0.5, 0.3, 0.6]], dtype=F64)
STD = 0.1
START = po.priors.Gaussian(torch.zeros(3, dtype=F64), 1.0)


def measured(count, seed=0):
    """Two of three numbers of each image, by three masks."""
    g = torch.Generator().manual_seed(seed)
    x = MEAN + torch.randn(count, 3, generator=g, dtype=F64) @ ROOT.T
    masks = [po.operators.Mask(torch.arange(3) != k) for k in range(3)]
    noise = po.noise.Gaussian(STD)
    likes = []
    for i in range(count):
        A = masks[i % 3]
        y = A(x[i : i + 1])[0] + STD * torch.randn(2, generator=g, dtype=F64)
        likes.append(po.Likelihood(y, A, noise))
    return likes


def test_the_log_likelihood_rises_to_that_of_the_truth():
    likes = measured(3000)
    fit = fit_gaussian(likes, START, iterations=40)
    told = fit.log_likelihood
    assert len(told) == 41
    for before, after in itertools.pairwise(told):
        assert after >= before - 1e-9 * abs(before)
    truth = po.priors.Gaussian(MEAN, ROOT @ ROOT.T)
    assert told[-1] > fit_gaussian(likes, truth, iterations=0).log_likelihood[0]
    # Standard errors of at most 0.023 and 0.04: 2000 measurements of each number, 1000 of a pair.
    assert float((fit.prior.mean - MEAN).abs().max()) < 5 * 0.023
    assert float((fit.prior.covariance - ROOT @ ROOT.T).abs().max()) < 5 * 0.04


def test_the_log_likelihood_and_an_iteration_are_those_of_the_exact_posteriors():
    likes = measured(12)
    exact = [exact_posterior(po.Posterior(START, like)) for like in likes]
    fit = fit_gaussian(likes, START, iterations=1)
    assert fit.log_likelihood[0] == pytest.approx(sum(e.log_evidence for e in exact), rel=1e-10)
    centres = torch.stack([e.mean.flatten() for e in exact])
    torch.testing.assert_close(centres, means(START, likes), rtol=1e-9, atol=1e-9)
    covariance = torch.stack([e.covariance for e in exact]).mean(0) + centres.T.cov(correction=0)
    torch.testing.assert_close(fit.prior.mean, centres.mean(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fit.prior.covariance, covariance, rtol=1e-9, atol=1e-9)


def test_a_lap_of_samples_is_an_iteration_of_the_closed_form():
    """From the closed form's own limit, at five standard errors of its moments."""
    likes = measured(800)
    fit = fit_gaussian(likes, START, iterations=40).prior
    after = fit_gaussian(likes, fit, iterations=1).prior
    prior, images = next(
        em.laps(fit, likes, em.gaussian, po.methods.MMPS(iterations=3), steps=24, seed=1)
    )
    assert images.shape == (800, 3)
    scale = after.covariance.diagonal()
    assert float(((prior.mean - after.mean) / (scale / 800).sqrt()).abs().max()) < 5
    gap = (prior.covariance - after.covariance).abs() / torch.outer(scale, scale).sqrt()
    assert float(gap.max()) < 5 * (2 / 800) ** 0.5


def test_each_lap_and_each_measurement_draws_with_noise_of_its_own():
    likes = measured(2) * 2
    course = em.laps(START, likes, lambda images, prior: prior, po.methods.MMPS(), steps=4, seed=7)
    (_, first), (_, second) = itertools.islice(course, 2)
    assert len({float(v) for v in torch.cat([first, second])[:, 0]}) == 8
    again = em.expectation(START, likes, po.methods.MMPS(), steps=4, seed=11)
    assert torch.equal(again, second)


def smallest(prior):
    return float(torch.linalg.eigvalsh(prior.covariance)[0])


def means(prior, likes):
    """E[x_i | y_i] under a Gaussian, (N, 3)."""
    rows = []
    for like in likes:
        seen = like.A.order[:2]
        within = prior.covariance[seen][:, seen] + STD**2 * torch.eye(2, dtype=F64)
        gain = prior.covariance[:, seen] @ torch.linalg.inv(within)
        rows.append(prior.mean + gain @ (like.y - prior.mean[seen]))
    return torch.stack(rows)


def test_means_in_place_of_samples_lose_the_covariance():
    """The control: its smallest eigenvalue falls lap by lap to nothing, that of samples stays."""
    likes, prior, seen = measured(150), START, [smallest(START)]
    for _ in range(11):
        prior = em.gaussian(means(prior, likes), prior)
        seen.append(smallest(prior))
    assert all(after < before for before, after in itertools.pairwise(seen[:6]))
    assert seen[-1] < 1e-3 * smallest(po.priors.Gaussian(MEAN, ROOT @ ROOT.T))
    course = em.laps(START, likes, em.gaussian, po.methods.MMPS(iterations=3), steps=10)
    sampled = [prior for prior, _ in itertools.islice(course, 6)][-1]
    assert smallest(sampled) > 0.5 * smallest(po.priors.Gaussian(MEAN, ROOT @ ROOT.T))


def test_measurements_that_tell_no_gaussian_are_refused():
    likes = measured(3)
    with pytest.raises(ValueError, match="no measurement to learn from"):
        fit_gaussian([], START)
    big = po.priors.Gaussian(torch.zeros(2049, dtype=F64), 1.0)
    with pytest.raises(ValueError, match="2049 numbers has too large a covariance"):
        fit_gaussian(likes, big)
    silent = po.Likelihood(likes[0].y, likes[0].A, po.noise.Gaussian(0.0))
    with pytest.raises(ValueError, match="measurements with noise"):
        fit_gaussian([silent], START)


class KilledError(Exception):
    """What stands for a killed process."""


def settings(folder, **changes):
    data = masked(folder, noise=0.05, count=6, keep=0.85) | {"turns": False}
    objective = {"name": "em", "lap": 2, "sampling": 4, "iterations": 2, "start_iterations": 3}
    values = {"data": data, "objective": objective, "steps": 6, "checkpoint_every": 3}
    return read_config(written(folder, **values | changes))


def state(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def test_a_run_that_is_killed_in_a_step_or_in_a_lap_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    plan = settings(tmp_path)
    trainer.train(plan, tmp_path / "straight", progress=False)
    assert sorted(file.name for file in (tmp_path / "straight").iterdir()) == [
        "checkpoint.pt",
        "lap-000.npz",
        "lap-001.npz",
        "lap-002.npz",
    ]
    step, expectation, images = trainer.Trainer.step, laps.expectation, []

    def dying_in_a_step(self, x0):
        if self.reached == 5:
            raise KilledError
        step(self, x0)

    def dying_in_a_lap(*args, **keys):
        images.append(expectation(*args, **keys))
        if len(images) == 2:
            raise KilledError
        return images[-1]

    with monkeypatch.context() as patched:
        patched.setattr(laps, "expectation", dying_in_a_lap)
        with pytest.raises(KilledError):
            trainer.train(plan, tmp_path / "killed", progress=False)
    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "step", dying_in_a_step)
        with pytest.raises(KilledError):
            trainer.train(plan, tmp_path / "killed", progress=False)
    assert state(tmp_path / "killed")["step"] == 3
    trainer.train(plan, tmp_path / "killed", progress=False)
    assert same(state(tmp_path / "straight"), state(tmp_path / "killed"))
    for k in range(3):
        one, other = (
            np.load(tmp_path / place / f"lap-00{k}.npz") for place in ("straight", "killed")
        )
        assert np.array_equal(one["images"], other["images"])
    assert not np.array_equal(
        *(np.load(tmp_path / "straight" / f"lap-00{k}.npz")["images"] for k in (0, 1))
    )


def test_a_lap_is_trained_on_posterior_samples_under_the_average_so_far(tmp_path, monkeypatch):
    plan, batches = settings(tmp_path, steps=4, batch=5), []
    step = trainer.Trainer.step
    monkeypatch.setattr(
        trainer.Trainer, "step", lambda self, x0: (batches.append(x0), step(self, x0))[1]
    )
    trainer.train(plan, tmp_path / "run", progress=False)
    y = np.load(tmp_path / "masked.npz")
    images = np.load(tmp_path / "run" / "lap-001.npz")["images"]
    assert images.shape == (6, 1, 8, 8)
    off = (images[:, 0] - y["y"])[y["seen"]]
    assert float(np.sqrt((off**2).mean())) < 4 * 0.05
    for k, batch in enumerate(batches):
        drawn = np.load(tmp_path / "run" / f"lap-00{k // 2}.npz")["images"]
        assert all(any(np.array_equal(row, image) for image in drawn) for row in batch.numpy())


def test_a_later_lap_is_drawn_with_the_averaged_network_of_its_first_step(tmp_path):
    trainer.train(settings(tmp_path, steps=4), tmp_path / "run", progress=False)
    plan = settings(tmp_path, steps=2)
    net = trainer.train(plan, tmp_path / "first", progress=False)
    first, second = (np.load(tmp_path / "run" / f"lap-00{k}.npz")["images"] for k in (0, 1))
    prior = Network(
        net,
        shape=(1, None, None),
        sigma_data=plan.sigma_data,
        variance=float(first.var(0).mean()),
        sigma_min=plan.card.sigma_min,
        sigma_max=plan.card.sigma_max,
        multiple=net.multiple,
    )
    likes = laps.measurements(
        torch.from_numpy(np.stack(training_images(plan)[0].images)).permute(0, 3, 1, 2), 0.05
    )
    drawn = em.expectation(prior, likes, po.methods.MMPS(iterations=2), steps=4, seed=6)
    np.testing.assert_array_equal(drawn.numpy(), second)


def test_laps_of_another_run_and_laps_that_are_gone_are_named(tmp_path):
    trainer.train(settings(tmp_path, steps=3), tmp_path / "run", progress=False)
    (tmp_path / "run" / "lap-001.npz").rename(tmp_path / "kept.npz")
    with pytest.raises(ValueError, match=r"lap-001.npz is missing, .* since step 2"):
        trainer.train(settings(tmp_path, steps=4), tmp_path / "run", progress=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "kept.npz").rename(tmp_path / "other" / "lap-000.npz")
    with pytest.raises(ValueError, match=r"lap-000.npz was drawn in a run with other settings"):
        trainer.train(settings(tmp_path, batch=3), tmp_path / "other", progress=False)
    (tmp_path / "other" / "lap-000.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"lap-000.npz cannot be read"):
        trainer.train(settings(tmp_path), tmp_path / "other", progress=False)


def test_a_run_says_its_laps_and_becomes_a_prior(tmp_path):
    said, plan = [], settings(tmp_path)
    trainer.train(plan, tmp_path / "run", progress=False, say=said.append)
    assert said[0] == "6 images, none of them held out"
    assert said[1].startswith("Gaussian start: log-likelihood ")
    assert [line for line in said if line.startswith("lap")] == [
        f"lap {k}: one image for each of 6 measurements" for k in range(3)
    ]
    prior = export(plan, tmp_path / "run", tmp_path / "prior", samples=0)
    assert prior.errors is None


def test_em_needs_the_noise_of_the_measurements(tmp_path):
    with pytest.raises(ValueError, match="measurements with noise, got data.noise 0; give the"):
        settings(tmp_path, data=masked(tmp_path))


def test_independent_pixels_have_the_moments_of_the_measured_ones():
    rng = np.random.default_rng(0)
    x = rng.normal([[0.5, -0.2]], [[0.4, 0.0]], (20_000, 2)) + 0.3 * rng.standard_normal(
        (20_000, 2)
    )
    seen = rng.random((20_000, 1)) < 0.6
    stack = torch.from_numpy(np.where(seen, x, 0.0)).view(-1, 1, 1, 2)
    stack = torch.cat(
        [stack, torch.from_numpy(seen).double().view(-1, 1, 1, 1).expand(-1, 1, 1, 2)], 1
    )
    found = laps.pixels(stack, 0.3)
    # Five standard errors.
    torch.testing.assert_close(
        found.mean.flatten(), torch.tensor([0.5, -0.2], dtype=F64), rtol=0, atol=0.023
    )
    variance = found.covariance.diagonal()
    assert float(variance[0]) == pytest.approx(0.16, abs=5 * 0.25 * (2 / 12_000) ** 0.5)
    assert 0 < float(variance[1]) < 5 * 0.09 * (2 / 12_000) ** 0.5
