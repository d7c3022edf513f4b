"""The driver: grids, streams, batching, counting, divergence, checkpoints."""

from __future__ import annotations

import gc
import json
import warnings
from dataclasses import dataclass, replace

import pytest
import torch
from cases import Faulty, toy

import posteriori as po
from posteriori import checkpoint
from posteriori.counting import Counter, counted
from posteriori.methods.base import Method
from posteriori.rng import Streams
from posteriori.run import Run, locked


def test_sample_k_is_the_same_whatever_the_batch():
    post = toy()
    whole = po.sample(post, po.methods.MMPS(), n=7, steps=8, seed=5)
    for batch in (1, 2, 3):
        torch.testing.assert_close(
            po.sample(post, po.methods.MMPS(), n=7, steps=8, seed=5, batch=batch).samples,
            whole.samples,
            rtol=1e-9,
            atol=1e-9,
        )
    torch.testing.assert_close(
        po.sample(post, po.methods.MMPS(), n=3, steps=8, seed=5).samples,
        whole.samples[:3],
        rtol=1e-9,
        atol=1e-9,
    )


def test_counts_are_calls_per_sample():
    post = toy()
    dps = po.sample(post, po.methods.DPS(), n=4, steps=9, batch=3)
    assert dps.counts["denoiser"] == 9
    assert dps.counts["vjp"] == 9
    assert po.sample(post, po.methods.DiffPIR(), n=4, steps=9).counts["vjp"] == 0
    heun = po.methods.Unconditional(transition=po.methods.Heun())
    assert po.sample(post, heun, n=2, steps=9).counts["denoiser"] == 17


def test_one_bad_row_is_reported_and_the_others_go_on():
    A = po.operators.Dense(torch.eye(6))
    post = po.Posterior(
        Faulty(call=7, row=1), po.Likelihood(torch.ones(6), A, po.noise.Gaussian(0.5))
    )
    with pytest.warns(UserWarning, match="row 1 diverged at step 7: the denoiser"):
        run = po.sample(post, po.methods.PiGDM(), n=3, steps=20)
    assert [s.ok for s in run.status] == [True, False, True]
    assert run.status[1].step == 7
    assert "denoiser" in run.status[1].reason
    assert run.samples.shape == (2, 6)
    assert run.log_w.shape == (2,)
    assert bool(run.samples.isfinite().all())
    clean = po.sample(
        po.Posterior(Faulty(call=-1, row=0), post.given), po.methods.PiGDM(), n=3, steps=20
    )
    torch.testing.assert_close(run.samples, clean.samples[[0, 2]])


def test_a_run_without_a_sound_row_raises():
    post = po.Posterior(
        Faulty(call=2, row=0),
        po.Likelihood(torch.ones(6), po.operators.Dense(torch.eye(6)), po.noise.Gaussian(0.5)),
    )
    with pytest.raises(FloatingPointError, match="every row diverged; row 0 diverged at step 2"):
        po.sample(post, po.methods.PiGDM(), n=1, steps=5)


@dataclass(frozen=True)
class Hungry(Method[torch.Tensor]):
    """Runs out of memory above a number of rows."""

    limit: int = 2
    reference = "none"
    family = "test"
    cost = "1 denoiser"

    def step(self, post, state, sigma, s, rng):
        if len(state) > self.limit:
            raise torch.OutOfMemoryError("no room")
        return post.prior.denoise(state, sigma) + s * rng.normal(state), {}


def test_out_of_memory_halves_the_batch_and_keeps_the_samples():
    post = toy()
    with pytest.warns(UserWarning, match="out of memory with 8 rows: going on with 4"):
        small = po.sample(post, Hungry(limit=2), n=8, steps=4)
    torch.testing.assert_close(
        small.samples, po.sample(post, Hungry(limit=100), n=8, steps=4).samples
    )
    assert small.counts["denoiser"] == 4
    with pytest.raises(torch.OutOfMemoryError):
        po.sample(post, Hungry(limit=0), n=1, steps=4)


