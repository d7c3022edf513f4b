"""The study of posterior coverage: its own mathematics, against counting by hand, known laws and
samplers that are known to be wrong."""

import math

import pytest
import torch

from posteriori.driver import sample
from posteriori.evaluation import calibration, rank_tests
from posteriori.evaluation.exact import exact_posterior
from posteriori.experiments.studies import coverage_problems as problems
from posteriori.experiments.studies import posterior_coverage as study
from posteriori.methods import DDNM, DDRM
from posteriori.operators.dense_matrix import matrix

N, K, n = 400, 3, 39


def ranks_of(spread, shift=0.0, seed=0):
    """Ranks of standard normal truths among n normal samples of another spread and mean."""
    g = torch.Generator().manual_seed(seed)
    truth, samples = (torch.randn(N, k, K, generator=g, dtype=torch.float64) for k in (1, n))
    return (shift + spread * samples < truth).sum(1)


@pytest.mark.parametrize(
    ("count", "level", "expected"),
    [(39, 95, 1), (39, 90, 2), (39, 50, 10), (9, 80, 1), (9, 90, None), (9, 50, None)],
)
def test_an_interval_is_stated_only_where_the_samples_can(count, level, expected):
    assert rank_tests.order(count, level) == expected
    if expected is not None:
        assert (count + 1 - 2 * expected) / (count + 1) == pytest.approx(level / 100)


def test_coverage_from_ranks_is_coverage_of_the_samples():
    g = torch.Generator().manual_seed(3)
    samples, truth = (torch.randn(k, 500, generator=g, dtype=torch.float64) for k in (n, 1))
    ranks = calibration.ranks(samples, truth)[0][:, None]
    found = study.rank_scores(ranks, n)
    for level in study.LEVELS:
        stated = calibration.coverage(samples, truth[0], (level / 100,))[0]
        assert stated.nominal == pytest.approx(level / 100)
        assert found[f"cover_{level}"] == pytest.approx(stated.covered)


@pytest.mark.parametrize(
    ("spread", "shift", "expected"),
    [
        (1.0, 0.0, "no fault found"),
        (0.5, 0.0, "over-confident"),
        (2.0, 0.0, "under-confident"),
        (0.7, 1.5, "off-centre"),
        (0.7, -1.5, "off-centre"),
    ],
)
def test_a_sampler_that_is_wrong_on_purpose_is_called_so(spread, shift, expected):
    assert study.rank_scores(ranks_of(spread, shift), n)["verdict"] == expected


def test_ranks_that_lean_without_leaving_the_intervals_are_not_uniform():
    ranks = torch.arange(40).repeat(20)
    folded = torch.where(ranks < 20, ranks, 39 - ranks)[:, None]
    found = study.rank_scores(folded, n)
    assert found["cover_80"] == pytest.approx(0.8)
    assert found["p"] < rank_tests.SMALL
    assert found["verdict"] == "not uniform"


def test_copies_of_one_problem_do_not_make_the_error_smaller():
    g = torch.Generator().manual_seed(4)
    inside = (torch.rand(200, 1, generator=g) < 0.8).double()
    one = rank_tests.standard_error(inside.mean(1), 80, 1)
    assert rank_tests.standard_error(inside.expand(-1, 6).mean(1), 80, 6) == pytest.approx(
        one, rel=0.05
    )
    assert rank_tests.standard_error(
        (torch.rand(200, 6, generator=g) < 0.8).double().mean(1), 80, 6
    ) == pytest.approx(one / math.sqrt(6), rel=0.2)


def test_the_error_of_a_coverage_that_never_varies_is_not_zero():
    assert rank_tests.standard_error(torch.zeros(25, dtype=torch.float64), 80, 4) == pytest.approx(
        0.04
    )


def test_the_p_value_is_that_of_chi_square_for_many_problems():
    counts = torch.tensor([120, 95, 90, 110, 101, 99, 85, 104, 96, 100])
    assert rank_tests.uniform(counts) == pytest.approx(
        float(torch.special.gammaincc(torch.tensor(4.5), rank_tests.chi_square(counts) / 2)),
        abs=0.02,
    )


