"""What the core needs: neither matplotlib nor scikit-image, which experiments ask for in one
sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from reference import REPOSITORY

from posteriori.extras import require_extra

ROOT = REPOSITORY
BLOCKED = """
import sys
sys.modules["matplotlib"] = sys.modules["skimage"] = None
import posteriori, torch
from posteriori.cli import main
prior = posteriori.priors.Gaussian(torch.zeros(1, 16, 16), 0.5)
A = posteriori.operators.Identity((1, 16, 16))
post = posteriori.Posterior(
    prior, posteriori.Likelihood(torch.zeros(1, 16, 16), A, posteriori.noise.Gaussian(0.1))
)
posteriori.sample(post, posteriori.methods.DPS(), n=1, steps=2, folder="sampled")
for words in (["--help"], ["solve", "problem.yaml", "--out", "run", "--quiet"], ["report",
"sampled"],
              ["bench", "exact", "--bed", "gaussian", "--cells", "white", "--methods", "DDRM",
              "--steps", "3"],
              ["study", "--list"], ["bench", "exact", "--quick", "--json", "rows.json"],
              ["bench", "images", "--quick"]):
    try:
        main(words)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    print("ended", code, flush=True)
    print("ended", words[:2], file=sys.stderr, flush=True)
"""


def test_the_core_needs_no_package_of_the_experiments(tmp_path):
    (tmp_path / "problem.yaml").write_text(
        "prior: {gaussian: {mean: 0.5, std: 0.2, shape: [1, 16, 16]}}\n"
        "operator: {name: blur, std: 1}\nnoise: {law: gaussian, sigma: 0.05, range: [0, 1]}\n"
        f"measurement: {{image: {tmp_path / 'x.npy'}}}\nmethod: MMPS\nn: 2\nsteps: 3\n"
    )
    np.save(tmp_path / "x.npy", np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 16, 16))
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    codes = [
        line.removeprefix("ended ") for line in done.stdout.splitlines() if line.startswith("ended")
    ]
    assert codes == ["0", "0", "0", "0", "2", "2", "2"], done.stderr
    assert "SSIM: " in done.stdout
    said = [line for line in done.stderr.splitlines() if "posteriori: " in line]
    study, exact, images = said
    for line, names in (
        (study, "matplotlib and scikit-image"),
        (exact, "matplotlib"),
        (images, "scikit-image"),
    ):
        assert line.endswith(f"needs {names}: pip install 'posteriori[experiments]'")
    assert not (tmp_path / "rows.json").exists()


def test_the_extra_is_declared_and_part_of_the_development_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = {"matplotlib", "scikit-image"}
    assert names == {line.partition(">")[0] for line in extras["experiments"]}
    assert not names & {line.partition(">")[0] for line in project["dependencies"]}
    assert "posteriori[experiments]" in extras["dev"]


def test_a_package_is_named_as_it_is_installed():
    require_extra("experiments", "nothing", "torch")
    with pytest.raises(
        ImportError, match=r"it needs no_such_package: pip install 'posteriori\[experiments\]'"
    ):
        require_extra("experiments", "it", "torch", "no_such_package")
