"""A cloud that has degenerated is said to be one, in the run's record and in one sentence of its page; a healthy one is not."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from cases import bed

import posteriori as po
from posteriori import report
from posteriori.evaluation import summary
from posteriori.lineage import lineage
from posteriori.methods import DDSMC, FPS, TDS, Bootstrap, MCGDiff, MomentSMC, SMCDiff, clouds
from posteriori.rng import Streams

F64 = torch.float64
GRID = po.grid.log(8, 20.0, 0.02)
ALL = [TDS(16), Bootstrap(16), DDSMC(16), MCGDiff(16), FPS(16), SMCDiff(16), MomentSMC(16, pilot=16)]


def seen(sigma):
    return bed("general", sigma=sigma)


@pytest.mark.parametrize("method", ALL, ids=lambda m: type(m).__name__)
def test_every_particle_method_records_ess_and_ancestors(method):
    run = po.sample(seen(0.1), method, n=32, grid=GRID)
    assert run.trace["ess"].shape == run.trace["ancestors"].shape == (8, 32)
    assert bool(((run.trace["ess"] > 0) & (run.trace["ess"] <= 1)).all())
    assert bool((run.trace["ancestors"].diff(dim=0) <= 0).all())
    cloud = lineage(run, seen(0.1))
    assert cloud["samples"] == 32
    assert cloud["lowest_ess"] == float(run.trace["ess"].min())
    assert cloud["ancestors"] <= int(run.trace["ancestors"][-1, 0] + run.trace["ancestors"][-1, 16])
    assert lineage(po.sample(seen(0.1), replace(method, single=True), n=2, grid=GRID), seen(0.1)) is None


def test_a_degenerate_cloud_is_said_to_be_one_and_a_healthy_one_is_not(tmp_path):
    """A sharp measurement leaves the bootstrap filter one line; a vague one leaves nearly all."""
    for name, sigma, n in (("sharp", 0.01, 64), ("vague", 30.0, 64), ("few", 0.01, 8)):
        post = seen(sigma)
        run = po.sample(post, Bootstrap(64), n=n, grid=GRID)
        record = report.save(run, post, tmp_path / name)
        text = report.page(tmp_path / name).read_text()
        cloud = record["cloud"]
        degenerate = cloud["ancestors"] <= n / 4
        assert degenerate == (sigma < 1)
        said = f"{n} samples descend from {cloud['ancestors']} distinct ancestor"
        assert (said in text) == degenerate
        assert ("descend from" in text) == degenerate
        assert json.loads(json.dumps(record)) == record
    assert summary(po.sample(post, po.methods.MMPS(), n=4, steps=4), post)["cloud"] is None


def test_the_rule_is_a_quarter():
    from posteriori.flags import _lines

    def told(k, n=64):
        return _lines({"cloud": {"samples": n, "ancestors": k, "step": 3, "level": 1.5}})

    assert told(17) == []
    assert "64 samples descend from 16 distinct ancestors at step 3 (noise level 1.5): treat them as 16 samples" in told(16)[0]
    assert "4 samples descend from 1 distinct ancestor at step 3" in told(1, 4)[0]
    assert _lines({"cloud": None}) == []


def test_a_collapse_by_the_very_last_weight_is_seen():
    """TDS, bootstrap and DDSMC weigh after their last resampling; the last ESS is that of these weights where it is lower."""
    for method in (TDS(16, "narrow", share=0.0), Bootstrap(16, "end"), DDSMC(16)):
        post = seen(0.05)
        rng = Streams(0, [0], 16)
        state = method.init(post, post.prior.start(rng.normal(torch.zeros(16, 6, dtype=F64)), GRID[0]), rng)
        for sigma, s in pairwise(GRID):
            state, info = method.step(post, state, sigma, s, rng)
        assert float(info["ess"][0]) <= float(clouds.effective_share(state.clouds)) + 1e-12


def test_ancestors_are_counted_from_the_priors_width_on():
    """Far above it copies are no kin: the noise has drowned what they share."""
    cloud = clouds.weigh(clouds.start(torch.arange(6, dtype=F64)[:, None], 6), torch.tensor([0.0, -99, -99, -99, -99, -99], dtype=F64))
    for near, left in ((True, 1), (False, 6)):
        out, _, info = clouds.resample(cloud, Streams(0, [0], 6), 1.0, "systematic", near=near)
        assert float(info["ancestors"][0]) == left == len(out.first.unique())
    post = seen(0.1)
    assert clouds.near(post, clouds.width(post))
    assert not clouds.near(post, 1.01 * clouds.width(post))
