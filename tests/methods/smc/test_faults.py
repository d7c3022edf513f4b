"""One particle whose numbers break is a particle of weight 0: its cloud goes on without it, and no
other row is touched."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from cases import bed, phases
from reference import F64

import posteriori as po
from posteriori.linalg import root_product
from posteriori.methods import AFDPS, DDSMC, FPS, TDS, Bootstrap, MCGDiff, MomentSMC, SMCDiff
from posteriori.methods.smc import particles
from posteriori.methods.smc.moments.adaptive_levels import bends
from posteriori.methods.smc.statistical_linearisation import log_says
from posteriori.priors import GaussianMixture
from posteriori.priors.base import Prior
from posteriori.rng import Streams

LEVELS = po.grid.log(5, 20.0, 0.05)
METHODS = {
    "AFDPS": AFDPS(8),
    "Bootstrap": Bootstrap(8),
    "Bootstrap end": Bootstrap(8, "end"),
    "DDSMC": DDSMC(8),
    "DDSMC ode": DDSMC(8, centre="ode", ode_steps=3),
    "FPS": FPS(8),
    "FPS published": FPS(8, "published"),
    "MCGDiff": MCGDiff(8),
    "MCGDiff kept": MCGDiff(8, kappa=0.01, last="kept"),
    "MomentSMC": MomentSMC(8, pilot=8),
    "SMCDiff": SMCDiff(8),
    "SMCDiff exact": SMCDiff(8, "exact"),
    "TDS": TDS(8),
    "TDS pigdm": TDS(8, "pigdm"),
    "TDS row sums": TDS(8, "row sums"),
}


class Broken(Prior):
    """Two modes, but NaN in one row of what the denoiser, its transpose or its draw gives at one
    level."""

    def __init__(self, inner, step, row, where):
        super().__init__(
            inner.shape,
            variance=inner.variance,
            max_std=inner.max_std,
            sigma_max=inner.sigma_max,
            sigma_min=inner.sigma_min,
        )
        self.inner, self.step, self.row, self.where = inner, step, row, where

    def spoil(self, x, sigma, *where):
        level = None if self.step is None else float(LEVELS[self.step])
        at = (
            level is not None
            and abs(float(sigma) / level - 1) < 1e-9
            and self.where in where
            and len(x) > self.row
        )
        return torch.where(
            (torch.arange(len(x)) == self.row).view(-1, *[1] * (x.ndim - 1)) & at, math.nan, x
        )

    def denoise(self, x, sigma):
        return self.spoil(self.inner.denoise(x, sigma), sigma, "value")

    def linearize(self, x, sigma):
        x0, pull = self.inner.linearize(x, sigma)
        return self.spoil(x0, sigma, "value"), lambda u: self.spoil(
            pull(u), sigma, "value", "transpose"
        )

    def know(self):
        return replace(super().know(), closed=SimpleNamespace(draw_given=self.draw_given))

    def draw_given(self, x, sigma, rng):
        return self.spoil(self.inner.draw_given(x, sigma, rng), sigma, "value")


def posterior(step, row=5, where="value", sigma=0.05):
    whole = bed("general", sigma=sigma)
    means = torch.stack([torch.full((6,), m, dtype=F64) for m in (-1.0, 1.0)])
    inner = GaussianMixture(
        torch.ones(2, dtype=F64), means, torch.linspace(0.3, 1.2, 6, dtype=F64).expand(2, 6)
    )
    return po.Posterior(Broken(inner, step, row, where), whole.likelihood)


def rows_of(post, method):
    seen = []
    run = po.sample(
        post, method, n=16, grid=LEVELS, watch=[lambda k, s, rows, info: seen.append(rows)]
    )
    return run, torch.stack(seen)


@pytest.mark.parametrize("step", [0, 2, 4])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore:The 8 particles", "ignore:.*descend from", "ignore:SMCDiff")
def test_one_broken_particle_is_dropped_and_its_cloud_finishes(name, step):
    with pytest.warns(UserWarning, match="numbers are not finite"):
        run = po.sample(posterior(step), METHODS[name], n=16, grid=LEVELS)
    assert all(status.ok for status in run.status)
    assert len(run.samples) == 16
    assert bool(run.samples.isfinite().all())
    assert run.log_evidence is None or math.isfinite(run.log_evidence)


@pytest.mark.parametrize("where", ["value", "transpose"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_no_other_particle_is_touched_while_nothing_is_resampled(name, where):
    """The same numbers in all other rows, at every later step; then the evidence is that of one
    weight less."""
    method = replace(METHODS[name], share=0.0)
    if name == "MomentSMC":
        pytest.skip(
            "resamples at the last step, and spreads its noise evenly over "
            "the particles that are left"
        )
    run, rows = rows_of(posterior(1, where=where), method)
    whole, sound = rows_of(posterior(None), method)
    others = [k for k in range(16) if k != 5]
    torch.testing.assert_close(rows[:, others], sound[:, others], rtol=1e-9, atol=1e-9)
    assert bool(rows.isfinite().all())
    assert all(status.ok for status in run.status)
    if where == "value":
        # No sample is the broken particle's: each is one of the other rows.
        ends = rows[-1][[0, 1, 2, 3, 4, 6, 7]]
        assert float(torch.cdist(run.samples[:8], ends).min(1).values.max()) < 1e-9
        assert run.log_evidence is None or run.log_evidence <= whole.log_evidence


def test_a_broken_particle_is_a_weight_of_zero():
    x, log_w = torch.arange(8, dtype=F64)[:, None], torch.linspace(-1, 0, 8, dtype=F64)
    cloud = particles.weigh(particles.start(x, 4), log_w)
    moved = x.clone()
    moved[1], moved[6] = math.nan, math.inf
    with pytest.warns(UserWarning, match="numbers are not finite"):
        out = particles.moved(cloud, moved)
    assert out.x[:, 0].tolist() == [0, 0, 2, 3, 4, 5, 4, 7]
    left = torch.ones(8, dtype=torch.bool)
    left[1] = left[6] = False
    assert torch.equal(out.log_w[left], log_w[left])
    assert out.log_w[~left].tolist() == [-math.inf, -math.inf]
    with pytest.warns(UserWarning, match="numbers are not finite"):
        gone = particles.moved(cloud, torch.cat([x[:4], torch.full((4, 1), math.nan, dtype=F64)]))
    assert bool(gone.x[4:].isnan().all())
    assert torch.equal(gone.x[:4], x[:4])
    assert particles.log_evidence(gone).isnan().tolist() == [False, True]


def test_what_looks_at_a_cloud_as_a_whole_leaves_broken_images_out():
    x = torch.randn(2, 8, 6, dtype=F64, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [5.0, 1, 1, 1, 1, 1], dtype=F64
    )
    whole = x.clone()
    whole[0, 3] = math.nan
    axis, along = particles.leading(whole.flatten(0, 1), 8)
    kept = [k for k in range(8) if k != 3]
    alone = particles.leading(x[0, kept], 7)
    torch.testing.assert_close(axis[0].abs(), alone[0][0].abs(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(along[kept].abs(), alone[1].abs(), rtol=1e-6, atol=1e-6)
    assert float(along[3]) == 0
    z = Streams(0, range(2), 8).normal(whole.flatten(0, 1))
    assert bool(
        particles.spread_evenly(z, axis, along, 2, Streams(1, range(2), 8)).isfinite().all()
    )


def test_matrices_of_other_rows_are_decomposed_beside_a_broken_one():
    """The matrix root, and what a curved A says: NaN in the row itself, the same numbers in the
    others."""
    M = torch.linspace(0.5, 2, 6, dtype=F64)
    b = torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    spoilt = b.clone()
    spoilt[1] = math.nan
    out = root_product(lambda v: M * v, spoilt, iterations=6)
    torch.testing.assert_close(out[[0, 2]], root_product(lambda v: M * v, b, iterations=6)[[0, 2]])
    torch.testing.assert_close(out[[0, 2]], M.sqrt() * b[[0, 2]])
    assert bool(out[1].isnan().all())
    late = root_product(
        lambda v: torch.where(torch.arange(3)[:, None] == 1, math.nan, M * v), b, iterations=6
    )
    assert bool(late[1].isnan().all())
    assert torch.equal(late[[0, 2]], out[[0, 2]])
    post = phases()
    x0 = post.prior.sample(3, 0)
    spoilt = x0.clone()
    spoilt[1] = math.nan
    said, sound = (log_says(post, x, torch.tensor(0.3), 8) for x in (spoilt, x0))
    assert said.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(said[[0, 2]], sound[[0, 2]])


def test_a_pilot_with_a_broken_row_still_places_levels():
    method = MomentSMC(8, share=0.0)
    with pytest.warns(UserWarning, match="numbers are not finite"):
        b = bends(posterior(2), method, LEVELS)
    assert bool(b.isfinite().all())
    torch.testing.assert_close(b[:1], bends(posterior(None), method, LEVELS)[:1])
