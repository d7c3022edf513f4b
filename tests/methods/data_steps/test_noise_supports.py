"""Noise that knows only some clean measurements: photon counts, against quadrature in float64; and
any other law with walls.

With A = I and a white Gaussian prior the numbers of an image are independent, so that one image
holds many problems.
"""

from dataclasses import dataclass, fields, replace
from functools import cache

import pytest
import torch
from cases import METHODS
from reference import F64

import posteriori as po
from posteriori import methods
from posteriori.methods.data_steps import gaussian_draws, noise_supports
from posteriori.noise import Gaussian, NoiseLaw, Poisson
from posteriori.operators.base import Operator
from posteriori.rng import Streams

pytestmark = pytest.mark.filterwarnings("ignore:Poisson noise with a peak")
MEAN, VARIANCE = 0.3, 0.09
# Peaks, and what was measured: from no photon up to far more than the prior expects.
CELLS = [
    (5.0, (0.0, 0.2, 0.4, 1.0)),
    (20.0, (0.0, 0.05, 0.3, 1.0)),
    (200.0, (0.0, 0.005, 0.2, 0.6)),
]


def by_quadrature(log_likelihood, low=0.0, high=3.0):
    """Mean and standard deviation of x ~ N(0.3, 0.09) exp(log_likelihood(x)) on [low, high]."""
    x = torch.linspace(low, high, 300_001, dtype=F64)
    logs = log_likelihood(x) - (x - MEAN).square() / (2 * VARIANCE)
    w = (logs - logs.max()).exp()
    w[[0, -1]] *= 0.5
    w = w / w.sum()
    mean = w @ x
    return float(mean), float((w @ (x - mean).square()).sqrt())


@cache
def counts(peak, y):
    return by_quadrature(lambda x: torch.xlogy(torch.tensor(peak * y, dtype=F64), x) - peak * x)


def photons(peak, y, A=None):
    prior = po.priors.Gaussian(
        torch.full(tuple(y.shape) if A is None else A.in_shape, MEAN, dtype=F64), VARIANCE
    )
    return po.Posterior(
        prior, po.Likelihood(y, A or po.operators.Identity(tuple(y.shape)), Poisson(peak))
    )


def in_one_image(values, copies=16):
    return torch.tensor(values, dtype=F64)[:, None].expand(-1, copies).contiguous()


