"""The driver and methods whose rows interact: groups that return fewer samples than they hold, evidence, suspicion after a fault."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from test_sample import Faulty, toy

import posteriori as po
from posteriori.likelihood import Posterior
from posteriori.methods.base import Method


@dataclass(frozen=True)
class Cloud(Method[torch.Tensor]):
    """Three rows of a group; the mean of them is returned, twice. Its evidence is the group's index in the run."""

    reference, family, cost = "none", "none", "1 denoiser"

    @property
    def group(self):
        return 3

    @property
    def returned(self):
        return 2

    def step(self, post, state, sigma, s, rng):
        x0 = post.prior.denoise(state, sigma)
        return x0 + s / sigma * (state - x0), {"size": x0.flatten(1).norm(dim=1)}

    def finish(self, post, state, rng):
        mean = state.view(-1, 3, *state.shape[1:]).mean(1)
        return mean.repeat_interleave(2, 0), torch.zeros(2 * len(mean), dtype=torch.float64)

    def log_evidence(self, post, state):
        return state.view(-1, 3, state[0].numel())[:, 0, 0].double()


def test_a_group_returns_fewer_samples_than_it_holds():
    run = po.sample(toy(), Cloud(), n=5, steps=6, batch=3, seed=4)
    whole = po.sample(toy(), Cloud(), n=5, steps=6, seed=4)
    assert run.samples.shape == (5, 6)
    assert run.log_w.shape == (5,)
    assert len(run.status) == 5
    torch.testing.assert_close(run.samples, whole.samples)
    assert torch.equal(run.samples[0], run.samples[1])
    assert not torch.equal(run.samples[1], run.samples[2])
    assert run.trace["size"].shape == (6, 5)
    torch.testing.assert_close(run.trace["size"], whole.trace["size"])
    assert run.counts["denoiser"] == 6 * 9 / 5


def test_evidence_is_the_mean_over_the_groups():
    seen = []
    watch = [lambda k, s, rows, info: seen.append(rows) if s == 0 else None]
    run = po.sample(toy(), Cloud(), n=6, steps=6, watch=watch, seed=1)
    each = seen[0].view(3, 3, 6)[:, 0, 0]
    assert run.log_evidence == pytest.approx(float(each.exp().mean().log()), rel=1e-12)
    assert po.sample(toy(), po.methods.Unconditional(), n=2, steps=3).log_evidence is None


def test_one_bad_particle_makes_its_whole_cloud_suspect():
    post = Posterior(Faulty(call=2, row=4), toy().likelihood)
    with pytest.warns(UserWarning, match="2 of 6 rows"):
        run = po.sample(post, Cloud(), n=6, steps=6)
    assert [status.ok for status in run.status] == [True, True, False, False, True, True]
    assert len(run.samples) == 4
    assert math.isfinite(run.log_evidence)


def test_clouds_and_their_evidence_survive_an_interruption(tmp_path):
    class Stop(Exception):
        pass

    def stop(k, s, rows, info):
        calls.append(k)
        if len(calls) == 9:
            raise Stop

    calls = []
    options = {"n": 6, "steps": 6, "batch": 3, "seed": 2}
    with pytest.raises(Stop):
        po.sample(toy(), Cloud(), folder=tmp_path / "run", checkpoint_seconds=0, watch=[stop], **options)
    resumed = po.sample(toy(), Cloud(), folder=tmp_path / "run", resume=True, **options)
    whole = po.sample(toy(), Cloud(), **options)
    assert torch.equal(resumed.samples, whole.samples)
    assert resumed.log_evidence == whole.log_evidence
