"""The gallery of methods on photographs: its rows, its refusals, its sheet, and that it can be
taken up again."""

from __future__ import annotations

import json
import sys
import time

import pytest
import torch
from PIL import Image

import posteriori as po
from posteriori import cli
from posteriori.evaluation import baselines, best_linear, psnr, wiener
from posteriori.experiments import photographs
from posteriori.linalg import cg
from posteriori.methods import ALL
from posteriori.report.sheet import contact_sheet

SIDE, STEPS = 32, 3
COLUMNS = {
    *photographs.PhotographCell._fields,
    "outcome",
    "reason",
    "psnr",
    "ssim",
    "lpips",
    "chi2",
    "denoiser",
    "vjp",
    "seconds",
    "settings",
}


@pytest.fixture(scope="module")
def prior():
    return po.priors.photos()


def call(monkeypatch, capsys, folder, *words):
    size = (
        "--side",
        str(SIDE),
        "--steps",
        str(STEPS),
        "--out",
        str(folder / "sheet.png"),
        "--json",
        str(folder / "rows.json"),
        "--quiet",
    )
    monkeypatch.setattr(sys, "argv", ["posteriori", "bench", "images", *size, *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def cell(problem, method, image="astronaut"):
    return photographs.PhotographCell(image, problem, method, SIDE, STEPS)


def test_rows_are_written_and_taken_up_again(tmp_path, monkeypatch, capsys):
    one = ("--problems", "downsample", "--methods", "DiffPIR")
    assert call(monkeypatch, capsys, tmp_path, *one)[0] == 0
    first = json.loads((tmp_path / "rows.json").read_text())
    assert [(r["image"], r["method"]) for r in first] == [
        (i, m) for i in ("astronaut", "chelsea") for m in ("Wiener", "DiffPIR")
    ]
    for row in first:
        assert set(row) == COLUMNS
        assert row["outcome"] == "finished"
        assert row["psnr"] > 10
        assert 0 < row["ssim"] < 1
        assert row["denoiser"] == (STEPS if row["method"] == "DiffPIR" else 0)
    sheet = Image.open(tmp_path / "sheet.png").size
    _, table, _ = call(monkeypatch, capsys, tmp_path, *one, "--methods", "DPS")
    again = json.loads((tmp_path / "rows.json").read_text())
    assert again[: len(first)] == first, "a row that was there was measured again"
    assert [r["method"] for r in again[len(first) :]] == ["DPS", "DPS"]
    assert table.partition("\nContact")[0] in (tmp_path / "rows.md").read_text()
    assert "| DPS |" in table
    # Two photographs of three columns each, tiles of 96 pixels; the second sheet has one row more,
    # with the first one's pictures in it.
    larger = Image.open(tmp_path / "sheet.png")
    assert sheet == (110 + 6 * 100, 30 + 2 * 114)
    assert larger.size == (sheet[0], sheet[1] + 114)
    tile = larger.crop((110 + 200, 30 + 114, 110 + 296, 30 + 114 + 96))
    assert len(tile.getcolors(10000)) > 100, (
        "the sample of a row that was not measured again is missing"
    )


def test_a_stored_row_of_other_settings_or_of_too_little_time_is_measured_again(prior):
    row, _ = photographs.measure_photograph(cell("blur", "DPS"), prior)
    assert photographs.still_current(row)
    assert not photographs.still_current({**row, "outcome": "stopped"})
    assert not photographs.still_current({**row, "settings": {**row["settings"], "scale": 7.0}})


def test_a_method_that_refuses_is_listed_with_its_reason(prior, monkeypatch):
    monkeypatch.setattr(ALL["DPS"], "refuses", lambda self, post: "DPS: no such luck")
    row, picture = photographs.measure_photograph(cell("box", "DPS"), prior)
    assert (row["outcome"], row["reason"], row["psnr"], row["denoiser"]) == (
        "refused",
        "DPS: no such luck",
        None,
        None,
    )
    assert picture is None
    assert "| DPS | - | - | - | - | - |" in photographs.photograph_tables([row])
    assert "refused: DPS: no such luck |" in photographs.photograph_tables([row])


@pytest.mark.parametrize(
    ("out", "outcome", "reason"),
    [
        (torch.nan, "diverged", "every row diverged"),
        (1e4, "diverged", "holds values"),
        (None, "failed", "RuntimeError: a bug"),
    ],
)
def test_a_method_that_goes_wrong_has_a_row_that_says_so(prior, monkeypatch, out, outcome, reason):
    def step(self, post, state, sigma, s, rng):
        if out is None:
            raise RuntimeError("a bug")
        return torch.full_like(state, out), {}

    monkeypatch.setattr(ALL["DPS"], "step", step)
    row, picture = photographs.measure_photograph(cell("random", "DPS"), prior)
    assert row["outcome"] == outcome
    assert reason in row["reason"]
    assert (picture is None) == (out != 1e4)
    assert f"{outcome}: " in photographs.photograph_tables([row])


def test_a_run_that_takes_too_long_is_given_up(prior, monkeypatch):
    def endless(self, post, state, sigma, s, rng):
        until = time.monotonic() + 20
        while time.monotonic() < until:
            post.prior.denoise(state, sigma)
        return state, {}

    monkeypatch.setattr(ALL["DPS"], "step", endless)
    row, _ = photographs.measure_photograph(cell("blur", "DPS"), prior, limit=0.05)
    assert row["outcome"] == "stopped"
    assert f"0 of {STEPS} steps" in row["reason"]
    assert (
        photographs.measure_photograph(cell("blur", "DiffPIR"), prior)[0]["outcome"] == "finished"
    )


def test_lpips_is_a_column_only_where_it_is_installed(prior, monkeypatch):
    monkeypatch.setattr(photographs, "lpips_missing", lambda: None)
    monkeypatch.setattr(photographs, "lpips", lambda *pictures: torch.tensor([0.25]))
    row, _ = photographs.measure_photograph(cell("blur", "Wiener"), prior)
    assert row["lpips"] == 0.25
    assert "LPIPS" in photographs.photograph_tables([row])
    assert "LPIPS" not in photographs.photograph_tables([{**row, "lpips": None}])


def test_an_outcome_of_one_image_names_it():
    row = {
        **cell("blur", "DPS")._asdict(),
        **dict.fromkeys(COLUMNS - {*photographs.PhotographCell._fields}),
        "outcome": "finished",
        "psnr": 20.0,
    }
    lost = {**row, "image": "chelsea", "outcome": "diverged", "reason": "at step 3", "psnr": None}
    table = photographs.photograph_tables([row, lost])
    assert "| DPS | 20.00 | - |" in table
    assert "| chelsea diverged: at step 3 |" in table


@pytest.mark.parametrize("problem", list(photographs.PROBLEMS))
def test_scenes_hold_the_stated_noise_and_the_linear_estimate_improves_on_what_is_shown(problem):
    about = photographs.scene("chelsea", problem, 64)
    chi2 = float(about.given.chi2(about.truth[None]))
    assert abs(chi2 - 1) < 5 * (2 / about.given.y.numel()) ** 0.5
    assert about.shown.shape == about.truth.shape == (3, 64, 64)
    _, strength, score = best_linear(
        about.given.y, about.given.linear, photographs.SIGMA, about.truth
    )
    assert 1e-5 < strength < 0.5
    assert score > float(psnr(about.shown[None], about.truth[None], 1.0)) + 0.3


def test_best_linear_is_the_wiener_filter_for_a_circular_blur():
    about = photographs.scene("astronaut", "blur", 48)
    y, A = about.given.y.double(), about.given.linear
    x, _, _ = best_linear(y, A, 0.05, about.truth, [3e-4])
    torch.testing.assert_close(x, wiener(y, A.kernel, 0.05, 3e-4), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="sigma > 0, got 0"):
        best_linear(y, A, 0, about.truth)


class Difference(po.operators.LinearOperator):
    """x minus its right neighbour: an operator that removes the mean."""

    def forward(self, x):
        return x - x.roll(-1, -1)


def test_no_linear_estimate_brings_back_a_mean_that_is_gone():
    about = photographs.scene("astronaut", "blur", 48)
    with pytest.raises(ValueError, match="Difference removes the mean"):
        best_linear(
            about.given.y.double(), Difference(tuple(about.given.y.shape)), 0.05, about.truth
        )


def test_best_linear_solves_its_equations_also_in_a_hole(monkeypatch):
    about = photographs.scene("astronaut", "box", 32)
    y, A = about.given.y.double(), about.given.linear
    x, _, _ = best_linear(y, A, 0.05, about.truth, [0.3])
    f2 = (
        torch.fft.fftfreq(32, dtype=torch.float64)[:, None] ** 2
        + torch.fft.fftfreq(32, dtype=torch.float64) ** 2
    )
    F = torch.fft.fft2(torch.eye(1024, dtype=torch.float64).view(1024, 32, 32)).flatten(1)
    seen = A.adjoint(A(torch.ones(1, 3, 32, 32, dtype=torch.float64)))[0, 0].flatten()
    M = torch.diag(seen) + 0.05**2 / 0.3 * (F.conj().T @ (f2.flatten()[:, None] * F) / 1024).real
    expected = torch.linalg.solve(M, A.adjoint(y[None])[0].flatten(1).T).T.view(3, 32, 32)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-3)
    monkeypatch.setattr(
        baselines, "cg", lambda *system, **how: cg(*system, **{**how, "max_iter": 2})
    )
    with pytest.raises(ArithmeticError, match="choose smaller strengths"):
        best_linear(y, A, 0.05, about.truth, [0.3])


def test_a_sheet_refuses_a_row_of_another_length(tmp_path):
    with pytest.raises(ValueError, match="the row 'one' .* the 2 columns"):
        contact_sheet(tmp_path / "sheet.png", ["a", "b"], [("one", [(None, "nothing")])], 32)
    assert contact_sheet(
        tmp_path / "sheet.png", ["a"], [("one", [(None, "nothing here")])], 128
    ) == (110 + 132, 30 + 146)


def test_rows_of_another_bench_are_not_overwritten(tmp_path, monkeypatch, capsys):
    (tmp_path / "rows.json").write_text('[{"bed": "gaussian", "method": "DPS"}]')
    code, _, said = call(monkeypatch, capsys, tmp_path, "--methods", "DPS")
    assert code == 2
    assert "holds other rows" in said
    assert "gaussian" in (tmp_path / "rows.json").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "DSP"], "unknown method 'DSP'"),
        (["--problems", "sharpen"], "unknown problem 'sharpen'; known: blur"),
        (["--images", "coffee"], "unknown image 'coffee'; known: astronaut, chelsea"),
        (["--side", "60"], "a multiple of 8, got 60"),
        (["--steps", "0", "--quick"], "steps must be at least 1, got 0"),
        (["--limit", "0"], "seconds > 0, got 0"),
        (["--out", "sheet.jpg"], "a .png file, got sheet.jpg"),
    ],
)
def test_a_wrong_selection_is_refused(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["posteriori", "bench", "images", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err