def lean(method):
    """The same method with no more inner work than this problem needs."""
    wanted = {"inner_steps": 25, "prior_steps": 8, "particles": 256, "single": False}
    have = {f.name for f in fields(method)}
    keep = {
        name: min(value, getattr(method, name)) if name.endswith("steps") else value
        for name, value in wanted.items()
        if name in have
    }
    return replace(method, **keep)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, method in METHODS.items()
        # CBG's many candidates have a test of their own.
        if not name.startswith(("Unconditional", "CBG")) and method.family != "blind"
    ],
)
def test_every_method_that_takes_photon_counts_is_near_the_exact_mean_or_is_not_for_them(name):
    method = lean(METHODS[name])
    refusal = method.refuses(photons(20.0, in_one_image((0.0,))))
    if refusal:
        assert refusal.startswith(type(method).__name__)
        assert "Poisson noise" in refusal or "has no leaf" in refusal
        return
    for peak, values in CELLS:
        exact = torch.tensor([counts(peak, y)[0] for y in values], dtype=F64)
        if method.group > 1:  # particles need exp(information in y): one number at a time
            means = [
                po.sample(
                    photons(peak, torch.full((1,), y, dtype=F64)), method, n=512, steps=60
                ).mean
                for y in values
            ]
            found = torch.cat(means)
        else:
            chains = hasattr(method, "inner_steps")
            # Decoupled samples need none to mix.
            steps = 10 if name == "DAPS" else 20 if name.startswith("DAPS") else 40
            run = po.sample(
                photons(peak, in_one_image(values)), method, n=24 if chains else 128, steps=steps
            )
            assert all(row.ok for row in run.status)
            found = run.mean.mean(1)
        torch.testing.assert_close(found, exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("draw", ["mala", "hmc"])
def test_photon_counts_are_drawn_exactly_by_decoupled_sampling(draw):
    """DAPS on a white Gaussian prior is exact for exact draws: mean and spread of each number
    within 5 standard errors."""
    for peak, values in CELLS:
        run = po.sample(
            photons(peak, in_one_image(values)),
            methods.DAPS(draw=draw, inner_steps=40 if draw == "mala" else 10),
            n=24,
            steps=6,
        )
        assert float(run.samples.min()) >= 0
        for row, y in enumerate(values):
            mean, std = counts(peak, y)
            x = run.samples[:, row]
            assert abs(float(x.mean()) - mean) < 5 * std / x.numel() ** 0.5, (peak, y)
            assert 0.85 < float(x.std()) / std < 1.15, (peak, y)


def test_black_pixels_that_once_stopped_the_chains():
    """64 pixels without a photon at peak 20: the mean is 0.056, and was 0.29 where the chain never
    left a start of no density."""
    post = photons(20.0, torch.zeros(1, 8, 8, dtype=F64))
    assert counts(20.0, 0.0)[0] == pytest.approx(0.056, abs=1e-3)
    for method, slack in (
        (methods.DAPS(inner_steps=25), 0.004),
        (methods.PnPDM(inner_steps=25, prior_steps=8), 0.02),
    ):
        found = float(po.sample(post, method, n=32, steps=20).samples.mean())
        assert found == pytest.approx(0.056, abs=slack)


def test_the_score_of_photon_counts_at_black():
    law, y = Poisson(20.0), torch.tensor([0.0, 0.0, 0.3, 0.3, 0.0, 0.3], dtype=F64)
    clean = torch.tensor([[0.0, 0.2, 0.2, 0.0, -0.1, -0.1]], dtype=F64)
    score = law.score(y, clean)[0]
    assert score[:4].tolist() == pytest.approx([-20.0, -20.0, 10.0, float("inf")])
    assert bool(score[4:].isnan().all())
    assert law.log_prob_each(y, clean)[0].isfinite().tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert float(law.log_prob(y[:3], clean[:, :3])) == pytest.approx(
        float(law.log_prob_each(y[:3], clean[:, :3]).sum())
    )
    # The flat prior's posterior is a Gamma law, whose moments ``gaussian`` gives.
    x = torch.linspace(0, 4, 400_001, dtype=F64)
    for seen in (0.0, 0.3):
        w = (20 * seen * x.log() - 20 * x).exp() if seen else (-20 * x).exp()
        w = w / w.sum()
        mean, variance = law.gaussian(torch.tensor(seen, dtype=F64))
        assert float(mean) == pytest.approx(float(w @ x), rel=1e-3)
        assert float(variance) == pytest.approx(float(w @ (x - w @ x).square()), rel=1e-3)


MIXED = torch.tensor([[1.0, 0.5], [-0.4, 1.0], [0.3, 0.3]], dtype=F64)


@pytest.mark.parametrize(
    ("peak", "y"), [(5.0, (0.2, 0.0, 0.0)), (20.0, (0.0, 0.0, 0.0)), (200.0, (0.2, 0.0, 0.0))]
)
def test_an_operator_that_mixes_numbers_has_walls_of_its_own(peak, y):
    """Three counts of two numbers, by quadrature in the plane. The rows share a step and a test, so
    that a narrow wedge takes long."""
    side = torch.linspace(-1.0, 2.5, 1001, dtype=F64)
    x = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).view(-1, 2)
    clean, seen = x @ MIXED.T, torch.tensor(y, dtype=F64)
    logs = torch.where(clean < 0, -torch.inf, torch.xlogy(peak * seen, clean) - peak * clean).sum(1)
    logs = logs - (x - MEAN).square().sum(1) / (2 * VARIANCE)
    w = (logs - logs.max()).exp()
    w = w / w.sum()
    mean = w @ x
    post = photons(peak, seen, po.operators.Dense(MIXED))
    run = po.sample(post, methods.DAPS(inner_steps=60), n=200, steps=6)
    assert float((run.samples @ MIXED.T).min()) >= 0
    torch.testing.assert_close(run.samples.mean(0), mean, rtol=0, atol=0.04)


