"""The search: scores, budget, resumption, the choice and how sure it is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from reference import draw

import posteriori as po
from posteriori import methods
from posteriori.problem_file.entries import entries
from posteriori.trials import simulated_trials
from posteriori.tuning import halving
from posteriori.tuning.halving import FIRST, SEARCH_RECORD, Budget
from posteriori.tuning.outcome import how_sure, ranked, told
from posteriori.tuning.scores import score_block
from posteriori.tuning.space import (
    OTHER_ROOMS,
    SPACES,
    Candidate,
    candidates,
    listed,
    refused,
)

F64 = torch.float64
NAMES = ("MMPS", "DPS", "PiGDM")


@pytest.fixture(scope="module")
def gaussian():
    prior = po.priors.Gaussian(torch.zeros(6, dtype=F64), 1.0)
    A = po.operators.Dense(torch.eye(6, dtype=F64)[:3])
    return po.Posterior(prior, po.Likelihood(draw(3), A, po.noise.Gaussian(0.3)))


def made(*raws):
    return [Candidate(raw, *entries([raw])) for raw in raws]


def test_every_entry_of_the_list_makes_a_method_and_none_is_there_twice():
    for name in methods.ALL:
        found = made(*listed(name))
        assert found[0].raw == {"name": name, "steps": 32}
        assert found[0].method == methods.ALL[name]()
        assert len({(str(one.method), one.steps, one.preset) for one in found}) == len(found)
    assert set(SPACES) <= set(methods.ALL)


def test_every_method_has_its_turn_before_any_has_two(gaussian):
    found = candidates(gaussian)
    names = [type(one.method).__name__ for one in found]
    first = [names.index(name) for name in dict.fromkeys(names)]
    assert first == list(range(len(first)))
    assert {one.method.family for one in found}.isdisjoint(OTHER_ROOMS)
    assert found[0].raw["name"] == po.problem_file.advice.rivals(gaussian)[0]
    assert all(one.method.refuses(gaussian) is None for one in found)
    # A method that is named is searched, whatever its room.
    assert [one.label for one in candidates(gaussian, ["Unconditional"])][:2] == [
        "Unconditional(steps=32)",
        "Unconditional(steps=16)",
    ]
    with pytest.raises(ValueError, match="unknown method 'MMPZ'"):
        candidates(gaussian, ["MMPZ"])


def test_an_entry_with_settings_stands_for_itself(gaussian):
    found = candidates(gaussian, ["DPS(scale=0.5,steps=16),PiGDM(steps=8)", {"name": "MMPS"}])
    assert [one.label for one in found] == [
        "DPS(scale=0.5, steps=16)",
        "PiGDM(steps=8)",
        "MMPS",
    ]
    with pytest.raises(ValueError, match="is there twice"):
        candidates(gaussian, ["DPS", "DPS(steps=32)"])
    with pytest.raises(ValueError, match="no setting 'skale'"):
        candidates(gaussian, ["DPS(skale=1)"])


def test_methods_that_refuse_are_named_with_their_reason():
    prior = po.priors.Gaussian(torch.zeros(6, dtype=F64), 1.0)
    A = po.operators.Dense(torch.eye(6, dtype=F64)[:3])
    counts = po.Posterior(prior, po.Likelihood(draw(3).abs(), A, po.noise.Laplace(0.3)))
    assert "DDRM" in refused(counts)
    assert "DDRM" not in {one.raw["name"] for one in candidates(counts)}
    with pytest.raises(ValueError, match="none of these methods takes the problem: DDRM"):
        candidates(counts, ["DDRM"])


def test_candidates_meet_the_same_truths_and_the_same_random_numbers(gaussian):
    trials = simulated_trials(gaussian, 3)
    plain, stated, other = made(
        {"name": "DPS", "steps": 8},
        {"name": "DPS", "steps": 8, "scale": 1.0},
        {"name": "DPS", "steps": 8, "scale": 0.5},
    )
    scores = [score_block(one, trials, n=4, seed=1) for one in (plain, stated, other)]
    assert scores[0]["energy"] == scores[1]["energy"]
    assert scores[0]["energy"] != scores[2]["energy"]
    assert scores[0]["network"] == 16
    assert [len(scores[0][key]) for key in ("energy", "crps", "inside", "chi2")] == [3] * 4
    assert scores[0]["psnr"] == [None] * 3


@pytest.mark.parametrize("calls", [300, 4000, 20000])
def test_a_budget_of_calls_is_exceeded_by_one_cell_at_most(gaussian, tmp_path, calls):
    found = po.tune(gaussian, calls=calls, methods=NAMES, n=4, folder=tmp_path)
    record = json.loads((tmp_path / SEARCH_RECORD).read_text())
    cells = [cell for some in record["cells"].values() for cell in some]
    spent = sum(cell["spent"]["calls"] for cell in cells)
    assert found.spent["calls"] == spent
    assert spent - max(cell["spent"]["calls"] for cell in cells) < calls
    assert len(found.not_tried) + len(found.scored) == len(candidates(gaussian, NAMES))
    assert found.choice is not None


def test_of_an_exact_method_and_one_that_ignores_y_the_exact_one_is_chosen(gaussian):
    names = ("Unconditional", "MMPS")
    found = po.tune(gaussian, calls=50000, methods=names, n=4)
    assert type(found.method).__name__ == "MMPS"
    last = {one.raw["name"]: 0.0 for one in candidates(gaussian, names)}
    for one in found.scored:
        last[one.candidate.raw["name"]] = max(last[one.candidate.raw["name"]], one.trials)
    assert last["MMPS"] > last["Unconditional"] == FIRST
    assert found.sureness.difference >= 0
    assert found.sureness.trials >= 2 * FIRST
    assert "chosen: MMPS" in str(found)


def test_a_search_that_is_killed_goes_on_to_the_same_choice(gaussian, tmp_path, monkeypatch):
    how = {"calls": 9000, "methods": ("DPS", "PiGDM"), "n": 4}
    whole = po.tune(gaussian, **how)
    count = sum(1 for _ in whole.scored)
    for stop in (1, count + 2):
        calls = []

        def some(*args, stop=stop, calls=calls, **settings):
            if len(calls) == stop:
                raise KeyboardInterrupt
            calls.append(1)
            return score_block(*args, **settings)

        folder = tmp_path / str(stop)
        monkeypatch.setattr(halving, "score_block", some)
        with pytest.raises(KeyboardInterrupt):
            po.tune(gaussian, **how, folder=folder)
        monkeypatch.setattr(halving, "score_block", score_block)
        again = po.tune(gaussian, **how, folder=folder)
        assert [one.label for one in again.scored] == [one.label for one in whole.scored]
        assert [one.score for one in again.scored] == [one.score for one in whole.scored]
        assert again.sureness == whole.sureness
        assert again.not_tried == whole.not_tried
    with pytest.raises(ValueError, match="another search.*seed"):
        po.tune(gaussian, **how, seed=1, folder=folder)


def test_a_candidate_that_fails_is_named_and_the_others_go_on(gaussian, monkeypatch):
    def some(candidate, *args, **settings):
        if candidate.raw["name"] == "DPS":
            return {"reason": "1 of 4 samples lost: diverged at step 3"}
        return score_block(candidate, *args, **settings)

    monkeypatch.setattr(halving, "score_block", some)
    found = po.tune(gaussian, calls=5000, methods=("DPS", "PiGDM"), n=4)
    assert found.choice.candidate.raw["name"] == "PiGDM"
    assert "diverged at step 3" in found.failed["DPS(steps=32)"]
    alone = po.tune(gaussian, calls=5000, methods=("DPS",), n=4)
    assert alone.choice is None
    with pytest.raises(ValueError, match="no candidate could be scored"):
        alone.method  # noqa: B018


@dataclass(frozen=True)
class Lost(methods.Method[torch.Tensor]):
    def init(self, post, x, rng):
        return x

    def step(self, post, state, sigma, s, rng):
        return state * float("nan"), {}


def test_samples_that_are_lost_are_a_reason(gaussian):
    (one,) = made({"name": "DPS", "steps": 4})
    broken = Candidate(one.raw, replace(one.entry, method=Lost()))
    found = score_block(broken, simulated_trials(gaussian, 2), n=3, seed=0)
    assert "3 of 3 samples lost" in found["reason"]


def block(values, calls=10.0):
    return {"energy": list(values), "psnr": list(values), "network": calls, "seconds": 1.0} | {
        key: [None] * len(values) for key in ("crps", "inside", "chi2", "lpips")
    }


def test_how_sure_a_choice_is_follows_from_the_paired_differences():
    luck = draw(2, 60)
    truths, gap = 5 * luck[0], 0.3 + 0.5 * luck[1]
    kept = {"b": [block((truths + gap).tolist())], "a": [block(truths.tolist())]}
    order = ranked(kept, "energy")
    assert order == ["a", "b"]
    sure = how_sure(kept, order, "energy")
    assert sure.difference == pytest.approx(float(gap.mean()))
    assert sure.error == pytest.approx(float(gap.std()) / 60**0.5)
    # The share of bootstrap means above 0: normal, so far as 4000 of them tell.
    wanted = 0.5 * math.erfc(-float(gap.mean()) / (sure.error * (59 / 60) ** 0.5) / 2**0.5)
    assert sure.share == pytest.approx(wanted, abs=0.01)
    assert ranked(kept, "psnr") == ["b", "a"]


def test_who_has_seen_more_truths_won_and_one_that_nobody_followed_counts_as_little_as_they():
    kept = {
        "lost early": [block([0.0, 0.0])],
        "second": [block([2.0, 2.0]), block([2.0, 2.0])],
        "first": [block([3.0, 3.0]), block([0.0, 0.5])],
    }
    assert ranked(kept, "energy") == ["first", "second", "lost early"]
    # A block of its own, which no other has seen, is no comparison.
    kept["second"].append(block([-9.0] * 4))
    assert ranked(kept, "energy")[0] == "first"


def test_scores_are_compared_on_the_truths_that_both_have_seen():
    known = dict(zip("abc", made(*({"name": "DPS", "steps": k} for k in (8, 16, 32))), strict=True))
    kept = {
        "a": [block([1.0, 1.0], 20.0), block([9.0, 9.0], 20.0)],
        "b": [block([1.5, 1.5], 10.0)],
        "c": [block([1.7, 1.7], 40.0)],
    }
    found = {one.label: one for one in told(kept, known, "energy")}
    rows = [found[known[key].label] for key in "abc"]
    # b is 0.5 worse than a where both were scored, and a has 5 on all truths.
    assert [row.score for row in rows] == [5.0, 5.5, 5.7]
    assert [row.front for row in rows] == [True, True, False]
    assert [row.trials for row in rows] == [4, 2, 2]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("2m", 120.0), ("1.5h", 5400.0), ("30", 30.0), (7, 7)]
)
def test_a_budget_is_read(text, seconds):
    assert Budget.read(text).seconds == seconds


@pytest.mark.parametrize("text", ["soon", "2 days", "-3s", "0s", ""])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="budget"):
        Budget.read(text)


def test_what_a_search_cannot_be_is_said(gaussian):
    with pytest.raises(ValueError, match="needs a budget"):
        po.tune(gaussian)
    with pytest.raises(ValueError, match="at least 2 samples"):
        po.tune(gaussian, "1s", n=1)
    with pytest.raises(ValueError, match="metric 'psnr' is of real images with a range"):
        po.tune(gaussian, "1s", metric="psnr")
    with pytest.raises(ValueError, match="unknown metric"):
        po.tune(gaussian, "1s", metric="ssim")
