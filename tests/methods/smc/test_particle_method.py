"""The driver and methods whose rows interact: groups that return fewer samples than they hold,
evidence, suspicion after a fault."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from cases import Faulty, bed, toy

import posteriori as po
from posteriori.likelihood import Posterior
from posteriori.methods.base import Method
from posteriori.methods.smc import particles as clouds


@dataclass(frozen=True)
class Cloud(Method[torch.Tensor]):
    """Three rows of a group; the mean of them is returned, twice. Its evidence is the group's index
    in the run."""

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
        po.sample(
            toy(), Cloud(), folder=tmp_path / "run", checkpoint_seconds=0, watch=[stop], **options
        )
    resumed = po.sample(toy(), Cloud(), folder=tmp_path / "run", resume=True, **options)
    whole = po.sample(toy(), Cloud(), **options)
    assert torch.equal(resumed.samples, whole.samples)
    assert resumed.log_evidence == whole.log_evidence


PARTICLES = {
    name: cls(**({"particles": 8, "pilot": 8} if name == "MomentSMC" else {"particles": 8}))
    for name, cls in po.methods.ALL.items()
    if cls.family == "smc"
}
LEVELS = po.grid.log(6, 20.0, 0.05)


def plant(monkeypatch, method, at, increment, **options):
    """A run of three clouds, the second of which gets ``increment`` in all weights of step ``at``;
    and the evidence of each cloud."""
    step, each, weigh, log_evidence = [0], [], clouds.weigh, type(method).log_evidence
    planted = torch.zeros(24, dtype=torch.float64)
    planted[8:16] = increment

    def spy(self, post, state):
        each.append(log_evidence(self, post, state))
        return each[-1]

    with monkeypatch.context() as patch:
        patch.setattr(
            clouds, "weigh", lambda cloud, w: weigh(cloud, w + planted if step[0] == at else w)
        )
        patch.setattr(type(method), "log_evidence", spy)
        watch = [lambda k, s, rows, info: step.__setitem__(0, k + 1)]
        run = po.sample(
            bed("general", sigma=0.05),
            method,
            n=3 * method.returned,
            grid=LEVELS,
            watch=watch,
            **options,
        )
    return run, each[0]


@pytest.mark.parametrize("at", [2, 4, 5])
@pytest.mark.parametrize("name", PARTICLES)
def test_a_cloud_that_dies_is_said_to_and_is_an_evidence_of_zero(monkeypatch, name, at):
    """Whenever its weights are lost, by the last ones too: the samples of the others, and a mean of
    p(y) that counts this one as 0."""
    method = PARTICLES[name]
    if name == "SMCDiff" and at == 5:
        pytest.skip("its last step has no weights")
    whole, sound = plant(monkeypatch, method, at, 0.0)
    with pytest.warns(
        UserWarning,
        match=f"8 of 24 rows are left out.*row 8 diverged at step {at}: "
        "the cloud has lost all its weight",
    ):
        run, each = plant(monkeypatch, method, at, -math.inf)
    assert [status.ok for status in run.status] == [True] * 8 + [False] * 8 + [True] * 8
    assert torch.equal(run.samples, whole.samples[[*range(8), *range(16, 24)]])
    if name == "SMCDiff":
        assert run.log_evidence is None
        return
    assert run.log_evidence == pytest.approx(
        float(sound[[0, 2]].logsumexp(0)) - math.log(3), rel=1e-12
    )
    assert float(each[1]) == -math.inf
    with pytest.warns(UserWarning, match="8 of 24 rows are left out"):
        broken, _ = plant(monkeypatch, method, at, math.nan)
    assert broken.log_evidence == pytest.approx(
        float(sound[[0, 2]].logsumexp(0)) - math.log(2), rel=1e-12
    )


def counted(x=0.5, peak=20.0):
    """One number of prior N(0, 1), counted: half of the prior cannot give y."""
    prior = po.priors.Gaussian(torch.zeros(1, dtype=torch.float64), 1.0)
    return Posterior(
        prior,
        po.Likelihood(
            torch.full((1,), x, dtype=torch.float64),
            po.operators.Identity((1,)),
            po.noise.Poisson(peak),
        ),
    )


@pytest.mark.parametrize("look", ["end", "denoised"])
@pytest.mark.parametrize("particles", [1, 4])
def test_the_evidence_of_a_count_holds_with_clouds_that_died(particles, look):
    """Against quadrature over the law of the chain, a Gaussian; without the dead clouds it would be
    twice as large for one particle."""
    post, n = counted(), 2000 * particles
    levels = po.grid.log(8, 20.0, 0.05)
    variance = levels[0] ** 2 + 1
    for sigma, s in pairwise(levels):
        kept = s**2 / sigma**2
        variance = (kept + (1 - kept) / (1 + sigma**2)) ** 2 * variance + s**2 * (1 - kept)
    x = torch.linspace(1e-4, 8, 20001, dtype=torch.float64)
    density = (post.likelihood.log_prob(x[:, None]) - x**2 / (2 * variance)).exp() / (
        2 * math.pi * variance
    ).sqrt()
    exact = float(torch.trapezoid(density, x).log())
    with pytest.warns(UserWarning, match="at step 7: the cloud has lost all its weight"):
        run = po.sample(post, po.methods.Bootstrap(particles, look), n=n, grid=levels)
    dead = sum(not status.ok for status in run.status) / n
    assert bool(run.samples.isfinite().all())
    assert dead == pytest.approx(0.5, abs=0.05) if particles == 1 else dead > 0.02
    # Weights of one particle scatter by 1.6 times their mean, so that 2000 clouds have 3.6 %.
    assert run.log_evidence == pytest.approx(exact, abs=4 * 0.036)


@dataclass(frozen=True)
class Ending(Cloud):
    """A cloud whose last numbers are planted."""

    value: object = 0.0
    where: str = "rows"

    def finish(self, post, state, rng):
        rows, log_w = super().finish(post, state, rng)
        if self.where == "rows":
            rows[1] = self.value
        elif self.where == "one weight":
            log_w[1] = self.value
        else:
            log_w[:2] = self.value
        return rows, log_w


@pytest.mark.parametrize(
    ("method", "ok"),
    [
        (Ending(), True),
        (Ending(math.nan), False),
        (Ending(math.inf), False),
        (Ending(1e30), False),
        (Ending(math.nan, "one weight"), False),
        (Ending(math.inf, "one weight"), False),
        (Ending(-math.inf, "one weight"), True),
        (Ending(-math.inf, "both weights"), False),
    ],
)
def test_what_finish_returns_is_judged_as_rows_are(method, ok):
    """An image or a weight that is no number, and a group without weight; one sample of weight 0
    beside another is none of these."""
    if ok:
        run = po.sample(toy(), method, n=4, steps=4)
        assert bool(run.mean.isfinite().all())
        assert bool(run.std.isfinite().all())
        return
    with pytest.warns(
        UserWarning,
        match="2 of 4 rows are left out of the samples; "
        "row 0 diverged at step 3: the update was not finite",
    ):
        run = po.sample(toy(), method, n=4, steps=4)
    assert [status.ok for status in run.status] == [False, False, True, True]
    assert bool(run.samples.isfinite().all())
    with pytest.raises(FloatingPointError, match="every row diverged"):
        po.sample(toy(), method, n=2, steps=4)