def test_the_p_value_is_fair_for_few_problems():
    g = torch.Generator().manual_seed(5)
    counts = torch.stack(
        [torch.bincount(torch.randint(10, (16,), generator=g), minlength=10) for _ in range(2000)]
    )
    p = torch.tensor([rank_tests.uniform(row) for row in counts])
    for level in (0.05, 0.2, 0.5):
        assert float((p <= level).double().mean()) <= level + 3 * math.sqrt(
            level * (1 - level) / 2000
        )
    assert rank_tests.uniform(torch.tensor([16] + [0] * 9)) == pytest.approx(
        1 / (1 + rank_tests.DRAWS), rel=1e-9
    )


def test_ten_bins_of_another_number_of_ranks_are_refused():
    with pytest.raises(ValueError, match="multiple of ten, got n = 40"):
        rank_tests.histogram(torch.zeros(3, 1, dtype=torch.int64), 40)
    assert rank_tests.histogram(torch.tensor([[0], [3], [4], [39]]), 39).tolist() == [
        [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    ]


@pytest.mark.parametrize(
    ("z", "p", "lean", "said"),
    [
        ([-3.1, 2.9], 0.5, 0.89, "over-confident"),
        ([-3.1, 2.9], 0.5, 0.91, "off-centre"),
        ([3.1, -2.9], 0.0, 1.0, "under-confident"),
        ([3.1, -3.1], 0.5, 0.5, "uneven"),
        ([2.9], 0.0009, 1.0, "not uniform"),
        ([-2.9, 0.0], 0.0011, 1.0, "no fault found"),
    ],
)
def test_the_verdict_is_the_stated_rule(z, p, lean, said):
    assert rank_tests.verdict(z, p, lean) == said


def test_leaning_counts_the_misses_of_each_side():
    assert rank_tests.leaning(torch.tensor([[0], [3], [36], [4], [35]]), 39) == pytest.approx(2 / 3)
    # The other side counts alike.
    assert rank_tests.leaning(torch.tensor([[0], [36], [38]]), 39) == pytest.approx(2 / 3)
    assert (
        rank_tests.leaning(torch.tensor([[36], [38]]), 39)
        == rank_tests.leaning(torch.tensor([[3], [1]]), 39)
        == 1.0
    )
    assert rank_tests.leaning(torch.tensor([[20]]), 39) == 0.5
    with pytest.raises(ValueError, match="10 samples have no interval of 80 %"):
        rank_tests.leaning(torch.tensor([[0]]), 10)


@pytest.mark.parametrize("agree", [False, True])
@pytest.mark.parametrize(("count", "samples"), [(100, 39), (10, 9)])
def test_an_exact_sampler_is_seldom_blamed(count, samples, agree):
    g, trials, blamed = torch.Generator().manual_seed(6), 100, 0
    for _ in range(trials):
        ranks = torch.randint(samples + 1, (count, 1 if agree else 8), generator=g).expand(-1, 8)
        rows = [
            {"group": k, **study.rank_scores(ranks[:, part], samples)}
            for k, part in problems.GROUPS.items()
            if k != "all"
        ]
        blamed += study.overall(rows) != "no fault found"
    assert blamed <= 12 if agree else blamed <= 5


@pytest.mark.parametrize("count", [20, 60, 200])
def test_the_power_that_is_stated_is_that_of_the_rule(count):
    """Simulated problems whose 80 % intervals hold the truth just as seldom as stated are called
    over-confident in nine of ten cases."""
    g, trials = torch.Generator().manual_seed(8), 2000
    c = rank_tests.found_below(count)
    called = []
    for share in (c, (c + 0.8) / 2):
        hits = (torch.rand(trials, count, generator=g) < share).double()
        se = torch.tensor([rank_tests.standard_error(row, 80, 1) for row in hits])
        called.append(float(((hits.mean(1) - 0.8) / se < -rank_tests.STRICT).double().mean()))
    assert called[0] == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / trials))
    assert called[1] < 0.7
    assert rank_tests.found_below(4 * count) > c
    with pytest.raises(ValueError, match="at least 2 problems"):
        rank_tests.found_below(1)


def test_the_verdict_on_all_functions_names_the_groups():
    faults = {
        "seen": "over-confident",
        "unseen": "no fault found",
        "norm": "over-confident",
        "fit": "off-centre",
    }
    rows = [{"group": group, "verdict": fault} for group, fault in faults.items()]
    assert study.overall(rows) == "over-confident in seen, norm; off-centre in fit"
    assert study.overall(rows[1:2]) == "no fault found"


