"""The scoreboard's beds are what they say, and its rows can be taken up again."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch

import posteriori as po
from posteriori import cli
from posteriori.evaluation import exact_posterior
from posteriori.experiments import scoreboard, standings
from posteriori.tasks import beds, registry


def test_gmm25_is_the_published_problem():
    post = beds.gmm25(8, 2, seed=0).posterior
    prior, A = post.prior, po.operators.matrix(post.likelihood.A)
    assert prior.means.shape == (25, 8)
    assert sorted({tuple(m[:2].tolist()) for m in prior.means}) == [
        (8.0 * i, 8.0 * j) for i in range(-2, 3) for j in range(-2, 3)
    ]
    assert torch.equal(prior.means[:, :2].repeat(1, 4), prior.means)
    torch.testing.assert_close(prior.covariances[7], torch.eye(8, dtype=torch.float64))
    values = torch.linalg.svdvals(A)
    assert values.shape == (2,)
    assert 0 < float(values.min()) <= float(values.max()) < 1
    assert 0 < post.likelihood.std < float(values.max())


def test_a_problem_depends_on_its_seed_alone_and_not_on_the_schedule():
    one, again, other = (
        beds.gmm25(8, 1, seed, schedule)
        for seed, schedule in ((3, "original"), (3, "extended"), (4, "original"))
    )
    assert torch.equal(one.posterior.likelihood.y, again.posterior.likelihood.y)
    assert not torch.equal(one.posterior.likelihood.y, other.posterior.likelihood.y)
    assert again.sigma_max == pytest.approx(10 * one.sigma_max)
    with pytest.raises(ValueError, match="an even d"):
        beds.gmm25(7, 1, 0)


def test_truths_are_calibrated():
    """y is drawn from the model: the posterior's own chi-square of y under its evidence has mean 1
    over problems."""
    scores = []
    for seed in range(200):
        post = beds.gmm25(8, 1, seed).posterior
        exact = exact_posterior(post).mixture
        scores.append(float(post.likelihood.chi2(exact.sample(1, seed))))
    mean = sum(scores) / len(scores)
    assert abs(mean - 1) < 4 * (2 / 200) ** 0.5


def test_floor_is_below_oracle_and_oracle_below_prior():
    value = {
        name: scoreboard.measure_cell(
            scoreboard.BoardCell("gmm25", "8,2", "original", 20, name, 0)
        )["value"]
        for name in scoreboard.REFERENCES
    }
    assert value["floor"] < value["oracle"] < 0.5 * value["prior"]


def test_gaussian_beds_know_what_is_exact():
    def kl(cell, method):
        return scoreboard.measure_cell(
            scoreboard.BoardCell("gaussian", cell, "karras", 40, method, 0)
        )["value"]

    for cell in ("white", "diagonal", "general"):
        assert kl(cell, "MMPS") == pytest.approx(kl(cell, "oracle"), rel=1e-3)
    assert kl("white", "PiGDM") == pytest.approx(kl("white", "oracle"), rel=1e-6)
    assert kl("general", "PiGDM") > 2 * kl("general", "oracle")


def test_rows_are_kept_and_taken_up_again(tmp_path, monkeypatch, capsys):
    file = tmp_path / "deep" / "rows.json"
    words = [
        "posteriori",
        "bench",
        "exact",
        "--quick",
        "--bed",
        "gaussian",
        "--cells",
        "white",
        "--json",
        str(file),
        "--quiet",
    ]

    def call(*more):
        monkeypatch.setattr(sys, "argv", [*words, *more])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
        return capsys.readouterr().out

    call("--methods", "oracle")
    rows = json.loads(file.read_text())
    assert [row["method"] for row in rows] == ["oracle"]
    assert set(rows[0]) >= {
        "bed",
        "cell",
        "schedule",
        "steps",
        "method",
        "seed",
        "value",
        "floor",
        "denoiser",
        "vjp",
        "seconds",
    }
    table = call("--methods", "oracle", "--methods", "PiGDM")
    again = json.loads(file.read_text())
    assert again[0] == rows[0], "a row that was there was measured again"
    assert [row["method"] for row in again] == ["oracle", "PiGDM"]
    assert "| PiGDM |" in table
    assert table in file.with_suffix(".md").read_text()


def test_a_run_that_lost_a_row_has_no_value(monkeypatch):
    def lossy(post, method, *, n, **rest):
        status = [SimpleNamespace(ok=k > 0) for k in range(n)]
        return SimpleNamespace(
            samples=torch.zeros(n, 8, dtype=torch.float64),
            status=status,
            counts={"denoiser": 20, "vjp": 0},
        )

    monkeypatch.setattr(scoreboard, "sample", lossy)
    row = scoreboard.measure_cell(scoreboard.BoardCell("gmm25", "8,1", "original", 20, "DPS", 0))
    assert row["value"] is None
    assert row["outcome"] == "diverged"


def test_a_method_that_diverges_is_not_scored_on_its_survivors():
    calls = {"denoiser": 1, "vjp": 0}
    rows = [
        {
            **dict(zip(scoreboard.BoardCell._fields, ("b", "c", "s", 1, "x", seed), strict=True)),
            "metric": "m",
            "uses": "score",
            **calls,
            **end,
        }
        for seed, end in enumerate(({"value": 1.0}, {"value": None, "outcome": "diverged"}))
    ]
    assert "diverged, 1 of 2" in standings.board_markdown(rows)


def rows_of(method, values, **more):
    about = {
        "bed": "b",
        "cell": "c",
        "schedule": "s",
        "steps": 1,
        "method": method,
        "metric": "m",
        "uses": "score",
        "denoiser": 1,
        "vjp": 0,
    }
    lost = [{"outcome": "diverged"} if v is None else {} for v in values]
    return [
        {**about, "seed": k, "value": v, **end, **more}
        for k, (v, end) in enumerate(zip(values, lost, strict=True))
    ]


def test_tables_show_the_mean_its_95_per_cent_interval_and_the_median():
    """Of 1, 2, 4, 9: mean 4, standard deviation sqrt(38 / 3), half-width 1.96 sd / 2, median 3, the
    mean of the two in the middle."""
    half = 1.96 * (38 / 3) ** 0.5 / 2
    assert f"| x | 4 +- {half:.2g} (3) |" in standings.board_markdown(
        rows_of("x", [1.0, 9.0, 2.0, 4.0])
    )
    differences = standings.board_markdown(
        rows_of("x", [1.0, 9.0, 2.0, 4.0]) + rows_of("y", [0.0] * 4)
    )
    assert f"| x | 4 +- {half:.2g} |\n| y | best |" in differences


def test_the_best_method_is_one_that_lost_no_seed():
    """A method is not the best for having lost the problems on which it would have been bad."""
    table = standings.board_markdown(
        rows_of("lucky", [0.1, None, 0.1])
        + rows_of("sound", [1.0, 2.0, 3.0])
        + rows_of("worse", [2.0, 3.0, 5.0])
    )
    _, differences = table.split("paired difference")
    assert "| sound | best |" in differences
    assert "| lucky | -1.9 +- 2 |" in differences
    assert "| worse | 1.33 +- 0.65 |" in differences


def test_every_problem_has_a_seed_of_its_own_for_its_samples(monkeypatch):
    """The rule that the module states, and the one that committed rows without a ``sample_seed``
    follow."""
    seen = []

    def noted(bed, n, seed):
        seen.append(seed)
        return torch.zeros(n, 8, dtype=torch.float64) + seed

    def sampled(post, method, *, n, seed, **rest):
        seen.append(seed)
        return SimpleNamespace(
            samples=torch.zeros(n, 8, dtype=torch.float64),
            status=[],
            counts={"denoiser": 20, "vjp": 0},
        )

    monkeypatch.setattr(registry, "reference_samples", noted)
    monkeypatch.setattr(scoreboard, "sample", sampled)
    for given, s, wanted in ((None, 7, [15, 16, 7]), (0, 0, [1, 2, 0])):
        scoreboard._problem.cache_clear()
        seen.clear()
        row = scoreboard.measure_cell(
            scoreboard.BoardCell("gmm25", "8,1", "original", 20, "DPS", 7), given
        )
        assert (row["sample_seed"], seen) == (s, wanted)
    scoreboard._problem.cache_clear()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "DSP"], "unknown method 'DSP'"),
        (["--bed", "gmm"], "unknown bed 'gmm'"),
        (["--cells", "8,3"], "unknown cell '8,3'"),
    ],
)
def test_a_wrong_selection_is_refused(monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["posteriori", "bench", "exact", *words])
    with pytest.raises(SystemExit):
        cli.main()
    assert message in capsys.readouterr().err
