"""Antithetic samples: each has the law of any sample, and pairs tell the mean at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import BRIEF, POSTERIORS, SINGLE
from reference import F64

import posteriori as po
from posteriori import problem_file
from posteriori.driver import Job
from posteriori.evaluation import NotAffineError, affine_probe, summary
from posteriori.evaluation.forecasts import forecast
from posteriori.evaluation.noise_level import noise_level
from posteriori.methods import DDRM, EPS, MMPS, TDS
from posteriori.problem_file.advice import choose
from posteriori.report import words
from posteriori.rng import Streams
from posteriori.run import Run, Status
from posteriori.shards import merge, plan, work

NUMBERS = 40_000
# A method of each file that is for such problems, in its default setting.
DEFAULTS = [
    name
    for name in SINGLE
    if " " not in name and BRIEF[name].family not in ("blind", "latent", "volume")
]
CLOUDS = [name for name in BRIEF if name not in SINGLE]


def gaussian():
    """A white Gaussian prior of which three numbers in four are seen."""
    prior = po.priors.Gaussian(torch.full((4,), 0.2, dtype=F64), 0.7)
    A = po.operators.Mask(torch.tensor([True, True, False, True]))
    y = torch.tensor([0.5, -0.3, 1.0], dtype=F64)
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.2)))


def paired(samples, lost=()):
    """A run of antithetic pairs without the rows that were lost."""
    status = tuple(
        Status("diverged", 0, "too large") if k in lost else Status() for k in range(len(samples))
    )
    kept = samples[[k for k in range(len(samples)) if k not in lost]]
    config = {"antithetic": True, "n": len(samples)}
    return Run(kept, torch.zeros(len(kept), dtype=F64), None, status, {}, {}, 0.0, config, ())


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_first_of_each_pair_is_a_sample_as_ever(name):
    method = BRIEF[name]
    post = next(post for kind in POSTERIORS if not method.refuses(post := POSTERIORS[kind]()))
    pairs = po.sample(post, method, n=4, steps=2, seed=4, antithetic=True)
    alone = po.sample(post, method, n=2, steps=2, seed=4)
    scale = float(alone.samples.abs().max())
    torch.testing.assert_close(pairs.samples[::2], alone.samples, rtol=0, atol=1e-9 * scale)
    torch.testing.assert_close(
        pairs.independent().samples, alone.samples, rtol=0, atol=1e-9 * scale
    )


def test_where_a_sampler_is_affine_in_its_noise_each_pair_has_the_exact_mean():
    """x = m + M z and m - M z: the mean of the two is m, with no Monte-Carlo error."""
    post, grid, noisy = gaussian(), po.grid.karras(3, 4.0, 0.05), []
    for name in DEFAULTS:
        try:
            mean, covariance = affine_probe(post, BRIEF[name], 3, grid)
        except (NotAffineError, ValueError):
            continue
        run = po.sample(post, BRIEF[name], n=4, seed=2, grid=grid, antithetic=True)
        for pair in run.samples.flatten(1).split(2):
            torch.testing.assert_close(pair.mean(0), mean, rtol=0, atol=1e-9, msg=name)
        assert float(run.standard_error.max()) < 1e-9, name
        if float(covariance.trace()) > 1e-3:
            noisy.append(name)
            assert float(run.std.max()) > 1e-3, name
    assert len(noisy) >= 5, noisy


def test_mirrored_numbers_have_the_law_of_any():
    like = torch.zeros(4, 1000, dtype=F64)
    streams, ever = Streams(3, range(4), antithetic=True), Streams(3, range(2))
    z, first = streams.normal(like), ever.normal(like[:2])
    assert torch.equal(z[::2], first)
    assert torch.equal(z[1::2], -first)
    u, plain = streams.uniform(50), ever.uniform(50)
    assert torch.equal(u[::2], plain)
    torch.testing.assert_close(u[1::2], 1 - plain, rtol=0, atol=1e-15)
    assert bool(((u >= 0) & (u < 1)).all())
    w = streams.normal(like[:, :3].to(torch.complex128))
    assert torch.equal(w[1::2], -w[::2])


def test_a_group_is_mirrored_as_a_whole_and_by_its_own_number():
    like = torch.zeros(4, 5, dtype=F64)
    z = Streams(3, [3, 6], rows=2, antithetic=True).normal(like)
    assert torch.equal(z[:2], -Streams(3, [1], rows=2).normal(like[:2]))
    assert torch.equal(z[2:], Streams(3, [3], rows=2).normal(like[:2]))


@pytest.mark.parametrize("tie", [-1.0, -0.8, 0.0, 0.6])
def test_the_spread_of_pairs_is_unbiased_whatever_ties_them(tie):
    """Over many numbers of variance 4, three pairs of correlation ``tie``: the mean of std^2 is 4,
    that of standard_error^2 is the variance of the mean, 4 (1 + tie) / 6."""
    g = torch.Generator().manual_seed(0)
    z, other = (torch.randn(3, NUMBERS, generator=g, dtype=F64) for _ in range(2))
    mate = tie * z + max(0.0, 1 - tie**2) ** 0.5 * other
    run = paired(2 * torch.stack([z, mate], 1).flatten(0, 1) + 5)
    for found, expected in ((run.std, 4.0), (run.standard_error, 4 * (1 + tie) / 6)):
        squares = found.square()
        room = 5 * float(squares.std()) / NUMBERS**0.5 + 1e-12
        assert abs(float(squares.mean()) - expected) < room
    # The rule for independent samples is off where pairs are tied.
    usual = float(run.samples.var(0).mean())
    assert (abs(usual - 4) < 0.1) == (tie == 0)


def test_the_spread_of_complex_pairs_is_that_of_both_parts():
    z = torch.randn(6, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    parts = [paired(part) for part in (z.real, z.imag)]
    expected = sum(part.std.square() for part in parts).sqrt()
    torch.testing.assert_close(paired(z).std, expected)


def test_one_pair_has_a_spread_and_no_error_that_could_be_told():
    run = paired(torch.tensor([[1.0], [4.0]], dtype=F64))
    assert float(run.std) == 1.5
    assert float(run.standard_error) == 0


@pytest.mark.parametrize("lost", [(2,), (2, 5), (0, 1, 6), (1, 2, 4, 7)])
@pytest.mark.parametrize("tie", [-1.0, -0.7])
def test_the_pairs_that_are_left_tell_the_spread_where_rows_are_lost(lost, tie):
    g = torch.Generator().manual_seed(2)
    z, other = (torch.randn(4, NUMBERS, generator=g, dtype=F64) for _ in range(2))
    mate = tie * z + (1 - tie**2) ** 0.5 * other
    run = paired(torch.stack([z, mate], 1).flatten(0, 1), lost)
    kept = [k for k in range(8) if k not in lost]
    pairs = sum(k % 2 == 0 and k + 1 in kept for k in kept)
    exact = (len(kept) + 2 * pairs * tie) / len(kept) ** 2
    if pairs == 0:  # what is left is independent
        torch.testing.assert_close(run.std, run.samples.std(0))
        exact = 1 / len(kept)
    for found, expected in ((run.std, 1.0), (run.standard_error, exact)):
        squares = found.square()
        room = 5 * float(squares.std()) / NUMBERS**0.5 + 1e-12
        assert abs(float(squares.mean()) - expected) < room


def test_the_independent_part_is_the_run_without_pairs():
    post, how = gaussian(), {"steps": 3, "seed": 3}
    pairs = po.sample(post, EPS(), n=6, first=4, antithetic=True, **how).independent()
    plain = po.sample(post, EPS(), n=3, first=2, **how)
    torch.testing.assert_close(pairs.samples, plain.samples, rtol=0, atol=1e-12)
    assert pairs.status == plain.status
    assert pairs.config == plain.config
    x = torch.arange(8.0, dtype=F64)[:, None]
    lossy = paired(x, lost=(2, 4, 5)).independent()
    assert lossy.samples.flatten().tolist() == [0.0, 6.0]
    assert [status.ok for status in lossy.status] == [True, False, False, True]


def test_intervals_of_a_further_draw_hold_as_often_as_students_law_says():
    from scipy.special import stdtrit

    g = torch.Generator().manual_seed(3)
    z, truth = torch.randn(3, NUMBERS, generator=g, dtype=F64), torch.randn(NUMBERS, generator=g)
    plain = replace(paired(z), config={})
    for run, freedom in ((paired(torch.stack([z, -z], 1).flatten(0, 1)), 3), (plain, 2)):
        error, told = run.predictive()
        assert told == freedom
        share = float(((truth - run.mean).abs() <= stdtrit(told, 0.9) * error).double().mean())
        assert abs(share - 0.8) < 5 * (0.16 / NUMBERS) ** 0.5


@pytest.mark.parametrize("n", [2, 4, 8])
def test_a_noise_level_is_told_by_pairs_as_by_others(n):
    """Twice the stated level, on an identity that the prior explains to a half."""
    prior = po.priors.Gaussian(torch.zeros(400, dtype=F64), 1.0)
    g = torch.Generator().manual_seed(5)
    y = torch.randn(400, generator=g, dtype=F64) + 2.4 * torch.randn(400, generator=g, dtype=F64)
    A = po.operators.Mask(torch.ones(400, dtype=torch.bool))
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(1.2)))
    levels = [
        noise_level(po.sample(post, EPS(), n=count, steps=20, antithetic=kind), post)
        for count, kind in ((n, True), (16, False))
    ]
    assert all(level is not None and level.differs for level in levels)
    # One standard error of dof from 400 numbers of n / 2 draws is sqrt(2 / (400 n / 2)).
    room = 5 * 2 * (1 / (100 * n)) ** 0.5
    assert abs(levels[0].dof / levels[1].dof - 1) < room
    assert abs(levels[0].estimate / levels[1].estimate - 1) < 0.05


def test_the_standard_error_of_independent_samples_is_the_usual_one():
    g = torch.Generator().manual_seed(6)
    run = replace(paired(torch.randn(5, 3, generator=g, dtype=F64)), config={})
    torch.testing.assert_close(run.standard_error, run.samples.std(0) / 5**0.5)
    assert run.independent() is run


def test_the_smallest_and_the_largest_of_mirrored_samples_hold_what_is_said():
    """n / (n + 2), more than the (n - 1) / (n + 1) that the interval states."""
    g = torch.Generator().manual_seed(1)
    z = torch.randn(2, NUMBERS, generator=g, dtype=F64)
    truth = torch.randn(NUMBERS, generator=g, dtype=F64)
    run = paired(torch.stack([z, -z], 1).flatten(0, 1))
    low, high = run.interval(0.6)
    share = float(((low <= truth) & (truth <= high)).double().mean())
    assert abs(share - 4 / 6) < 5 * (2 / 9 / NUMBERS) ** 0.5
    assert share > 0.6


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"n": 3}, "n must be even, got 3"),
        ({"n": 4, "first": 1}, "first must be even, got 1"),
        ({"n": "4"}, "n must be an integer >= 1, got '4'"),
        ({"n": True}, "n must be an integer >= 1, got True"),
        ({"n": 4, "antithetic": "no"}, "must be True or False, got 'no'"),
    ],
)
def test_what_makes_no_pairs_is_refused(how, said):
    with pytest.raises(ValueError, match=said):
        po.sample(gaussian(), MMPS(), steps=2, **{"antithetic": True} | how)


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_are_refused(name):
    with pytest.raises(ValueError, match="clouds of particles"):
        po.sample(gaussian(), BRIEF[name], n=2 * BRIEF[name].group, steps=2, antithetic=True)


def test_a_batch_in_the_middle_of_a_pair_a_stop_and_parts_change_nothing(tmp_path, monkeypatch):
    how = {"steps": 4, "seed": 3, "antithetic": True}
    whole = po.sample(gaussian(), MMPS(), n=6, **how)
    advance, calls = Job.advance, []

    def stopped(self, *batch):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        advance(self, *batch)

    monkeypatch.setattr(Job, "advance", stopped)
    kept = {"folder": tmp_path, "checkpoint_seconds": 0.0, "batch": 3}
    with pytest.raises(KeyboardInterrupt):
        po.sample(gaussian(), MMPS(), n=6, **how, **kept)
    run = po.sample(gaussian(), MMPS(), n=6, **how, **kept, resume=True)
    torch.testing.assert_close(run.samples, whole.samples, rtol=0, atol=1e-12)
    torch.testing.assert_close(Run.load(tmp_path).std, whole.std)
    parts = [po.sample(gaussian(), MMPS(), n=n, first=k, **how) for k, n in ((0, 4), (4, 2))]
    merged = Run.merge(parts)
    assert merged.antithetic
    torch.testing.assert_close(merged.std, whole.std)
    with pytest.raises(ValueError, match="antithetic"):
        po.sample(gaussian(), MMPS(), n=6, steps=4, seed=3, folder=tmp_path, resume=True)


def test_each_of_several_measurements_has_the_pairs_that_it_has_alone():
    post = gaussian()
    likes = [replace(post.given, y=post.given.y * 2.0**j) for j in range(3)]
    runs = po.sample_each(post.prior, likes, DDRM(), n=4, steps=3, seed=5, antithetic=True)
    for j, run in enumerate(runs):
        alone = po.sample(
            po.Posterior(post.prior, likes[j]), DDRM(), n=4, steps=3, seed=5 + j, antithetic=True
        )
        assert run.antithetic
        torch.testing.assert_close(run.samples, alone.samples, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="must be even"):
        po.sample_each(post.prior, likes, DDRM(), n=3, steps=3, antithetic=True)
    with pytest.raises(ValueError, match="must be True or False"):
        po.sample_each(post.prior, likes, DDRM(), n=4, steps=3, antithetic="no")
    with pytest.raises(ValueError, match="n must be an integer >= 1, got 0"):
        po.sample_each(post.prior, likes, DDRM(), n=0, steps=3)
    with pytest.raises(ValueError, match="clouds"):
        po.sample_each(post.prior, likes, TDS(particles=2), n=2, steps=3, antithetic=True)


def test_scores_count_one_of_each_pair():
    post, truth = gaussian(), torch.tensor([0.4, -0.2, 0.9, 1.1], dtype=F64)
    run = po.sample(post, EPS(), n=12, steps=4, antithetic=True)
    alone = po.sample(post, EPS(), n=6, steps=4)
    said, plain = (forecast(r, post, truth, EPS()) for r in (run, alone))
    for key in ("crps", "inside_80", "inside_50", "inside_80_room"):
        assert said[key] == pytest.approx(plain[key]), key
    for a, b in zip(said["coverage"], plain["coverage"], strict=True):
        assert a == pytest.approx(b)
    error = (run.std.square() + run.standard_error.square()).mean().sqrt()
    assert summary(run, post, truth)["rmse_expected"] == pytest.approx(float(error))


def test_intervals_that_hold_are_scaled_on_runs_of_pairs():
    post, how = gaussian(), {"n": 4, "steps": 4}
    found = po.calibrate(post, EPS(), trials=30, antithetic=True, **how)
    usual = po.calibrate(post, EPS(), trials=30, **how)
    pairs, run = (po.sample(post, EPS(), **how, antithetic=kind) for kind in (True, False))
    for scaling, fits, other in ((found, pairs, run), (usual, run, pairs)):
        low, high = fits.interval(0.8, calibrated=scaling.conformal)
        assert bool((low < high).all())
        with pytest.raises(ValueError, match="antithetic"):
            other.interval(0.8, calibrated=scaling.conformal)
    assert not any(line.verdict == "fail" for line in found.findings)


def test_pages_and_notebooks_say_that_samples_are_pairs():
    run = po.sample(gaussian(), EPS(), n=4, steps=3, antithetic=True)
    assert "4 samples in antithetic pairs of shape [4]" in repr(run)
    record = summary(run, gaussian())
    assert "EPS drew 4 samples in antithetic pairs of shape 4 " in words.lead([(run, record)])


PROBLEM = """
prior: {gaussian: {mean: 0.5, std: 0.2, shape: [1, 4, 4], range: [0, 1]}}
operator: {name: blur, std: 0.5, boundary: reflect}
noise: {law: gaussian, sigma: 0.05, range: [0, 1]}
measurement: {image: clean.npy, seed: 1}
method: DPS
n: %d
steps: 4
batch: 3
antithetic: true
"""


@pytest.fixture
def problem(tmp_path):
    def made(n):
        np.save(tmp_path / "clean.npy", np.full((1, 4, 4), 0.4, dtype=np.float32))
        path = tmp_path / "problem.yaml"
        path.write_text(PROBLEM % n)
        return path

    return made


def test_a_problem_file_asks_for_pairs(problem, tmp_path):
    task = problem_file.load(problem(10)).build()
    assert task.settings["antithetic"]
    with pytest.raises(ValueError, match="n must be even, got 3"):
        problem_file.load(problem(3))
    pieces = plan(problem(10), tmp_path / "run", shards=3)
    assert len(pieces) > 1
    assert all(piece.n % 2 == 0 for piece in pieces)
    with pytest.raises(ValueError, match="n must be even, got 5"):
        plan(problem(10), tmp_path / "odd", shards=3, n=5)
    for piece in pieces:
        work(piece)
    whole = po.sample(task.posterior, task.method, **task.settings)
    torch.testing.assert_close(merge(tmp_path / "run").std, whole.std)


@pytest.mark.parametrize("method", ["TDS", "{name: Bootstrap, particles: 8}"])
def test_a_file_that_asks_clouds_for_pairs_is_refused(problem, method):
    path = problem(4)
    path.write_text(path.read_text().replace("method: DPS", f"method: {method}"))
    with pytest.raises(ValueError, match="clouds of particles"):
        problem_file.load(path)


def test_where_clouds_are_best_others_are_chosen_for_pairs():
    prior = po.priors.digits()
    A = po.operators.Mask(po.operators.random_mask((16, 16), 0.02, seed=0), (1, 16, 16))
    y = torch.zeros(A.out_shape)
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.2), range=(0, 1)))
    assert choose(post).method.group > 1
    assert choose(post, alone=True).method.group == 1
