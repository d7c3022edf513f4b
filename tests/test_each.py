"""One measurement per row: the samples of each are those it has alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from cases import BRIEF, POSTERIORS, SINGLE, bed, picture
from reference import watched

import posteriori as po
from posteriori.driver import Job
from posteriori.methods import DDRM, DPS, MMPS, SITCOM, TDS, Unconditional
from posteriori.methods.base import Method
from posteriori.noise import Gaussian, Poisson
from posteriori.rng import Streams
from posteriori.run import read_json


def several(post, count=3):
    """Measurements by the instrument of a posterior, each twice as large as the one before."""
    return [replace(post.given, y=post.given.y * 2.0**j) for j in range(count)]


@pytest.mark.parametrize("kind", POSTERIORS)
@pytest.mark.parametrize("name", SINGLE)
def test_rows_of_other_measurements_change_nothing(name, kind):
    """Bit by bit beside equal company, and up to rounding as ``sample`` gives them in a batch of
    that size."""
    method, post = BRIEF[name], POSTERIORS[kind]()
    likes = several(post)
    if any(method.refuses(po.Posterior(post.prior, like)) for like in likes):
        return
    mixed = po.sample_each(post.prior, likes, method, n=2, steps=2, seed=4)[1]
    equal = po.sample_each(post.prior, [likes[1]] * 3, method, n=2, steps=2, seed=4)[1]
    assert torch.equal(mixed.samples, equal.samples)
    alone = po.sample(po.Posterior(post.prior, likes[1]), method, n=6, steps=2, seed=5)
    scale = float(alone.samples.abs().max())
    torch.testing.assert_close(mixed.samples, alone.samples[:2], rtol=0, atol=1e-9 * scale)
    assert mixed.config["identity"] == alone.config["identity"]
    assert {key: mixed.config[key] for key in ("seed", "levels")} == {
        key: alone.config[key] for key in ("seed", "levels")
    }


def test_a_frame_of_its_own_goes_with_its_measurement():
    post = picture()
    frames = [None, ((1, 3), (0, 3)), ((1, 3), (0, 3))]
    likes = [replace(like, frame=frame) for like, frame in zip(several(post), frames, strict=True)]
    runs = po.sample_each(post.prior, likes, DPS(), n=2, steps=2)
    for run, like in zip(runs, likes, strict=True):
        alone = po.sample(
            po.Posterior(post.prior, like), DPS(), n=2, steps=2, seed=run.config["seed"]
        )
        assert run.config.get("frame") == alone.config.get("frame")
        assert run.in_frame().samples.shape == alone.in_frame().samples.shape


def test_measurements_share_batches_across_their_borders(monkeypatch):
    post, rows = picture(), watched(monkeypatch)
    runs = po.sample_each(post.prior, several(post, 5), MMPS(), n=3, steps=2, batch=4)
    assert rows == [4, 4, 4, 4, 4, 4, 3, 3]
    assert [len(run.samples) for run in runs] == [3] * 5
    whole = po.sample_each(post.prior, several(post, 5), MMPS(), n=3, steps=2)
    for run, other in zip(runs, whole, strict=True):
        torch.testing.assert_close(run.samples, other.samples)


@dataclass(frozen=True)
class Own(Method[torch.Tensor]):
    """A method of somebody else's, which takes y for one measurement."""

    def step(self, post, state, sigma, s, rng):
        return state * 0 + post.likelihood.y.flatten()[0], {}


def test_what_cannot_share_a_batch_is_drawn_one_by_one(monkeypatch):
    """Clouds, a method from elsewhere, another operator, another noise level, another law: each as
    alone."""
    post, rows = picture(), watched(monkeypatch)
    likes = several(post, 2)
    own = po.operators.Blur(torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64), (1, 3, 4))
    other = replace(likes[1], A=own, y=torch.zeros(own.out_shape, dtype=torch.float64))
    noisier = replace(likes[1], noise=Gaussian(0.07))
    photons = replace(likes[0], y=likes[0].y.abs(), noise=Poisson(50.0))
    cases = [
        (TDS(particles=2), likes),
        (DPS(), [likes[0], other]),
        (DPS(), [likes[0], noisier]),
        (DPS(), [photons, photons]),
        (Own(), likes),
    ]
    for method, some in cases:
        rows.clear()
        runs = po.sample_each(post.prior, some, method, n=1, steps=2)
        assert rows == [1] * 4, type(method).__name__
        for j, run in enumerate(runs):
            alone = po.sample(po.Posterior(post.prior, some[j]), method, n=1, steps=2, seed=j)
            assert torch.equal(run.samples, alone.samples)


