"""The doctor: a planted fault trips its line and no other, and sound problems pass."""

from __future__ import annotations

import json
import math
import runpy
import shutil
import sys
from functools import cache

import pytest
import torch
from console import call, problem
from reference import REPOSITORY
from setups import (
    PLANTED,
    SOUND,
    CutOff,
    blurred,
    changed,
    digit,
    digits,
    measured,
    photo,
    photos,
)

import posteriori as po
from posteriori import operators as ops
from posteriori import priors, problem_file
from posteriori.examination import Finding, examine, finding_table
from posteriori.examination.data_lines import seen_noise, turned
from posteriori.examination.denoising import asymmetry, consistency
from posteriori.likelihood import Likelihood
from posteriori.measurements.images import write_image
from posteriori.noise import Gaussian, Poisson
from posteriori.operators import AdjointError
from posteriori.rng import Streams

# Photographs, and solves for a tiny noise level, take seconds; the others stand for them.
QUICK = [name for name in PLANTED if "photograph" not in name and name != "sigma / 255, tomography"]
SLOW_SOUND = [name for name in SOUND if name != "digits, blur"]


@pytest.fixture(autouse=True, scope="module")
def _prior_lines_once():
    """Of one prior its lines are the same in every problem."""
    kept, examine.prior_findings = examine.prior_findings, cache(examine.prior_findings)
    yield
    examine.prior_findings = kept


def failed(found):
    return [line.name for line in found.findings if line.verdict == "fail"]


def _trips_its_line_alone(name):
    line, make = PLANTED[name]
    found = po.doctor(make())
    assert failed(found) == [line], str(found)
    assert not found.passed
    assert found[line].remedy
    for other in found.findings:
        if other.verdict == "skip":
            assert other.remedy, f"{other.name} was skipped without a reason"


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_fault_trips_its_line_and_no_other(name):
    _trips_its_line_alone(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PLANTED if name not in QUICK])
def test_so_do_those_that_take_seconds(name):
    _trips_its_line_alone(name)


def test_a_sound_problem_passes_every_line():
    found = po.doctor(SOUND["digits, blur"](), n=3, steps=5)
    assert {line.verdict for line in found.findings} == {"pass"}, str(found)
    assert [line.name for line in found.findings] == [
        *("adjoint", "norm", "spectrum", "tweedie", "symmetry", "idempotence", "samples"),
        *("range", "noise", "axes", "fit", "world", "cost", "methods"),
    ]
    assert "3 samples in 5 steps" in found["cost"].value
    assert found.methods["MMPS"] is None
    assert "512 numbers of y" in found.methods["MomentSMC"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_SOUND)
def test_no_line_fails_on_a_sound_problem(name):
    found = po.doctor(SOUND[name]())
    assert found.passed, str(found)


EXAMPLES = [
    path
    for path in sorted((REPOSITORY / "examples").glob("*/*.yaml"))
    # Two of them wait for a file of the user's own.
    if path.parent.name != "training" and path.stem not in ("measured", "checkpoint")
]
FAST = ("compare", "exact", "method")


def _example_passes(path):
    task = problem_file.load(path).build()
    found = po.doctor(task.posterior, task.method, n=task.settings["n"])
    assert found.passed, str(found)


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem in FAST], ids=lambda p: p.stem)
def test_an_example_passes(path):
    _example_passes(path)


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem not in FAST], ids=lambda p: p.stem)
def test_every_other_example_passes(path):
    _example_passes(path)


def _copied(folder):
    for name in ("own", "problems"):
        shutil.copytree(REPOSITORY / "examples" / name, folder / name)
    return folder