@dataclass(frozen=True)
class Late(Hungry):
    """Runs out of memory when the denoiser has been called already."""

    def step(self, post, state, sigma, s, rng):
        post.prior.denoise(state, sigma)
        return super().step(post, state, sigma, s, rng)


def test_calls_of_a_batch_that_is_worked_on_again_are_counted_once():
    with pytest.warns(UserWarning, match="out of memory"):
        assert po.sample(toy(), Late(limit=2), n=8, steps=4).counts["denoiser"] == 8


def test_an_interrupted_run_is_completed_to_the_same_bits(tmp_path):
    post, method = toy(), po.methods.MMPS()
    straight = po.sample(post, method, n=5, steps=12, batch=2)

    class Stop(Exception):
        pass

    for stop_at in (3, 12 + 7):
        seen = []

        def interrupt(k, s, rows, info, seen=seen, stop_at=stop_at):
            seen.append(k)
            if len(seen) == stop_at:
                raise Stop

        folder = tmp_path / str(stop_at)
        with pytest.raises(Stop):
            po.sample(
                post,
                method,
                n=5,
                steps=12,
                batch=2,
                folder=folder,
                watch=[interrupt],
                checkpoint_seconds=0,
            )
        with pytest.raises(RuntimeError, match="not complete"):
            Run.load(folder)
        done = po.sample(post, method, n=5, steps=12, batch=2, folder=folder, resume=True)
        assert torch.equal(done.samples, straight.samples)
        assert done.counts == straight.counts
        assert torch.equal(done.trace["residual"], straight.trace["residual"])
        assert not (folder / "checkpoint.safetensors").exists()
        assert torch.equal(Run.load(folder).samples, straight.samples)


def test_resuming_with_other_settings_is_refused(tmp_path):
    post = toy()
    po.sample(post, po.methods.DPS(), n=2, steps=3, folder=tmp_path / "a")
    with pytest.raises(ValueError, match="already holds a run"):
        po.sample(post, po.methods.DPS(), n=2, steps=3, folder=tmp_path / "a")
    with pytest.raises(ValueError, match="seed: 0 then, 1 now"):
        po.sample(post, po.methods.DPS(), n=2, steps=3, seed=1, folder=tmp_path / "a", resume=True)
    value = len(
        po.sample(post, po.methods.DPS(), n=2, steps=3, folder=tmp_path / "a", resume=True).samples
    )
    assert value == 2


def test_a_second_process_is_kept_out_of_a_run_folder(tmp_path):
    with locked(tmp_path), pytest.raises(RuntimeError, match="another process"), locked(tmp_path):
        pass


def test_states_of_every_shape_survive_a_checkpoint():
    @dataclass
    class Cloud:
        x: torch.Tensor
        pair: tuple

    state = Cloud(torch.ones(2), (torch.zeros(1), torch.ones(3)))
    parts = checkpoint.leaves(state)
    back = checkpoint.pour(state, iter([p + 1 for p in parts]))
    assert torch.equal(back.pair[1], torch.full((3,), 2.0))
    with pytest.raises(TypeError, match="found list"):
        checkpoint.leaves([torch.ones(1)])


@dataclass(frozen=True)
class Wild(Method[torch.Tensor]):
    """Explodes in the rows whose first number is large: some samples, and always the same."""

    reference = "none"
    family = "test"
    cost = "1 denoiser"

    def step(self, post, state, sigma, s, rng):
        x = po.methods.DDIM(1.0)(post.prior.denoise, state, sigma, s, rng)
        return torch.where(state[:, :1] > sigma, torch.inf, x), {"first": x[:, 0]}


