"""No method and no grid asks a prior for a noise level outside its limits, whatever schedule its
network was trained with."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
from cases import METHODS
from reference import F64

import posteriori as po
from posteriori import grid as grids
from posteriori.methods import ScorePriorVI
from posteriori.priors.network import Network

SCHEDULES = {
    "linear": po.priors.DiscreteVP.linear(),
    "scaled linear": po.priors.DiscreteVP.scaled_linear(integer=True),
    "cosine": po.priors.DiscreteVP.cosine(),
    "zero terminal": po.priors.DiscreteVP.scaled_linear().zero_terminal(),
    "continuous": po.priors.ContinuousVP(),
    "VE": po.priors.VE(0.01, 50.0, "log"),
    "flow": po.priors.RectifiedFlow(),
    "edm": None,
}
FIRST = ("scaled linear", "flow", "edm")
OUTPUTS = {"zero terminal": "v", "flow": "flow", "edm": "edm"}


class Asked(Network):
    """White images of variance 0.25 as a network of a schedule would know them; every level that it
    is asked for is kept."""

    def __init__(self, name, **limits):
        options = {
            "schedule": SCHEDULES[name],
            "parametrization": OUTPUTS.get(name, "eps"),
            "sigma_data": 0.5 if name == "edm" else None,
        }
        super().__init__(torch.nn.Identity(), shape=(1, 4, 4), variance=0.25, **options, **limits)
        self.asked = []

    def denoise(self, x, sigma):
        self.asked.append(float(sigma))
        if self.schedule is not None:
            self.schedule.level(float(sigma))
        return x * 0.25 / (0.25 + sigma**2)

    def outside(self):
        return [
            s
            for s in self.asked
            if not self.sigma_min * (1 - 1e-6) <= s <= self.sigma_max * (1 + 1e-6)
        ]


def posterior(prior):
    A = po.operators.Mask(po.operators.random_mask((4, 4), 0.5, 0), (1, 4, 4))
    return po.Posterior(
        prior,
        po.Likelihood(
            torch.full(A.out_shape, 0.3, dtype=F64), A, po.noise.Gaussian(0.1), range=(-1, 1)
        ),
    )


def asked(method, name, grid, steps, **limits):
    """The levels outside the limits in a run of a few steps, or None where the method refuses the
    problem."""
    post = posterior(Asked(name, **limits))
    if method.refuses(post):
        return None
    post.prior.asked.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = po.sample(post, method, n=1, steps=steps, grid=grid)
    assert bool(run.samples.isfinite().all())
    assert post.prior.asked
    return post.prior.outside()


def quick(method):
    """Without the log-weights of score-prior VI, hundreds of denoisers for each draw: one case
    below has them."""
    return replace(method, weigh_up_to=0) if isinstance(method, ScorePriorVI) else method


# The rule is the same for all: three whose limits differ most, and the others where time does not
# matter.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FIRST else pytest.mark.slow) for n in SCHEDULES]
)
def test_no_method_leaves_the_limits_of_its_prior(name):
    """On its own levels, or Karras's: three of them, of which the lowest is sigma_min."""
    found = {label: asked(quick(method), name, None, 3) for label, method in METHODS.items()}
    assert {label: levels for label, levels in found.items() if levels} == {}
    assert sum(levels is not None for levels in found.values()) > 70


def test_limits_within_those_of_the_schedule_are_kept_on_a_ddpm_grid():
    """Stable Diffusion's schedule, which knows integers only; limits of the prior that are narrower
    than it."""
    limits = {"sigma_min": 0.1, "sigma_max": 10.0}
    found = {
        label: asked(quick(method), "scaled linear", "ddpm", 2, **limits)
        for label, method in METHODS.items()
    }
    assert {label: levels for label, levels in found.items() if levels} == {}
    weighed = ScorePriorVI("diagonal", draws=2, updates=1, polish=1)
    assert asked(weighed, "scaled linear", "ddpm", 1, **limits) == []


