"""``posteriori compare``, lists of methods, and the method of a file that names none."""

from __future__ import annotations

import html
import json
import sys

import numpy as np
import pytest
import torch
from cases import toy_unet
from reference import F64, REPOSITORY

import posteriori as po
from posteriori import problem_file
from posteriori.cli import main
from posteriori.methods import DAPS, DDIM, DDRM, DPS, EPS, MMPS, DiffPIR, courses
from posteriori.problem_file import advice
from posteriori.problem_file.entries import entries, label, read_entries

TEXT = """prior: {gaussian: {mean: 0.5, std: 0.2, shape: [1, 8, 8], range: [0, 1]}}
operator: {name: blur, std: 1, boundary: circular}
noise: {law: gaussian, sigma: 0.05, range: [0, 1]}
measurement: {image: x.npy}
n: 2
steps: 4
"""


def call(*words):
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture
def problem(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((1, 8, 8)).astype(np.float32))
    place = tmp_path / "problem.yaml"
    place.write_text(TEXT)
    return place


# Lists of methods.


def test_a_list_is_read_as_people_write_it():
    found = entries(
        read_entries(
            [
                "MMPS, DPS(scale=.5),DPS(published)",
                "DiffPIR(transition=DDIM(eta=0.5), lam=1e-1)",
                "DDRM(steps=20, grid=ddpm)",
            ]
        )
    )
    assert [entry.method for entry in found] == [
        MMPS(),
        DPS(scale=0.5),
        DPS.published(),
        DiffPIR(transition=DDIM(0.5), lam=0.1),
        DDRM(),
    ]
    assert courses.course_of(found[2].method).steps == 1000
    assert [entry.label for entry in found[:3]] == ["MMPS", "DPS(scale=0.5)", "DPS(published)"]
    assert (found[4].steps, found[4].grid) == (20, "ddpm")
    assert len({entry.folder for entry in found}) == 5
    assert not any(sign in entry.folder for entry in found for sign in "()/, ")


def test_a_file_has_the_same_list(problem):
    listed = (
        "methods: [MMPS, {name: DPS, scale: 0.5}, "
        "{name: DiffPIR, transition: {name: DDIM, eta: 0.5}}, {name: DDRM, steps: 20}]\n"
    )
    problem.write_text(TEXT + listed)
    given = problem_file.load(problem)
    assert [e.label for e in given.methods] == [
        "MMPS",
        "DPS(scale=0.5)",
        "DiffPIR(transition=DDIM(eta=0.5))",
        "DDRM(steps=20)",
    ]
    assert [
        e.label for e in entries(read_entries([label(e) for e in read_entries(["DPS(scale=0.5)"])]))
    ] == ["DPS(scale=0.5)"]
    assert given.build().method == MMPS(), "solve takes the first"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DPS(scale=0.5", "brackets do not match"),
        ("DPS)", "brackets do not match"),
        ("DPS(0.5)", "'0.5' is no setting"),
        ("DPS(scal=0.5)", "has no setting 'scal'"),
        ("DSP", "did you mean"),
        ("DPS,DPS", "DPS and DPS are one"),
        ("DPS(scale=0.5),DPS(scale=.50)", "are one"),
        ("DPS(steps=0)", "steps must be an integer >= 1"),
        ("DPS(grid=cosine)", "unknown grid 'cosine'"),
    ],
)
def test_a_list_that_is_wrong_is_refused(text, words):
    with pytest.raises(ValueError, match=words.replace("(", "\\(")):
        entries(read_entries([text]))


# The command.


