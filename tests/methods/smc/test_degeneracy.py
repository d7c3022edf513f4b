"""A cloud that has degenerated is said to be one, in the run's record and in one sentence of its
page; a healthy one is not."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from cases import bed
from reference import F64

import posteriori as po
from posteriori import report
from posteriori.diagnostics import RunWarning
from posteriori.evaluation import summary
from posteriori.genealogy import genealogy_of, remarks
from posteriori.methods import AFDPS, DDSMC, FPS, TDS, Bootstrap, MCGDiff, MomentSMC, SMCDiff
from posteriori.methods.smc import particles as clouds
from posteriori.rng import Streams

GRID = po.grid.log(8, 20.0, 0.02)
ALL = [
    AFDPS(16),
    TDS(16),
    Bootstrap(16),
    DDSMC(16),
    MCGDiff(16),
    FPS(16),
    SMCDiff(16),
    MomentSMC(16, pilot=16),
]


def seen(sigma):
    return bed("general", sigma=sigma)


@pytest.mark.parametrize("method", ALL, ids=lambda m: type(m).__name__)
def test_every_particle_method_records_ess_and_ancestors(method):
    run = po.sample(seen(0.1), method, n=32, grid=GRID)
    assert run.trace["ess"].shape == run.trace["ancestors"].shape == (8, 32)
    assert bool(((run.trace["ess"] > 0) & (run.trace["ess"] <= 1)).all())
    assert bool((run.trace["ancestors"].diff(dim=0) <= 0).all())
    cloud = genealogy_of(run, seen(0.1))
    assert cloud["samples"] == 32
    assert cloud["lowest_ess"] == float(run.trace["ess"].min())
    assert cloud["ancestors"] <= int(run.trace["ancestors"][-1, 0] + run.trace["ancestors"][-1, 16])
    single = genealogy_of(
        po.sample(seen(0.1), replace(method, single=True), n=2, grid=GRID), seen(0.1)
    )
    assert single["samples"] == single["ancestors"] == 2


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
    def told(k, n=64, carried=20.0, particles=64):
        sound = {"step": 3, "level": 1.5, "worst": 5}
        return remarks(
            sound | {"samples": n, "ancestors": k, "carried": carried, "particles": particles}
        )

    assert (
        told(17) == told(17, carried=8.1) == told(1, 1) == told(17, carried=1.3, particles=8) == []
    )
    assert (
        "64 samples descend from 16 distinct ancestors at step 3 (noise level 1.5): "
        "treat them as 16 samples"
    ) in told(16)[0]
    assert "4 samples descend from 1 distinct ancestor at step 3" in told(1, 4)[0]
    assert (
        "The 64 particles of a cloud have counted as 8.0 at their worst step (5)"
        in told(17, carried=8.0)[0]
    )
    assert "The 4 particles of a cloud have counted as 1.2 " in told(1, 1, 1.24, 4)[0]
    assert remarks(None) == []


def test_a_collapse_by_the_very_last_weight_is_seen():
    """TDS, bootstrap and DDSMC weigh after their last resampling; the last ESS is that of these
    weights where it is lower."""
    for method in (TDS(16, "narrow", share=0.0), Bootstrap(16, "end"), DDSMC(16)):
        post = seen(0.05)
        rng = Streams(0, [0], 16)
        state = method.init(
            post, post.prior.start(rng.normal(torch.zeros(16, 6, dtype=F64)), GRID[0]), rng
        )
        for sigma, s in pairwise(GRID):
            state, info = method.step(post, state, sigma, s, rng)
        assert float(info["ess"][0]) <= float(clouds.effective_share(state.clouds)) + 1e-12


def test_ancestors_are_counted_from_the_priors_width_on():
    """Far above it copies are no kin: the noise has drowned what they share."""
    cloud = clouds.weigh(
        clouds.start(torch.arange(6, dtype=F64)[:, None], 6),
        torch.tensor([0.0, -99, -99, -99, -99, -99], dtype=F64),
    )
    for near, left in ((True, 1), (False, 6)):
        out, _, info = clouds.resample_particles(
            cloud, Streams(0, [0], 6), 1.0, "systematic", near=near
        )
        assert float(info["ancestors"][0]) == left == len(out.first.unique())
    post = seen(0.1)
    assert clouds.near(post, clouds.width(post))
    assert not clouds.near(post, 1.01 * clouds.width(post))


def surprising(deviations, d=4):
    """Numbers of correlation 0.8, of which the first is measured."""
    C = 0.8 * torch.ones(d, d, dtype=F64) + 0.2 * torch.eye(d, dtype=F64)
    A = po.operators.Dense(torch.eye(1, d, dtype=F64))
    y = torch.full((1,), deviations, dtype=F64)
    return po.Posterior(
        po.priors.Gaussian(torch.zeros(d, dtype=F64), C),
        po.Likelihood(y, A, po.noise.Gaussian(0.3)),
    )


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(
    "method",
    [*(replace(m, particles=64) for m in ALL[:-1]), SMCDiff(64, "exact")],
    ids=lambda m: type(m).__name__,
)
def test_a_cloud_that_y_surprises_is_said_to_have_degenerated(method, single):
    """20 deviations off the prior, where the mean of the other numbers is off by 1 to 13; by
    sample, and by summary for one sample too."""
    post, n = surprising(20.0), 3 if single else 64
    with pytest.warns(RunWarning, match="particles of a cloud have counted as") as said:
        run = po.sample(post, replace(method, single=single), n=n, steps=20)
    told = [str(warning.message) for warning in said]
    assert any("descend from" in text for text in told) != single
    flags = summary(run, post)["flags"]
    assert set(told) <= set(flags)


def test_moments_bear_a_surprise_and_an_expected_y_is_no_degeneracy(recwarn):
    """MomentSMC is exact here, at 8 deviations as at 1; the others are sound where y is not
    surprising."""
    post = surprising(8.0)
    run = po.sample(post, MomentSMC(64, pilot=16), n=640, steps=6)
    assert float(run.mean[1:].mean()) == pytest.approx(0.8 * 8 / 1.09, abs=0.25)
    for method in (TDS(64), DDSMC(64), MCGDiff(64), AFDPS(64)):
        po.sample(surprising(1.0), method, n=64, steps=20)
    assert [str(w.message) for w in recwarn] == []


@pytest.mark.parametrize("deviations", [1.0, 8.0, 20.0])
def test_a_y_that_is_met_with_its_noise_is_said_to_be(deviations):
    """A white prior: the weights of a path are all alike, no particle is lost, and what is measured
    stays at y."""
    prior = po.priors.Gaussian(torch.zeros(2, dtype=F64), 1.0)
    A = po.operators.Dense(torch.eye(1, 2, dtype=F64))
    post = po.Posterior(
        prior, po.Likelihood(torch.full((1,), deviations, dtype=F64), A, po.noise.Gaussian(0.3))
    )
    with pytest.warns(RunWarning, match="The samples meet y exactly: they reproduce its noise"):
        run = po.sample(post, SMCDiff(64), n=64, steps=20)
    assert float(run.std[0]) < 1e-6
    assert any("The samples meet y exactly" in text for text in summary(run, post)["flags"])


def test_samples_beyond_those_asked_for_and_copies_are_no_lines():
    """Three clouds of four particles with four lines each, of which six samples are asked for: two
    of them the same."""
    post = seen(0.1)
    run = po.sample(post, Bootstrap(4, "end", share=0.0), n=6, grid=GRID)
    x = torch.arange(36, dtype=F64).view(6, 6)
    alike = replace(
        run,
        samples=torch.cat([x[:5], x[4:5]]),
        trace=run.trace | {"ancestors": torch.full_like(run.trace["ancestors"], 4)},
    )
    assert genealogy_of(replace(alike, samples=x), post)["ancestors"] == 6
    assert genealogy_of(alike, post)["ancestors"] == 5