@dataclass(frozen=True)
class Breaking(Method[torch.Tensor]):
    """Diverges where y is large."""

    def step(self, post, state, sigma, s, rng):
        large = post.likelihood.each.flatten(1).abs().amax(1) > 1.0
        return torch.where(large.view(-1, *[1] * (state.ndim - 1)), torch.nan, state), {}


Breaking.__module__ = "posteriori.methods.breaking"


@pytest.mark.parametrize("together", [True, False])
def test_a_measurement_whose_rows_all_diverge_costs_the_others_nothing(together, monkeypatch):
    if not together:
        monkeypatch.setattr(Breaking, "__module__", "elsewhere")
    post = bed(m=4)
    likes = [
        replace(post.given, y=torch.full_like(post.given.y, value)) for value in (0.1, 9.0, 0.2)
    ]
    with pytest.warns(UserWarning, match="every row of the measurement with seed 1 diverged"):
        runs = po.sample_each(post.prior, likes, Breaking(), n=2, steps=2)
    assert [len(run.samples) for run in runs] == [2, 0, 2]
    assert [status.kind for status in runs[1].status] == ["diverged"] * 2
    for question in (
        lambda run: run.mean,
        lambda run: run.std,
        lambda run: run.quantile(0.5),
        lambda run: run.ess,
    ):
        with pytest.raises(ValueError, match="has no samples"):
            question(runs[1])


def test_a_folder_is_completed_and_another_problem_refused(tmp_path, monkeypatch):
    post = picture()
    likes, advance, calls = several(post, 4), Job.advance, []

    def stopped(self, *batch):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        advance(self, *batch)

    def drawn(some, **more):
        return po.sample_each(
            post.prior,
            some,
            SITCOM(),
            n=2,
            steps=3,
            seed=1,
            batch=3,
            folder=tmp_path / "runs",
            **more,
        )

    whole = po.sample_each(post.prior, likes, SITCOM(), n=2, steps=3, seed=1, batch=3)
    monkeypatch.setattr(Job, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        drawn(likes)
    monkeypatch.setattr(Job, "advance", advance)
    with pytest.raises(ValueError, match="started with other settings.*y"):
        drawn(likes[::-1], resume=True)
    for run, other in zip(drawn(likes, resume=True), whole, strict=True):
        assert torch.equal(run.samples, other.samples)
    assert read_json(tmp_path / "runs" / "00000" / "run.json")["state"] == "complete"
    monkeypatch.setattr(Job, "advance", lambda *_: pytest.fail("a step was done"))
    for run, other in zip(drawn(likes, resume=True), whole, strict=True):
        assert torch.equal(run.samples, other.samples)


def test_the_first_refusal_is_named_and_an_empty_list_refused():
    post = picture()
    with pytest.raises(ValueError, match="measurement 1: DDRM"):
        po.sample_each(
            post.prior,
            [post.given, replace(post.given, noise=Poisson(50.0), y=post.given.y.abs())],
            DDRM(),
        )
    with pytest.raises(ValueError, match="no likelihood"):
        po.sample_each(post.prior, [], Unconditional())


def test_streams_of_several_runs_are_those_of_each():
    both = Streams.of([(3, 0), (3, 1), (7, 0)], 2).normal(torch.empty(6, 4))
    assert torch.equal(both[:4], Streams(3, [0, 1], 2).normal(torch.empty(4, 4)))
    assert torch.equal(both[4:], Streams(7, [0], 2).normal(torch.empty(2, 4)))