@pytest.mark.parametrize("grid", ["karras", "log", "ddpm"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_grid_lies_within_the_limits(name, grid):
    for limits in ({}, {"sigma_min": 0.05, "sigma_max": 10.0}):
        prior = Asked(name, **limits)
        for steps in (1, 2, 7, 1000, 1500):
            levels = grids.make(grid, steps, prior.sigma_max, prior.sigma_min, prior.know().ladder)
            assert len(levels) == steps + 1
            assert bool((levels.diff() < 0).all())
            assert float(levels[-1]) == 0
            assert float(levels[0]) <= prior.sigma_max * (1 + 1e-6)
            assert steps == 1 or float(levels[-2]) >= prior.sigma_min * (1 - 1e-6)
            assert asked_for(prior, levels[:-1])


def asked_for(prior, levels):
    return prior.schedule is None or all(
        prior.schedule.level(float(s)) for s in levels[:: max(1, len(levels) // 20)]
    )


def test_a_ddpm_grid_is_the_priors_own_schedule():
    """The timesteps of a discrete schedule, whole ones, the noisiest and the cleanest included;
    equal times of a continuous one."""
    for name in ("linear", "scaled linear", "cosine", "zero terminal"):
        schedule, prior = SCHEDULES[name], Asked(name)
        levels = grids.make("ddpm", 5, prior.sigma_max, prior.sigma_min, prior.know().ladder)
        last = len([s for s in schedule.sigmas if s < math.inf]) - 1
        assert [schedule.timestep(float(s)) for s in levels[:-1]] == pytest.approx(
            [round(last * k / 4) for k in (4, 3, 2, 1, 0)], abs=1e-6
        )
        assert all(len(schedule.level(float(s)).labels) == 1 for s in levels[:-1])
    torch.testing.assert_close(
        grids.make("ddpm", 20, 80.0, 0.01, Asked("linear").know().ladder), grids.ddpm(20)
    )
    continuous, flow = SCHEDULES["continuous"], SCHEDULES["flow"]
    times = [
        continuous.level(float(s)).labels[0]
        for s in grids.make("ddpm", 1000, 1, 1, Asked("continuous").know().ladder)[:-1]
    ]
    assert times == pytest.approx(torch.linspace(1, 1e-3, 1000, dtype=F64).tolist(), rel=1e-9)
    times = [
        flow.level(float(s)).labels[0]
        for s in grids.make("ddpm", 1000, 1, 1, Asked("flow").know().ladder)[:-1]
    ]
    assert times == pytest.approx(
        torch.linspace(1000 / 1001, 1 / 1001, 1000, dtype=F64).tolist(), rel=1e-9
    )
    assert grids.make("ddpm", 3, 1, 1, Asked("VE").know().ladder).tolist() == pytest.approx(
        [50, 0.7031, 0.01, 0], rel=0.01
    )


def test_priors_without_a_schedule_take_the_levels_of_ddpm():
    """All of them where a closed form holds at any level; those within the limits of a network."""
    closed = po.priors.Gaussian(torch.zeros(3, dtype=F64), 1.0)
    for prior in (
        closed,
        po.priors.ComplexImages(po.priors.Gaussian(torch.zeros(2, 3, dtype=F64), 1.0)),
    ):
        torch.testing.assert_close(
            grids.make("ddpm", 100, prior.sigma_max, prior.sigma_min, prior.know().ladder),
            grids.ddpm(100),
        )
    edm = Asked("edm", sigma_min=0.02, sigma_max=80.0)
    whole = grids.ddpm(1000)[:-1].flip(0)
    torch.testing.assert_close(edm.know().ladder(), whole[(whole >= 0.02) & (whole <= 80)])
    with pytest.raises(
        ValueError, match="none of the levels 0.01 to 157 of a ddpm grid lies between 200 and 500"
    ):
        grids.make(
            "ddpm", 3, 500, 200, Asked("edm", sigma_min=200.0, sigma_max=500.0).know().ladder
        )


def test_the_levels_between_those_of_a_ladder_are_geometric():
    ladder = torch.tensor([1.0, 4.0, 64.0], dtype=F64)
    assert grids.trained(3, ladder).tolist() == [64, 4, 1, 0]
    assert grids.trained(2, ladder).tolist() == [64, 1, 0]
    assert grids.trained(1, ladder).tolist() == [64, 0]
    torch.testing.assert_close(
        grids.trained(5, ladder), torch.tensor([64, 16, 4, 2, 1, 0], dtype=F64)
    )