def test_what_had_diverged_before_an_interruption_has_diverged_after_it(tmp_path):
    post = toy()
    with pytest.warns(UserWarning, match="rows are left out"):
        straight = po.sample(post, Wild(), n=12, steps=6, batch=2)
    assert 0 < sum(not s.ok for s in straight.status[:8]) < 8

    def interrupt(k, s, rows, info, seen=[]):  # noqa: B006
        seen.append(k)
        if len(seen) == 4 * 6 + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        po.sample(
            post,
            Wild(),
            n=12,
            steps=6,
            batch=2,
            folder=tmp_path / "run",
            checkpoint_seconds=0.0,
            watch=[interrupt],
        )
    with pytest.warns(UserWarning, match="rows are left out"):
        resumed = po.sample(
            post, Wild(), n=12, steps=6, batch=2, folder=tmp_path / "run", resume=True
        )
    assert resumed.status == straight.status
    assert torch.equal(resumed.samples, straight.samples)
    assert torch.equal(resumed.trace["first"].nan_to_num(), straight.trace["first"].nan_to_num())


def test_inside_a_run_a_prior_answers_as_it_does_outside():
    prior = po.priors.GaussianMixture(
        torch.ones(2),
        torch.tensor([[-3.0, 0.0, 1.0], [3.0, 1.0, 0.0]]),
        torch.tensor([0.5, 1.0, 2.0])[None],
    )
    like = po.Likelihood(torch.zeros(3), po.operators.Dense(torch.eye(3)), po.noise.Gaussian(0.1))
    inner = counted(po.Posterior(prior, like), Counter()).prior
    for name in ("shape", "range", "variance", "max_std", "sigma_max", "sigma_min", "complex"):
        assert getattr(inner, name) == getattr(prior, name)
    x, sigma = torch.randn(2, 3), torch.tensor(0.7)
    told, known = inner.know(), prior.know()
    assert (
        told.error(sigma)
        == known.error(sigma)
        != known.max_variance(sigma)
        == told.max_variance(sigma)
    )
    for name, given in (("start", (x, sigma)), ("denoise", (x, sigma))):
        assert torch.equal(getattr(inner, name)(*given), getattr(prior, name)(*given))
    assert torch.equal(told.spectral_error(sigma), known.spectral_error(sigma))
    assert told.closed is known.closed is prior


def test_a_batch_holds_about_a_million_numbers():
    prior = po.priors.Gaussian(torch.zeros(1, 512, 512), 1.0)
    flat = po.Posterior(
        prior,
        po.Likelihood(torch.zeros(1), po.operators.Null((1, 512, 512)), po.noise.Gaussian(1.0)),
    )
    rows = []
    po.sample(
        flat,
        po.methods.Unconditional(),
        n=6,
        steps=1,
        watch=[lambda k, s, x, info: rows.append(len(x))],
    )
    assert rows == [4, 2]


def test_samples_come_back_in_the_range_of_the_measurement():
    prior = po.priors.Gaussian(torch.zeros(1, 4, 4), 0.25, range=(-1, 1))
    given = po.Likelihood(
        torch.full((1, 4, 4), 0.8),
        po.operators.Identity((1, 4, 4)),
        po.noise.Gaussian(1e-3),
        range=(0, 1),
    )
    run = po.sample(po.Posterior(prior, given), po.methods.PiGDM(), n=2, steps=10)
    torch.testing.assert_close(run.samples, torch.full((2, 1, 4, 4), 0.8), rtol=0, atol=0.01)


def test_streams_depend_on_seed_and_index_only():
    a = Streams(7, [0, 1, 2]).normal(torch.empty(3, 4))
    b = Streams(7, [2]).normal(torch.empty(1, 4))
    assert torch.equal(a[2], b[0])
    assert not torch.equal(a[0], a[1])
    z = Streams(0, range(4)).normal(torch.empty(4, 50_000, dtype=torch.complex128))
    torch.testing.assert_close(
        torch.view_as_real(z).var((0, 1)), torch.ones(2, dtype=torch.float64), rtol=0.02, atol=0
    )


def test_no_two_samples_of_neighbouring_seeds_share_a_stream():
    """Sample 1 of seed 0 is not sample 0 of seed 1, and sample 64 is not sample 0."""
    first = torch.cat([Streams(seed, range(300)).uniform(1) for seed in range(6)]).flatten()
    assert len(first.unique()) == 6 * 300


