"""A level computed in two ways is one level: no run depends on which of them the processor rounds
up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import METHODS, bed
from reference import F64

import posteriori as po
from posteriori import grid
from posteriori.methods import DCDP, FPS, ILVR, FreeDoM, MCGDiff, PnPDM, ReSample, SMCDiff
from posteriori.methods.data_steps import svd_coordinates
from posteriori.methods.smc import particles
from posteriori.operators import Dense

# Rounding of a singular value decomposition or of a root; far above it, and still one level.
ROUNDING = (-1e-15, 1e-15, -1e-10, 1e-10)
SEVERAL = {
    "FreeDoM until": FreeDoM(until=4.0, window=(0.1, 2.0), repeats=3),
    "ILVR until": ILVR(until=2.0),
    "ReSample below": ReSample(every=1, below=2.0),
    "DCDP purifies": DCDP(purify=4),
    "PnPDM levels": PnPDM(prior_steps=6),
}


class Rounded(Dense):
    """The same matrix on another processor: its singular values differ by a relative ``change``."""

    change = 0.0

    def spectrum(self):
        spectrum = super().spectrum()
        return replace(spectrum, s=spectrum.s * (1 + self.change))


def on_the_edge(change=0.0):
    """A posterior, and levels on which everything stands that a method compares with a level: each
    tau, half of the first level, the prior's smallest level and width and a tenth of it, levels of
    the inner grid of PnP-DM."""
    post = bed("general", sigma=0.2)
    A = Rounded(post.likelihood.A.matrix)
    A.change = change
    post = po.Posterior(post.prior, replace(post.likelihood, A=A))
    tau = 0.2 / torch.tensor([1.5, 0.7, 0.3, 0.05], dtype=F64)
    prior = post.prior
    inner = grid.karras(6, prior.sigma_max, prior.sigma_min)[2:4]
    own = torch.tensor(
        [2.0, prior.sigma_min, 0.1 * prior.max_std, prior.max_std, particles.width(post)], dtype=F64
    )
    levels = grid.distinct(torch.cat([torch.tensor([0.0, 8.0], dtype=F64), tau, inner, own])).flip(
        0
    )
    return post, levels


# ScorePriorVI fits once, whatever the levels.
@pytest.mark.parametrize(
    "name", [*(name for name in METHODS if not name.startswith("ScorePriorVI")), *SEVERAL]
)
def test_a_run_does_not_depend_on_the_rounding_of_levels_or_singular_values(name):
    method = (METHODS | SEVERAL)[name]
    post, levels = on_the_edge()
    if method.refuses(post):
        pytest.skip("does not take this posterior")
    plain = po.sample(post, method, n=4, grid=levels, seed=1)
    for change in (-1e-12, 1e-12):
        rounded = po.sample(on_the_edge(change)[0], method, n=4, grid=levels * (1 + change), seed=1)
        # Descents stop by their residual, a matter of rounding as well: the calls of A are not
        # compared.
        assert rounded.counts["denoiser"] == plain.counts["denoiser"]
        torch.testing.assert_close(rounded.samples, plain.samples, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", ROUNDING)
def test_a_noise_level_of_a_direction_that_is_a_level_is_that_level(change):
    post, _ = on_the_edge(change)
    level = torch.tensor(4.0, dtype=F64)
    f = svd_coordinates.frame(post, level)
    assert (f.tau == 4.0).tolist() == [False, False, False, True, False, False]
    assert f.reach(torch.tensor(8.0), torch.tensor(1.0), torch.tensor(8.0))[0].tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    looked, t = f.reach(torch.tensor(20.0), level, torch.tensor(20.0))
    assert looked.tolist() == [True] * 4 + [False] * 2
    assert float(t[3]) == 4.0


def test_a_small_singular_value_in_single_precision_is_known_to_the_rounding_of_the_largest():
    matrix = torch.diag(torch.tensor([1.0, 1e-3 * (1 + 3e-5)]))
    post = po.Posterior(
        po.priors.Gaussian(torch.zeros(2), 1.0),
        po.Likelihood(torch.ones(2), Dense(matrix), po.noise.Gaussian(1e-3)),
    )
    assert svd_coordinates.frame(post, torch.tensor(1.0)).tau.tolist() == [1e-3, 1.0]


@pytest.mark.parametrize("change", ROUNDING)
def test_directions_measured_alike_share_a_level_and_none_is_lost(change):
    """Six singular values, of which four are one up to rounding, and one meets the first geometric
    level below the top."""
    prior = po.priors.Gaussian(torch.zeros(6, dtype=F64), 1.0)
    plain = grid.log(10, prior.sigma_max, prior.sigma_min)
    top = prior.sigma_max * (1 + change)
    s = 0.1 / torch.tensor(
        [1.0, 1.0 + change, 1.0 - change, 1.0, float(plain[3]) * (1 + change), top], dtype=F64
    )
    post = po.Posterior(
        prior, po.Likelihood(torch.ones(6, dtype=F64), Dense(torch.diag(s)), po.noise.Gaussian(0.1))
    )
    for steps in (4, 11, 12, 30):
        levels = svd_coordinates.levels(post, steps)
        assert len(levels) == steps + 1
        assert float(levels[0]) == pytest.approx(prior.sigma_max, rel=1e-9)
        assert bool((levels[1:] < levels[:-1] * (1 - 2e-6)).all())
        assert float((levels / 1.0 - 1).abs().min()) < 1e-6 or steps == 4
    for method in (MCGDiff(particles=8), FPS(particles=8)):
        assert bool(po.sample(post, method, n=8, steps=12).samples.isfinite().all())


def test_bounds_of_levels_are_met_within_rounding():
    assert grid.above(1.001, 1.0)
    assert not any(grid.above(1.0 + change, 1.0) for change in ROUNDING)
    assert grid.distinct(torch.tensor([3.0, 0.0, 1.0, 1.0 + 1e-9, 0.0], dtype=F64)).tolist() == [
        0.0,
        1.0,
        3.0,
    ]
    prior = po.priors.Gaussian(torch.zeros(2, dtype=F64), 1.0)
    for change in ROUNDING:
        level = 2**0.5 * (1 + change)
        post = po.Posterior(
            prior,
            po.Likelihood(
                torch.ones(1, dtype=F64),
                Dense(torch.tensor([[1.0, 0.0]], dtype=F64)),
                po.noise.Gaussian(level),
            ),
        )
        assert SMCDiff().refuses(post) is None
        assert particles.near(post, particles.width(post) * (1 + change))


def test_named_grids_are_their_formulas():
    """Level i of n, from the largest: Karras's by its root, the geometric one by its ratio, and the
    last is the prior's lowest."""
    top, bottom, n = 80.0, 0.002, 18
    ends = top ** (1 / 7), bottom ** (1 / 7)
    wanted = [(ends[0] + k / (n - 1) * (ends[1] - ends[0])) ** 7 for k in range(n)] + [0.0]
    assert grid.karras(n, top, bottom).tolist() == pytest.approx(wanted, rel=1e-12)
    # Two of the levels of the 18 that the paper's ImageNet sampler visits.
    assert grid.karras(n, top, bottom)[1:3].tolist() == pytest.approx([57.5860, 40.7856], abs=1e-3)
    assert grid.karras(3, 27.0, 1.0, rho=3.0).tolist() == pytest.approx([27, 8, 1, 0])
    assert grid.log(4, 8.0, 1.0).tolist() == pytest.approx([8, 4, 2, 1, 0])
    assert grid.karras(1, 9.0, 1.0).tolist() == pytest.approx([9, 0])
    betas = [1e-4 + k / 999 * (0.02 - 1e-4) for k in range(1000)]
    kept, sigmas = 1.0, []
    for beta in betas:
        kept *= 1 - beta
        sigmas.append(((1 - kept) / kept) ** 0.5)
    assert grid.ddpm(1000).tolist() == pytest.approx([*reversed(sigmas), 0.0], rel=1e-9)
    assert grid.ddpm(4).tolist() == pytest.approx(
        [sigmas[999], sigmas[666], sigmas[333], sigmas[0], 0], rel=1e-9
    )
    post = bed()
    for name in ("karras", "log"):
        levels = po.sample(post, po.methods.Unconditional(), n=1, steps=6, grid=name).config[
            "levels"
        ]
        assert levels == pytest.approx(
            getattr(grid, name)(6, post.prior.sigma_max, post.prior.sigma_min).tolist(), rel=1e-12
        )