def test_one_table_and_one_page_and_a_row_for_what_fails(problem, capsys):
    out = problem.parent / "out"
    methods = [
        "MMPS,DPS(scale=0.5),DPS(scale=1)",
        "DiffPIR",
        "TDS(particles=4)",
        "SMCDiff(kernel=exact)",
    ]
    assert call("compare", problem, "--methods", *methods, "--out", out, "--quiet") == 0
    said = capsys.readouterr()
    table = (out / "table.md").read_text()
    assert table.strip() in said.out
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:]] == [
        "MMPS", "DPS(scale=0.5)", "DPS(scale=1)", "DiffPIR", "TDS(particles=4)",
        "SMCDiff(kernel=exact)",
    ]  # fmt: skip
    heads = [cell.strip() for cell in rows[0].split("|")[1:-1]]
    assert heads[:7] == ["Method", "Steps", "Seconds", "Denoiser", "VJP", "chi2", "Spread"]
    assert {"PSNR one, dB", "PSNR mean, dB", "Flags", "log p(y)", "Outcome"} <= set(heads)
    refused = rows[-1]
    assert "SMCDiff: would fit noise" in refused
    page = (out / "index.html").read_text()
    assert "SMCDiff: would fit noise" in html.unescape(page)
    assert page.count("<img") == 2 + 5 * 4, (
        "measurement, reference; mean, two samples and the spread of each"
    )
    assert all(
        f'alt="{title}"' in page for title in ("Measurement", "Reference", "Mean of 2", "Sample 1")
    )
    assert "http" not in page.replace("http-equiv", "").replace("w3.org", "")
    for name in ("MMPS", "DPS_scale=0.5", "DPS_scale=1"):
        assert json.loads((out / name / "run.json").read_text())["state"] == "complete"


def test_a_comparison_is_completed_and_may_grow(problem, capsys):
    out = problem.parent / "out"
    assert call("compare", problem, "--methods", "MMPS", "--out", out, "--quiet") == 0
    before = (out / "MMPS" / "samples.safetensors").stat().st_mtime_ns
    spent = json.loads((out / "MMPS" / "run.json").read_text())["seconds"]
    assert call("compare", problem, "--methods", "DDRM", "MMPS", "--out", out, "--quiet") == 0
    assert json.loads((out / "MMPS" / "run.json").read_text())["seconds"] == spent, (
        "it is not drawn again"
    )
    assert before <= (out / "MMPS" / "samples.safetensors").stat().st_mtime_ns
    assert (out / "DDRM" / "run.json").exists()
    problem.write_text(TEXT.replace("sigma: 0.05", "sigma: 0.1"))
    capsys.readouterr()
    assert call("compare", problem, "--methods", "MMPS", "--out", out, "--quiet") == 2
    assert "belong to another problem" in capsys.readouterr().err
    other = problem.parent / "full"
    other.mkdir()
    (other / "thing").touch()
    assert call("compare", problem, "--methods", "MMPS", "--out", other) == 2
    assert "holds no comparison" in capsys.readouterr().err


def test_without_a_list_the_files_own_or_the_recommended_ones_are_compared(problem, capsys):
    problem.write_text(TEXT + "methods: [{name: DDRM, steps: 3}]\n")
    assert call("compare", problem, "--out", problem.parent / "a", "--quiet") == 0
    assert "DDRM(steps=3)" in capsys.readouterr().out
    problem.write_text(TEXT)
    assert call("compare", problem, "--out", problem.parent / "b", "--quiet") == 0
    out = capsys.readouterr().out
    assert all(f"| {name} " in out for name in advice.RECOMMENDED["known"])


# The method of a file that names none.


def post(A, law, shape, y=None):
    prior = po.priors.Gaussian(torch.full(shape, 0.5, dtype=F64), 0.2, range=(0, 1))
    y = torch.full(A.out_shape, 0.5, dtype=F64) if y is None else y
    return po.Posterior(prior, po.Likelihood(y, A, law, range=(0, 1)))