def test_one_row_for_ddrm_and_ddnm_is_enough():
    post = problems.drawn_problem("mixture", 0)[1]
    a, b = (sample(post, method, n=5, steps=20).samples for method in (DDRM(), DDNM()))
    assert torch.allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("bed", ["mixture", "digits"])
def test_directions_lie_where_they_are_said_to(bed):
    A = (problems.coverage_mixture() if bed == "mixture" else problems.coverage_digits())[1]
    v = problems.directions(bed)
    rows = matrix(A, dtype=torch.float64)
    assert torch.allclose(v.norm(dim=1), torch.ones(6, dtype=torch.float64))
    assert float((v[3:] @ rows.T).abs().max()) < 1e-12
    kept = torch.linalg.lstsq(rows.T, v[:3].T).solution
    assert torch.allclose(rows.T @ kept, v[:3].T, atol=1e-10)


def test_the_mixture_is_ambiguous_under_its_measurement():
    """The posteriors have more than one mode: the study is about nothing otherwise."""
    likely = [
        float(exact_posterior(problems.drawn_problem("mixture", k)[1]).mixture.weights.max())
        for k in range(40)
    ]
    assert sum(w < 0.95 for w in likely) >= 20


@pytest.mark.slow
def test_exact_draws_are_calibrated_and_the_prior_is_found_out_by_the_fit_alone():
    """Samples that ignore y pass every function of x alone (they and the truth come from one law),
    but not that of the residual."""
    cell = {"bed": "mixture", "steps": 60, "problems": 150, "samples": 39}
    exact, prior = (
        {r["group"]: r for r in study._measure(cell | {"method": name})}
        for name in ("exact", "prior")
    )
    assert {r["verdict"] for r in exact.values()} == {"no fault found"}
    assert {prior[g]["verdict"] for g in ("seen", "unseen", "norm")} == {"no fault found"}
    assert prior["fit"]["verdict"] == "off-centre"
    assert prior["all"]["verdict"] == "off-centre in fit"
    assert prior["unseen"]["width"] > exact["unseen"]["width"]


def test_a_method_that_diverges_has_rows_that_say_so(monkeypatch):
    def lose(*_, **__):
        raise FloatingPointError

    monkeypatch.setattr(study, "sample", lose)
    rows = study._measure(
        {"bed": "mixture", "method": "DPS", "steps": 60, "problems": 3, "samples": 39}
    )
    assert [r["group"] for r in rows] == list(problems.GROUPS)
    assert all(
        r["outcome"] == "diverged"
        and r["lost"] == 3
        and r["cover_80"] is None
        and set(r) == set(study.COLUMNS)
        for r in rows
    )


def test_findings_say_which_methods_diverged_and_never_quote_what_is_not_there():
    def row(bed, method, group, verdict="no fault found", cover=0.8):
        values = {
            "cover_80": cover,
            "se_80": 0.02,
            "width": 1.0,
            "outcome": "diverged" if verdict is None else "finished",
        }
        values |= {"problems": 205, "lost": 5}
        values |= {f"bin_{k}": 10 for k in range(1, 11)}
        return {
            **dict.fromkeys(study.COLUMNS),
            "bed": bed,
            "method": method,
            "group": group,
            "verdict": verdict,
            **values,
        }

    kept = [
        row(bed, name, g)
        for bed in problems.SETUPS
        for name in ("exact", "prior", "DAPS")
        for g in problems.GROUPS
    ]
    lost = [row("mixture", "DPS", g, None, None) for g in problems.GROUPS]
    narrow = [
        row("mixture", "TDS", "fit", "over-confident", 0.31),
        row("mixture", "TDS", "all", "over-confident in fit"),
    ]
    first, second, third = study._findings(kept + lost + narrow)
    assert "over-confident: 1 of 3, TDS (fit 31 %);" in first
    assert "diverged: 1 of 3, DPS (seen, unseen, norm, fit)." in first
    assert "no fault is found in 1 (DAPS (200: 66 %))" in second
    assert "over-confident: 0 of 1;" in third
    assert "None" not in first + second + third
    assert [text.get_text() for text in study._draw(kept + lost + narrow).axes[0].texts] == [
        "diverged"
    ]
