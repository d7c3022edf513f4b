"""The examples of a user's own method and own checkpoint, from a clean folder and at small size."""

from __future__ import annotations

import runpy
import shutil
import sys

import pytest
import torch
from console import call
from reference import REPOSITORY

import posteriori as po
from posteriori import problem_file
from posteriori.evaluation import exact_posterior
from posteriori.methods import MMPS
from posteriori.testing import check_method

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The examples in a clean folder, which is the current one."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("own", "problems"):
        shutil.copytree(
            EXAMPLES / name, tmp_path / name, ignore=shutil.ignore_patterns("net.pt", "__pycache__")
        )
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "own"
    for name in ("my_method", "my_prior"):
        sys.modules.pop(name, None)


def test_the_own_method_is_exact_where_it_says_so(own):
    task = problem_file.load(own / "method.yaml").build()
    run = po.sample(task.posterior, task.method, **(task.settings | {"n": 64}))
    exact = exact_posterior(task.posterior)
    error = (run.mean - exact.mean).flatten() / exact.covariance.diagonal().sqrt()
    # The mean of 64 draws has a squared error of 1 / 64, averaged over 1024 pixels.
    assert float(error.square().mean()) < 2 / 64
    assert float(run.std.square().mean()) == pytest.approx(
        float(exact.covariance.diagonal().mean()), rel=0.05
    )


def test_the_own_method_keeps_the_rules(own):
    task = problem_file.load(own / "method.yaml").build()
    check_method(task.method, task.posterior, claims=False)


def test_the_commands_of_the_own_method_run(own, monkeypatch, capsys):
    small = own / "method.yaml"
    small.write_text(small.read_text().replace("n: 8", "n: 2").replace("steps: 50", "steps: 5"))
    assert call(monkeypatch, "solve", "own/method.yaml", "--out", "runs/own", "--quiet") == 0
    assert "PSNR" in capsys.readouterr().out
    words = [
        "--methods",
        "MMPS,own/my_method.py:MyMethod",
        "own/my_method.py:MyMethod(scale=0.5)",
        "--out",
        "runs/compared",
        "--quiet",
    ]
    assert call(monkeypatch, "compare", "own/method.yaml", *words) == 0
    table = capsys.readouterr().out
    assert "own/my_method.py:MyMethod(scale=0.5)" in table
    runs = sorted(
        place.name for place in (own.parent / "runs" / "compared").iterdir() if place.is_dir()
    )
    source = own / "my_method.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert call(monkeypatch, "compare", "own/method.yaml", *words) == 0
    after = {place.name for place in (own.parent / "runs" / "compared").iterdir() if place.is_dir()}
    assert len(after) == len(runs) + 2  # runs of the changed method are drawn anew


def test_the_own_checkpoint_is_the_prior_it_was_trained_to_be(own, monkeypatch, capsys):
    assert call(monkeypatch, "solve", "own/checkpoint.yaml", "--out", "runs/early", "--quiet") == 2
    assert "net.pt" in capsys.readouterr().err  # which is made first
    runpy.run_path(str(own / "my_prior.py"), run_name="__main__")
    task = problem_file.load(own / "checkpoint.yaml").build()
    prior = task.posterior.prior
    assert tuple(prior.shape) == (1, None, None)
    state = torch.load(own / "net.pt", weights_only=True)["model"]
    exact = po.priors.Gaussian(
        state["mean"].expand(1, 32, 32), float(state["log_var"].exp()), range=(-1.0, 1.0)
    )
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    levels = prior.schedule.ladder()
    for sigma in levels[[50, 300, 700]]:
        assert torch.allclose(
            prior.denoise(x * sigma, sigma),
            exact.denoise(x * sigma, sigma),
            atol=2e-4 * float(1 + sigma),
        )
    assert call(monkeypatch, "solve", "own/checkpoint.yaml", "--out", "runs/own", "--quiet") == 0
    assert "PSNR" in capsys.readouterr().out


def test_ctrl_c_in_compare_says_what_is_kept_and_how_to_go_on(own, monkeypatch, capsys):
    small = own / "method.yaml"
    small.write_text(small.read_text().replace("n: 8", "n: 2").replace("steps: 50", "steps: 5"))
    begun, init = [], MMPS.init

    def stop(self, *rest):
        begun.append(1)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return init(self, *rest)

    monkeypatch.setattr(MMPS, "init", stop)
    words = [
        "compare",
        "own/method.yaml",
        "--methods",
        "MMPS,MMPS(iterations=2)",
        "--out",
        "runs/compared",
        "--quiet",
    ]
    assert call(monkeypatch, *words) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    kept = (
        "1 complete runs are kept in runs/compared; "
        "nothing is kept in runs/compared/MMPS_iterations=2"
    )
    assert said.startswith(f"posteriori: interrupted; {kept}")
    assert call(monkeypatch, *words) == 0