def kinds():
    shape = (1, 16, 16)
    blur = po.operators.Blur(po.operators.gaussian_kernel(1.0).double(), shape, boundary="circular")
    few = po.operators.Dense(torch.eye(4, 256, dtype=F64), shape)
    gaussian = po.noise.Gaussian(0.05)

    def by_network(A, net=None):
        prior = po.priors.Network(net or toy_unet(F64), shape=shape, multiple=4, sigma_data=0.5)
        y = torch.full(A.out_shape, 0.5, dtype=F64)
        return po.Posterior(prior, po.Likelihood(y, A, gaussian, range=(0, 1)))

    return {
        "known": post(blur, gaussian, shape),
        "told": by_network(blur, po.priors.UNet(1, (8, 8), (1, 1), coloured=True).double()),
        "linear": by_network(blur),
        "few": by_network(few),
        "counts": post(blur, po.noise.Poisson(100.0), shape),
        "magnitudes": post(po.operators.PhaseRetrieval(shape), gaussian, shape),
        "jpeg": post(po.operators.JPEG(shape, 50), po.noise.Gaussian(0.3), shape),
        "curved": post(po.operators.Clip(shape, 1.5), gaussian, shape),
    }


@pytest.mark.parametrize(
    "kind", ["known", "told", "linear", "few", "counts", "magnitudes", "jpeg", "curved"]
)
def test_every_kind_of_problem_gets_a_method_that_takes_it(kind):
    problem = kinds()[kind]
    choice = advice.choose(problem)
    assert choice.method.refuses(problem) is None
    assert entries([advice.RECOMMENDED[kind][0]])[0].method == choice.method
    assert choice.reason in str(choice)
    assert type(choice.method).__name__ in str(choice)
    assert entries(advice.rivals(problem))[0].method == choice.method


def test_the_rule_is_the_one_that_the_results_state():
    text = (REPOSITORY / "docs" / "results" / "advice.md").read_text()
    rule = [
        [cell.strip() for cell in line.split("|")[1:4]]
        for line in text.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    stated = {row[0]: row[1].strip("`") for row in rule if row[0] in advice.RECOMMENDED}
    first = {
        kind: label({"name": raws[0]} if isinstance(raws[0], str) else raws[0])
        for kind, raws in advice.RECOMMENDED.items()
    }
    assert stated == first


def test_magnitudes_get_their_levels_and_another_number_where_it_is_stated():
    choice = advice.choose(kinds()["magnitudes"])
    assert isinstance(choice.method, DAPS)
    assert (choice.steps, len(choice.levels)) == (200, 201)
    assert (float(choice.levels[0]), float(choice.levels[-2])) == pytest.approx(
        (min(2.5, float(choice.levels[0])), 0.01), rel=1e-6
    )
    assert len(advice.choose(kinds()["magnitudes"], 30).levels) == 31


def test_a_prior_that_knows_the_noise_gets_eps_on_its_levels():
    choice = advice.choose(kinds()["known"])
    assert isinstance(choice.method, EPS)
    assert choice.steps == 20
    assert advice.choose(kinds()["known"], 7).steps == 7
    # The same problem with a network.
    assert isinstance(advice.choose(kinds()["linear"]).method, MMPS)


def test_the_measured_crps_decides_between_the_methods_of_a_network(monkeypatch):
    """The same problem goes to the method with the lowest figure, and its line names the kind of
    the operator, the noise and the price."""
    problem = kinds()["told"]
    choice = advice.choose(problem)
    assert isinstance(choice.method, EPS)
    assert choice.steps == 10
    for said in ("Blur", "a blur", "Gaussian noise of 0.05", EPS.cost):
        assert said in str(choice)
    turned = advice.CRPS | {"a blur": {"EPS": 0.03, "MMPS": 0.02}}
    monkeypatch.setattr(advice, "CRPS", turned)
    assert isinstance(advice.choose(problem).method, MMPS)
    # Whatever the figures, a network that was not trained for such noise cannot take EPS.
    assert isinstance(advice.choose(kinds()["linear"]).method, MMPS)


def test_within_the_error_of_the_best_the_cheaper_method_is_taken(monkeypatch):
    problem = kinds()["told"]
    monkeypatch.setattr(advice, "CRPS", advice.CRPS | {"a blur": {"EPS": 0.03, "MMPS": 0.025}})
    for error, method in ((0.0049, MMPS), (0.0051, EPS)):
        monkeypatch.setattr(advice, "ERROR", advice.ERROR | {"a blur": error})
        assert isinstance(advice.choose(problem).method, method)


def test_a_hole_is_told_from_a_mask_of_single_pixels():
    """Whatever the shares of what is hidden: 70 % of the pixels one by one, or a square; of the
    channels or slices all tell. Where nothing is hidden, and of vectors, there is neither."""

    def kind(mask, shape=(1, 16, 16)):
        A = po.operators.Mask(mask, shape)
        y = torch.zeros(A.out_shape, dtype=F64)
        prior = po.priors.Gaussian(torch.zeros(shape, dtype=F64), 1.0)
        return advice.operator_kind(
            po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.05)))
        )

    for share in (0.1, 0.3, 0.9):
        single = po.operators.random_mask((16, 16), share, seed=0)
        assert kind(single) == "a mask of single pixels"
    for side in (8, 12):
        assert kind(po.operators.box_mask((16, 16), side)) == advice.HOLE
    whole = torch.ones(1, 16, 16, dtype=torch.bool)
    assert kind(whole) is None
    for mask, word in ((single[None], advice.SINGLE), (~whole, advice.HOLE)):
        assert kind(torch.stack([whole, mask]), (2, 1, 16, 16)) == word
    assert kind(torch.tensor([True, False, True]), (3,)) is None