def test_numbers_are_drawn_one_by_one_where_each_measurement_sees_one_of_them():
    x = torch.zeros(3, 1, 4, 4, dtype=F64)
    mask = po.operators.Mask(po.operators.random_mask((4, 4), 0.5, 0), (1, 4, 4))
    for A, apart in (
        (po.operators.Identity((1, 4, 4)), True),
        (mask, True),
        (po.operators.Stack(mask, po.operators.Identity((1, 4, 4))), True),
        (po.operators.Affine(mask, 0.5, 0.5), True),
        (po.operators.Downsample((1, 4, 4), 2).double(), False),
        (po.operators.Blur(po.operators.gaussian_kernel(1.0).double(), (1, 4, 4)), False),
        (po.operators.Dense(torch.eye(16, dtype=F64).flip(0) * 2.0, (1, 4, 4)), True),
        (po.operators.Dense(torch.linalg.qr(torch.eye(16, dtype=F64) + 0.1)[0], (1, 4, 4)), False),
        (po.operators.Clip((1, 4, 4)), False),
    ):
        like = po.Likelihood(torch.zeros(A.out_shape, dtype=F64), A, Poisson(20.0))
        parts = noise_supports.one_by_one(like, x)
        assert (parts is not None) == apart, A
        if parts is not None:
            # The density of each number, summed, is the row's; so are slopes.
            at = torch.rand(3, 1, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
            target = gaussian_draws.Tilted(like, x + 0.4, 0.2)
            (value, slope), (total, whole) = target.each(parts)(at), target.both(at)
            torch.testing.assert_close(value.flatten(1).sum(1), total)
            torch.testing.assert_close(slope, whole)
    assert noise_supports.one_by_one(replace(like, noise=Gaussian(0.1)), x) is None


def test_a_prior_of_another_range_sees_the_same_photons():
    prior = po.priors.Gaussian(
        torch.full((4, 16), 2 * MEAN - 1, dtype=F64), 4 * VARIANCE, range=(-1, 1)
    )
    y = in_one_image(CELLS[1][1])
    post = po.Posterior(
        prior, po.Likelihood(y, po.operators.Identity((4, 16)), Poisson(20.0), range=(0, 1))
    )
    run = po.sample(post, methods.DAPS(inner_steps=40), n=16, steps=6)
    exact = torch.tensor([counts(20.0, v)[0] for v in CELLS[1][1]], dtype=F64)
    torch.testing.assert_close(run.mean.mean(1), exact, rtol=0, atol=0.03)
    assert "knows only A x in [0, inf]" in str(methods.DPS.published().refuses(post))


@dataclass(frozen=True)
class Walled(NoiseLaw):
    """Gaussian noise on an instrument that can only have seen clean numbers in [0, 0.4]."""

    sigma: float

    @property
    def support(self):
        return 0.0, 0.4

    def sample(self, clean, rng):
        return clean + self.sigma * rng.normal(clean)

    def log_prob(self, y, clean):
        return self.log_prob_each(y, clean).flatten(1).sum(1)

    def log_prob_each(self, y, clean):
        return torch.where(
            (clean < 0) | (clean > 0.4), -torch.inf, -0.5 * (y - clean).square() / self.sigma**2
        )

    def score(self, y, clean):
        return (y - clean) / self.sigma**2

    def variance(self, y):
        return torch.full_like(y, self.sigma**2)


@pytest.mark.parametrize("y", [-0.3, 0.2, 0.9])
def test_any_law_with_walls_is_met_from_inside(y):
    law = Walled(0.2)
    like = po.Likelihood(torch.full((64,), y, dtype=F64), po.operators.Identity((64,)), law)
    post = po.Posterior(po.priors.Gaussian(torch.full((64,), MEAN, dtype=F64), VARIANCE), like)
    x = po.sample(post, methods.DAPS(inner_steps=60), n=32, steps=5).samples
    mean, std = by_quadrature(lambda v: -0.5 * (y - v).square() / 0.04, 0.0, 0.4)
    assert 0 <= float(x.min()) < float(x.max()) <= 0.4
    assert abs(float(x.mean()) - mean) < 5 * std / x.numel() ** 0.5


class Darkness(Operator):
    """Never light: no image has a density."""

    def forward(self, x):
        return -1 - x.square()


def test_a_chain_that_finds_no_start_is_reported_and_gives_no_sample():
    like = po.Likelihood(torch.zeros(4, dtype=F64), Darkness((4,)), Poisson(20.0))
    post = po.Posterior(po.priors.Gaussian(torch.zeros(4, dtype=F64), 1.0), like)
    for method in (
        methods.DAPS(inner_steps=3),
        methods.DAPS(draw="langevin", inner_steps=3),
        methods.PnPDM(inner_steps=3),
    ):
        with pytest.raises(FloatingPointError, match="every row diverged"):
            po.sample(post, method, n=2, steps=3)


def test_starts_are_moved_inside_row_by_row_and_no_further():
    A = po.operators.Dense(MIXED)
    like = po.Likelihood(torch.zeros(3, dtype=F64), A, Poisson(20.0))
    x = torch.tensor([[0.3, 0.4], [-2.0, 0.5], [0.4, -3.0]], dtype=F64)
    found = noise_supports.feasible(like, x)
    assert torch.equal(found[0], x[0])
    assert float((found @ MIXED.T).min()) > 0
    torch.testing.assert_close(noise_supports.feasible(like, x[1:2])[0], found[1])
    target = gaussian_draws.Tilted(like, x, 0.05)
    _, info = gaussian_draws.draw_tilted("mala", target, Streams(0, range(3)), 60)
    assert float(info["acceptance"].min()) > 0