def test_seeds_that_differ_above_32_bits_have_streams_of_their_own():
    """torch's generator is seeded by the lower 32 bits of what it is given."""
    alike = [torch.rand(1, generator=torch.Generator().manual_seed(s)) for s in (7, 7 + 2**32)]
    assert torch.equal(*alike)
    seeds = [7 + k * 2**bits for bits in (32, 33, 63, 64, 200) for k in (0, 1)]
    first = torch.cat([Streams(seed, range(50)).uniform(1) for seed in sorted(set(seeds))])
    assert len(first.unique()) == 6 * 50


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n": 0}, "n must be"),
        ({"n": True}, "n must be"),
        ({"steps": 0}, "steps must be"),
        ({"seed": -1}, "seed must be"),
        ({"batch": 0}, "batch must be"),
        ({"grid": "cosine"}, "unknown grid 'cosine'"),
        ({"grid": torch.tensor([1.0, 0.5])}, "ends at 0"),
        ({"resume": True}, "resume needs the folder"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        po.sample(toy(), po.methods.DPS(), **kwargs)


def test_progress_can_be_shown_and_is_off_by_default(capsys):
    po.sample(toy(), po.methods.DPS(), n=1, steps=3)
    assert capsys.readouterr().err == ""
    po.sample(toy(), po.methods.DPS(), n=1, steps=3, progress=True)
    assert "DPS" in capsys.readouterr().err


def test_watch_sees_every_step():
    seen = []
    po.sample(
        toy(),
        po.methods.MMPS(),
        n=2,
        steps=4,
        watch=[lambda k, s, rows, info: seen.append((k, float(s), rows.shape, set(info)))],
    )
    assert [k for k, *_ in seen] == [0, 1, 2, 3]
    assert seen[-1][1:] == (0.0, (2, 6), {"residual"})


def test_config_repeats_the_run():
    run = po.sample(toy(), po.methods.DPS(), n=2, steps=3, seed=4)
    config = json.loads(json.dumps(run.config))
    assert config["noise"] == {"law": "Gaussian", "sigma": 0.3}
    assert (config["seed"], config["n"], len(config["levels"])) == (4, 2, 4)
    assert config["settings"]["weighting"] == "bounded"
    assert run.references == ("chung2023dps",)


def test_trace_holds_one_number_per_step_and_row():
    run = po.sample(toy(), po.methods.MMPS(iterations=1), n=5, steps=4, batch=2)
    assert run.trace["residual"].shape == (4, 5)


@pytest.fixture
def young():
    """The collector looks at what is made from now on: modules alone are a million objects."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("young")
def test_memory_is_flat_in_the_number_of_steps():
    """Numbers alive in tensors after an early and after a late step: no graph is carried from step
    to step."""

    def live():
        gc.collect()
        return sum(o.numel() for o in gc.get_objects() if type(o) is torch.Tensor)

    post = toy()
    for method in (po.methods.DPS(), po.methods.MMPS(), po.methods.DAPS()):
        seen = {}

        def look(k, s, rows, info, seen=seen):
            if k in (5, 38):
                seen[k] = live()

        po.sample(post, method, n=50, steps=40, watch=[look])
        # The trace of MMPS keeps one number per row and step; a graph or a state would keep many
        # more.
        assert seen[38] <= seen[5] + 40 * 50 * 2


def test_a_finite_row_that_has_exploded_is_diverged_whatever_the_images_lie_around():
    @dataclass(frozen=True)
    class Blow(Method[torch.Tensor]):
        factor: float
        reference, family, cost = "none", "none", "none"

        def step(self, post, state, sigma, s, rng):
            rows = post.prior.denoise(state, sigma)
            return torch.cat([rows[:1] * self.factor, rows[1:]]), {}

    post = toy()
    with pytest.warns(UserWarning, match="beyond 1e"):
        run = po.sample(post, Blow(1e4), n=3, steps=5)
    assert [status.ok for status in run.status] == [False, True, True]
    assert run.status[0].step is not None
    far = po.Posterior(
        po.priors.Gaussian(torch.full((6,), 1e12, dtype=torch.float64), 1.0), post.likelihood
    )
    assert all(
        status.ok for status in po.sample(far, po.methods.Unconditional(), n=2, steps=5).status
    )


def told(post, method, **options):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        run = po.sample(post, method, **options)
    return [str(w.message) for w in found if w.category is po.RunWarning], run


def test_sample_tells_what_the_flags_of_its_run_know(tmp_path):
    d, sigma = 200, 0.1
    g = torch.Generator().manual_seed(0)
    prior = po.priors.Gaussian(torch.zeros(d, dtype=torch.float64), 1.0)
    x = prior.sample(1, 0)[0]
    y = x + sigma * torch.randn(d, generator=g, dtype=torch.float64)

    def stated(level):
        return po.Posterior(
            prior, po.Likelihood(y, po.operators.Identity((d,)), po.noise.Gaussian(level))
        )

    method = po.methods.MMPS()
    said, run = told(stated(sigma), method, n=4, steps=30)
    assert said == []
    assert run.counts["denoiser"] == 2 * 30 - 1
    # The samples of half the noise level fit the measurement; a residual four times the stated
    # noise is that of another prior.
    far = po.Posterior(prior, replace(stated(sigma).given, y=y + 60 * sigma))
    (sentence,), run = told(far, po.methods.Unconditional(), n=2, steps=10, folder=tmp_path / "far")
    assert "times the stated noise" in sentence
    assert sentence in po.evaluation.summary(run, far)["flags"]
    assert run.counts["operator"] == 0
    # A complete run that is asked for again is told again, without a call.
    assert told(
        far, po.methods.Unconditional(), n=2, steps=10, folder=tmp_path / "far", resume=True
    )[0] == [sentence]
    said, _ = told(stated(sigma), po.methods.Bootstrap(32), n=32, steps=10)
    assert any("descend from" in sentence for sentence in said)


def test_an_operator_that_fails_on_the_samples_costs_no_sample():
    class Fragile(po.operators.Identity):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            if type(self).calls > self.limit:
                raise RuntimeError("the instrument is gone")
            return super().forward(x)

        def spectrum(self):
            return None

    prior = po.priors.Gaussian(torch.zeros(6, dtype=torch.float64), 1.0)
    A = Fragile((6,))
    A.limit = 10**9
    post = po.Posterior(
        prior, po.Likelihood(torch.zeros(6, dtype=torch.float64), A, po.noise.Gaussian(0.1))
    )
    A.limit = Fragile.calls
    (sentence,), run = told(post, po.methods.Unconditional(), n=2, steps=5)
    assert (
        "could not be compared with the measurement (RuntimeError: the instrument is gone)"
        in sentence
    )
    assert run.samples.shape == (2, 6)


def test_no_two_groups_of_a_run_share_a_stream():
    """Thousands of groups, in one batch or in many; runs of one row a group and of several."""
    first = Streams(3, range(5000)).uniform(1)[:, 0]
    assert len(first.unique()) == 5000
    assert torch.equal(Streams(3, range(4000, 4010)).uniform(1)[:, 0], first[4000:4010])
    rows = Streams(3, range(300), 2).normal(torch.zeros(600, 3))
    assert len(rows.flatten().unique()) > 0.999 * 1800
    assert len(rows.unique(dim=0)) == 600
    counts = Streams(3, range(300)).poisson(torch.full((300, 8), 50.0))
    assert len(counts.unique(dim=0)) == 300
    # Neighbours are independent: the correlation of 5000 pairs is below 4 standard errors, at any
    # distance.
    z = Streams(5, range(5000)).normal(torch.zeros(5000, 1, dtype=torch.float64))[:, 0]
    for apart in (1, 2, 32, 64, 128, 1024):
        assert abs(float((z[:-apart] * z[apart:]).mean())) < 4 / (5000 - apart) ** 0.5