def test_a_plan_without_a_method_is_that_of_the_chosen_one():
    problem = kinds()["told"]
    plan = problem.plan()
    assert (plan.method, plan.steps) == ("EPS", 10)
    assert plan.notes[0] == str(advice.choose(problem))
    assert problem.plan(steps=3).steps == 3
    assert problem.plan(MMPS(), steps=2).method == "MMPS"


def test_solve_names_the_method_and_keeps_the_reason(problem, capsys):
    out = problem.parent / "run"
    assert call("solve", problem, "--out", out, "--quiet") == 0
    said = capsys.readouterr().out
    line = next(one for one in said.splitlines() if one.startswith("method: EPS, chosen for"))
    assert "with Gaussian noise of" in line
    assert f"under which this prior's denoiser is in closed form; {EPS.cost} a step" in line
    assert json.loads((out / "summary.json").read_text())["chosen"].startswith(
        "method: EPS, chosen for"
    )
    assert json.loads((out / "run.json").read_text())["config"]["method"] == "EPS"
    problem.write_text(TEXT + "method: DDRM\n")
    assert call("solve", problem, "--out", problem.parent / "named", "--quiet") == 0
    assert "chosen" not in capsys.readouterr().out


def test_solve_offers_the_level_that_the_residual_tells(problem, capsys):
    y = 0.5 + 0.2 * np.random.default_rng(1).standard_normal((1, 24, 24))
    np.save(problem.parent / "y.npy", y.astype(np.float32))
    text = (
        TEXT.replace("{image: x.npy}", "{file: y.npy}")
        .replace("shape: [1, 8, 8]", "shape: [1, 24, 24]")
        .replace("std: 1,", "std: 2,")
    )
    problem.write_text(text.replace("steps: 4", "steps: 20") + "method: MMPS\n")
    assert call("solve", problem, "--out", problem.parent / "run", "--quiet") == 0
    said = capsys.readouterr().out
    line = next(
        line
        for line in said.splitlines()
        if line.startswith("noise level: the residual tells about")
    )
    assert float(line.split("about ")[1].split(",")[0]) == pytest.approx(0.2, rel=0.15)
    assert "0.05 is stated" in line
    assert (
        json.loads((problem.parent / "run" / "summary.json").read_text())["noise_level"]["stated"]
        == 0.05
    )


def test_the_command_line_prints_lines_where_no_terminal_is(problem, capsys):
    assert call("solve", problem, "--out", problem.parent / "run") == 0
    assert "EPS: 100 % after" in capsys.readouterr().err
    assert not sys.stderr.isatty()