def test_the_example_of_a_checkpoint_passes_once_it_is_there(tmp_path, monkeypatch):
    """Its network is the exact denoiser of white images, as one that predicts the noise."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    own = _copied(tmp_path) / "own"
    runpy.run_path(str(own / "my_prior.py"), run_name="__main__")
    _example_passes(own / "checkpoint.yaml")


@pytest.mark.slow
def test_the_example_of_a_measured_file_passes_once_it_is_there(tmp_path):
    """Its y is made as the file says: a photograph at a quarter of its size, with noise of 0.01."""
    problems = _copied(tmp_path) / "problems"
    x = photo(256, 0, 0)
    post = measured(photos(), ops.Downsample((3, 256, 256), 4, kind="bicubic"), x, 0.01)
    write_image(problems / "y.png", post.given.y.clamp(0, 1), range=(0, 1))
    _example_passes(problems / "measured.yaml")


def test_the_error_is_what_the_denoiser_promises_and_its_chance_is_said():
    """Over 200 draws of a Gaussian with a wide spectrum the two differ by their standard error,
    whose estimate is a bound from above: 1 within four standard errors of a standard deviation of
    200 numbers, 0.2, or less."""
    d = 64
    variance = torch.logspace(-2, 1, d, dtype=torch.float64)
    prior = priors.Gaussian(torch.zeros(d, dtype=torch.float64), variance)
    gaps = []
    for seed in range(200):
        x0 = prior.sample(2, seed)
        found = consistency(prior, x0, 0.5, 10_000 + seed)
        gaps.append((found.error - found.promised) / found.chance)
        assert not found.beyond(0.99, 1.01, errors=6.0)
    gaps = torch.tensor(gaps)
    assert abs(float(gaps.mean())) < 4 / math.sqrt(200)
    assert 0.5 < float(gaps.std()) < 1.2
    exact = 2 * float((variance * 0.25 / (variance + 0.25)).sum())
    # J is diagonal: every random sign gives its trace, but for rounding.
    assert found.promised == pytest.approx(exact, rel=1e-9)


def test_an_exact_denoiser_has_a_symmetric_jacobian_and_a_detached_one_has_not():
    prior = priors.Gaussian(torch.zeros(36, dtype=torch.float64), torch.eye(36).double() + 0.5)
    x = torch.randn(1, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert asymmetry(prior, x, 0.7) < 1e-9
    image = 2 * digit()[None] - 1
    assert asymmetry(CutOff(digits()), image, 0.1) > 1.2


def test_the_noise_level_is_told_within_its_error_and_structure_only_adds():
    """Of 20 draws around a plane: directions that no image reaches, and differences where there are
    none, within five standard errors."""
    for A in (ops.Blur(ops.gaussian_kernel(2.0), (1, 48, 48)), ops.Identity((1, 48, 48))):
        for seed in range(10):
            seen = seen_noise(_plane(A, 0.1, seed))
            assert abs(seen.ratio - 1) < 5 * seen.error, seen
    assert seen_noise(_plane(A, 0.1, 0, texture=0.3)).ratio > 1.15
    holes = ops.Mask(ops.random_mask((48, 48), 0.7, 0), (1, 48, 48))
    seen = seen_noise(_plane(holes, 0.1, 0))
    assert abs(seen.ratio - 1) < 5 * seen.error, seen
    assert seen_noise(_plane(ops.Identity((1, 8, 8)), 0.1, 0)) is None


def test_the_noise_of_counts_is_compared_with_their_own_variance():
    """Photons of a plane, whose variance differs from number to number."""
    law, A = Poisson(peak=200.0), ops.Identity((1, 48, 48))
    for seed in range(5):
        clean = _plane(A, 0.0, 0).y
        y = law.sample(clean[None], Streams(seed, [0]))[0]
        seen = seen_noise(Likelihood(y, A, law, range=(0, 1)))
        # The variance is taken from y itself, which is off by a few per cent.
        assert abs(seen.ratio - 1) < 5 * seen.error + 0.05, seen


def _plane(A, sigma, seed, texture=0.0):
    """A plane, measured."""
    generator = torch.Generator().manual_seed(seed)
    plane = torch.linspace(0.2, 0.8, A.in_shape[-1]).expand(A.in_shape)
    plane = plane + texture * torch.rand(A.in_shape, generator=generator)
    y = A(plane[None])[0] + sigma * torch.randn(A.out_shape, generator=generator)
    return Likelihood(y, A, Gaussian(sigma), range=(0, 1))


def test_orientations_are_those_of_the_square_and_of_the_rectangle():
    square = torch.arange(9.0).view(3, 3)
    ways, names = turned(square)
    assert len(ways) == len(names) == 8
    assert len({tuple(w.flatten().tolist()) for w in ways}) == 8
    assert torch.equal(ways[0], square)
    assert torch.equal(ways[names.index("with rows and columns swapped")], square.T)
    assert torch.equal(ways[names.index("with its rows reversed")], square.flip(-2))
    assert torch.equal(ways[names.index("with its columns reversed")], square.flip(-1))
    assert len(turned(torch.zeros(3, 4))[0]) == 4


def test_a_line_that_cannot_be_judged_fails_and_says_why():
    """An operator that fails within ends no examination."""

    class Broken(ops.Blur):
        def forward(self, x):
            if x.abs().max() > 3:  # as the dot test's probes have
                raise RuntimeError("the stage of this instrument ends at 3")
            return super().forward(x)

    post = changed(blurred(digits(), digit()), A=Broken(ops.gaussian_kernel(1.5), (1, 32, 32)))
    found = po.doctor(post)
    assert "adjoint" in failed(found)
    assert "ends at 3" in found["adjoint"].remedy


def test_the_command_prints_a_table_or_json_and_its_code_says_pass_or_fail(
    tmp_path, monkeypatch, capsys
):
    import numpy as np

    image = 0.5 + 0.2 * np.random.default_rng(0).standard_normal((16, 16))
    np.save(tmp_path / "clean.npy", image.astype(np.float32))
    file = problem(tmp_path, "{image: clean.npy}")
    assert call(monkeypatch, "doctor", file) == 0
    shown = capsys.readouterr().out
    assert "adjoint" in shown
    assert "methods that apply: " in shown
    assert "refuses: " in shown
    np.save(tmp_path / "clean.npy", 255 * image.astype(np.float32))
    assert call(monkeypatch, "doctor", file, "--json") == 1
    record = json.loads(capsys.readouterr().out)
    assert not record["passed"]
    verdicts = {line["name"]: line["verdict"] for line in record["findings"]}
    assert [name for name, verdict in verdicts.items() if verdict == "fail"] == ["range"]
    assert record["methods"]["MMPS"] is None


def test_the_command_shows_an_operator_that_fails_its_dot_test_as_a_line(
    tmp_path, monkeypatch, capsys
):
    from posteriori.cli import doctoring

    def build(self):
        raise AdjointError("<A x, u> = 1 but <x, A^H u> = 2")

    monkeypatch.setattr(problem_file.Problem, "build", build)
    file = problem(tmp_path, "{image: clean.npy}")
    found = doctoring.examine_problem(file)
    assert failed(found) == ["adjoint"]
    assert "= 2" in found["adjoint"].remedy


def test_the_table_has_the_remedy_below_what_did_not_pass():
    table = finding_table(
        (
            Finding("norm", "pass", "1", "1", "not shown"),
            Finding("range", "fail", "9", "[0, 1]", "divide by 9"),
        )
    )
    assert table.splitlines()[-1] == "    divide by 9"
    assert "not shown" not in table
