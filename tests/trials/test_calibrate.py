"""Diagnoses of samples: exact ones pass, each planted fault is seen, and a calibration goes on
where it was."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from reference import draw
from scipy.special import chdtrc

import posteriori as po
from posteriori.evaluation import exact_posterior
from posteriori.evaluation.rank_tests import chi_square, histogram
from posteriori.experiments.studies.coverage_problems import coverage_mixture
from posteriori.trials import diagnose, simulated_trials, trial_of
from posteriori.trials import judged as judging
from posteriori.trials.diagnose import _ranks_line, exchanged
from posteriori.trials.functions import FUNCTION_GROUPS, function_values
from posteriori.trials.scored import ranked_count, scored_trial

F64 = torch.float64
COUNT = 120


@cache
def drawn():
    """Trials of the mixture whose exact posteriors have several modes, and 20 exact samples of
    each."""
    prior, A = coverage_mixture()
    y = torch.zeros(A.out_shape, dtype=F64)
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.2)))
    trials = simulated_trials(post, COUNT + 1)
    exact = [exact_posterior(trial.posterior) for trial in trials]
    return trials, exact, [one.sample(20, k) for k, one in enumerate(exact)]


def judged(change=lambda samples, exact: samples, part=slice(0, COUNT)):
    trials, exact, samples = drawn()
    records = [
        scored_trial(
            change(samples[k], exact[k]),
            trials[k].truth,
            trials[k].posterior,
            trials[k + 1].truth,
            k,
        )
        for k in range(COUNT)[part]
    ]
    return {line.name: line for line in diagnose(records, 19)}


def failed(lines):
    return {name for name, line in lines.items() if line.verdict == "fail"}


def heaviest_mode(samples, exact):
    """20 draws of the component of the exact posterior that weighs most."""
    mixture = exact.mixture
    best = int(mixture.weights.argmax())
    part = po.priors.GaussianMixture(
        torch.ones(1, dtype=F64), mixture.means[best : best + 1], mixture.covariances[:1]
    )
    return part.sample(len(samples), int(1e6 * samples[0, 0].abs()) % 2**31)


FAULTS = {
    "shifted": (lambda x, exact: x + 0.5 * x.std(0), {"ranks", "coverage", "tarp"}),
    "narrow": (
        lambda x, exact: x.mean(0) + 0.6 * (x - x.mean(0)),
        {"ranks", "coverage", "tarp", "crps", "spread-skill"},
    ),
    "wide": (
        lambda x, exact: x.mean(0) + 1.6 * (x - x.mean(0)),
        {"ranks", "coverage", "tarp", "crps", "spread-skill"},
    ),
    "a mode lost": (heaviest_mode, {"tarp"}),
    "of the prior": (lambda x, exact: coverage_mixture()[0].sample(20, 7), {"ranks", "coverage"}),
}


def test_exact_samples_pass_every_line():
    assert failed(judged()) == set()
    for start in range(0, COUNT, 40):
        assert failed(judged(part=slice(start, start + 40))) == set()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_planted_fault_is_seen(fault):
    change, seen = FAULTS[fault]
    lines = judged(change)
    assert seen <= failed(lines)
    assert all(lines[name].remedy for name in failed(lines))


def test_tarp_with_references_of_the_truths_own_law_and_few_samples_is_uniform():
    """Ranks of distances among 9 samples, 20000 times: chi-square of ten bins. Shares of samples,
    compared with a continuous law, would be judged wrong here, or hide what is."""

    def p_value(ranks):
        return float(chdtrc(9, float(chi_square(histogram(ranks[:, None], n)[0]))))

    n, count = 9, 20000
    truths, samples = draw(count, 2), draw(n, count, 2, seed=1)
    references = torch.cat([truths[1:], truths[:1]])
    far = (samples - references).norm(dim=2)
    ranks = (far < (truths - references).norm(dim=1)).sum(0)
    assert p_value(ranks) > 0.001
    # Of samples that are too narrow by a fifth the same number of trials leaves no doubt.
    ranks = ((0.8 * samples - references).norm(dim=2) < (truths - references).norm(dim=1)).sum(0)
    assert p_value(ranks) < 0.001


@pytest.mark.parametrize("functions", [1, 9])
def test_lines_of_ranks_blame_exact_samplers_at_most_as_often_as_they_say(functions):
    """1000 reports of 40 trials; 0.005 and 4 standard errors."""
    g = torch.Generator().manual_seed(0)
    blamed = sum(
        _ranks_line("ranks", {"all": torch.randint(20, (40, functions), generator=g)}, 19).verdict
        == "fail"
        for _ in range(1000)
    )
    assert blamed <= 5 + 4 * 5**0.5


def test_members_are_compared_without_a_law():
    """Ten trials of lognormal numbers, whose means are no normal numbers: 2000 times, p < 0.01 as
    often as that, within 4 standard errors."""
    table = draw(2000, 10, 20).mul(2).exp()
    small = sum(exchanged(members).p < 0.01 for members in table)
    assert abs(small - 20) <= 4 * 20**0.5
    # A truth that is always the largest of 20 is no chance.
    assert exchanged(table[0].sort(1, descending=True).values).p < 0.001
    assert exchanged(torch.ones(10, 20)).p == 1.0


def test_functions_look_at_what_is_measured_and_at_y():
    trials, _, samples = drawn()
    trial, x = trials[0], samples[0]
    values = function_values(trial.posterior, x, trials[1].truth, x[3])
    A = trial.posterior.given.A
    hidden = x + (torch.eye(8, dtype=F64) - A.pseudo_inverse(A(torch.eye(8, dtype=F64))))[5]
    moved = function_values(trial.posterior, hidden, trials[1].truth, x[3])
    for name in ("measured", "fit"):
        at = FUNCTION_GROUPS[name]
        assert torch.allclose(values[:, at], moved[:, at], atol=1e-9)
    assert not torch.allclose(
        values[:, FUNCTION_GROUPS["white"]], moved[:, FUNCTION_GROUPS["white"]]
    )
    assert float(values[3, -1]) == 0.0
    other = function_values(trials[5].posterior, x, trials[1].truth, x[3])
    assert not torch.allclose(values[:, FUNCTION_GROUPS["fit"]], other[:, FUNCTION_GROUPS["fit"]])


def test_ranks_are_among_a_multiple_of_ten_of_samples_minus_one():
    assert [ranked_count(n) for n in (20, 29, 64)] == [19, 19, 59]
    trials, _, samples = drawn()
    record = scored_trial(samples[0], trials[0].truth, trials[0].posterior, trials[1].truth, 0)
    assert all(0 <= rank <= 19 for rank in record["ranks"])
    members, x, t = record["members"], samples[0][:19], trials[0].truth
    assert {name: len(numbers) for name, numbers in members.items()} == dict.fromkeys(
        ("distance", "error", "inside_50", "inside_80", "inside_90"), 20
    )
    pool = torch.cat([t[None], x])
    far = (pool[:, None] - pool).abs().mean(2).sum(1)
    assert members["distance"] == pytest.approx((far / far.mean()).tolist())
    # Squared, from the mean of the others, up to a factor that all have.
    leave = torch.stack([row - (pool.sum(0) - row) / 19 for row in pool]).square().mean(1)
    assert members["error"] == pytest.approx((leave / leave.mean()).tolist())
    assert record["error"] == pytest.approx(float(leave[0]))
    with pytest.raises(ValueError, match="at least 10"):
        diagnose([record] * 9, 19)


@pytest.fixture
def gaussian():
    prior = po.priors.Gaussian(torch.zeros(6, dtype=F64), 1.0)
    A = po.operators.Dense(torch.eye(6, dtype=F64)[:3])
    return po.Posterior(prior, po.Likelihood(draw(3), A, po.noise.Gaussian(0.3)))


def test_truths_are_draws_of_the_prior_and_measured_anew(gaussian):
    trials = simulated_trials(gaussian, 400)
    truths = torch.stack([trial.truth for trial in trials])
    rest = torch.stack([t.posterior.given.y - t.truth[:3] for t in trials])
    assert float(truths.square().mean()) == pytest.approx(1.0, abs=4 * (2 / 2400) ** 0.5)
    assert float(rest.square().mean()) == pytest.approx(0.09, abs=4 * 0.09 * (2 / 1200) ** 0.5)
    assert torch.equal(simulated_trials(gaussian, 5)[4].truth, trials[4].truth)
    with pytest.raises(ValueError, match="a truth has the shape"):
        trial_of(gaussian, torch.zeros(7), 0)


def test_an_interrupted_calibration_goes_on_to_the_same_numbers(gaussian, tmp_path, monkeypatch):
    how = {"n": 4, "steps": 6, "trials": 20}
    whole = po.calibrate(gaussian, po.methods.DPS(), **how)
    calls = []

    def once(*args, **settings):
        if calls:
            raise KeyboardInterrupt
        calls.append(settings["seed"])
        return po.sample_each(*args, **settings)

    monkeypatch.setattr(judging, "sample_each", once)
    with pytest.raises(KeyboardInterrupt):
        po.calibrate(gaussian, po.methods.DPS(), **how, folder=tmp_path)
    assert len(list((tmp_path / "trials").glob("*.json"))) == 8
    with pytest.raises(ValueError, match="not complete"):
        po.Conformal.load(tmp_path)
    monkeypatch.setattr(judging, "sample_each", po.sample_each)
    again = po.calibrate(gaussian, po.methods.DPS(), **how, folder=tmp_path)
    assert torch.equal(again.conformal.ratios, whole.conformal.ratios)
    assert again.findings == whole.findings
    assert torch.equal(po.Conformal.load(tmp_path).ratios, whole.conformal.ratios)
    with pytest.raises(ValueError, match="another calibration.*seed"):
        po.calibrate(gaussian, po.methods.DPS(), **how, seed=1, folder=tmp_path)


def test_given_truths_take_the_place_of_draws(gaussian):
    pairs = [trial_of(gaussian, 3 * draw(6, seed=k), k) for k in range(12)]
    found = po.calibrate(gaussian, po.methods.MMPS(), n=8, steps=8, pairs=pairs)
    assert not found.simulated
    # Truths three times as far out as the prior's: intervals must be wider than Gaussian ones.
    assert found.conformal.factor(0.9) > 2.5
    wrong = [pairs[0]._replace(truth=torch.zeros(7)), *pairs[1:]]
    with pytest.raises(ValueError, match="truth 0 has the shape"):
        po.calibrate(gaussian, po.methods.MMPS(), pairs=wrong)
    with pytest.raises(ValueError, match="at least 10 truths, got 9"):
        po.calibrate(gaussian, po.methods.MMPS(), pairs=pairs[:9])


def test_samples_that_are_lost_or_alike_give_no_intervals(gaussian):
    trial = simulated_trials(gaussian, 12)
    work = judging._Work(gaussian, po.methods.DPS(), 4, 6, None, False, 0, trial, 12)
    records = [work.scored(run, k, trial) for k, run in enumerate(work.runs(range(12), trial))]
    assert work.judged(records).passed is not None
    lost = [{"reason": "1 samples lost: diverged at step 3"}, *records[1:]]
    found = work.judged(lost)
    assert (found.passed, found.conformal, found.trials) == (False, None, 11)
    assert "diverged at step 3" in str(found)
    alike = [records[0] | {"no_intervals": "the samples are all the same image"}, *records[1:]]
    assert work.judged(alike).conformal is None
    assert "all the same" in work.judged(alike).no_intervals


def test_spread_and_error_are_of_the_samples_alone():
    """Far from the truth the variance is that of the samples, the error that of their mean."""
    prior = po.priors.Gaussian(torch.zeros(4, dtype=torch.float64), 1.0)
    A = po.operators.Identity((4,))
    y = torch.zeros(4, dtype=torch.float64)
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.5)))
    samples, truth = draw(40, 4, seed=1), torch.full((4,), 50.0, dtype=torch.float64)
    row = scored_trial(samples, truth, post, draw(4, seed=2), 0)
    m = ranked_count(40)
    seen = samples[:m]
    assert row["spread"] == pytest.approx(float((1 + 1 / m) * seen.var(0).mean()))
    assert row["error"] == pytest.approx(float((seen.mean(0) - truth).square().mean()))


def test_the_reference_among_the_samples_of_y_is_none_of_those_that_are_ranked():
    """A truth that lies on it is nearer to it than every ranked sample."""
    prior = po.priors.Gaussian(torch.zeros(4, dtype=torch.float64), 1.0)
    y = torch.zeros(4, dtype=torch.float64)
    A = po.operators.Identity((4,))
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.5)))
    samples = draw(40, 4, seed=1)
    row = scored_trial(samples, samples[ranked_count(40)], post, draw(4, seed=2), 0)
    assert row["ranks"][FUNCTION_GROUPS["tarp"]][-1] == 0
