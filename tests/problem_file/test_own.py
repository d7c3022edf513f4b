"""Methods, operators and priors of the user's own by their import path: what is built, what is
checked, what is said."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
import yaml
from console import call
from PIL import Image

import posteriori as po
from posteriori import problem_file
from posteriori.experiments import photographs
from posteriori.problem_file import method as solvers
from posteriori.testing import check_method, check_operator

METHOD = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal

from posteriori.methods import DDIM, Method
from posteriori.methods.transitions import Transition
from posteriori.operators import Identity
from posteriori.settings import NonNegative


@dataclass(frozen=True)
class Shrink(Method):
    scale: NonNegative = 1.0
    way: Literal["plain", "twice"] = "plain"
    transition: Transition = DDIM(1.0)

    def step(self, post, state, sigma, s, rng):
        def guided(x, level):
            x0 = post.prior.denoise(x, level)
            r2 = post.prior.know().error(level)
            return x0 + self.scale * r2 * post.likelihood.widen(r2).score(x0)

        return self.transition(guided, state, sigma, s, rng), {}


class Bare(Method):
    scale: float = 1.0

    def step(self, post, state, sigma, s, rng): ...


class Unwritten(Method): ...


def made(scale: float) -> Method:
    return Shrink(scale)


def wrong():
    return Identity((1, 8, 8))


def fails():
    return 1 / 0


ready = Shrink()
number = 3
"""
LINES = METHOD.splitlines()
OPERATOR = """
import torch
from posteriori.operators import LinearOperator


class Halves(LinearOperator):
    def __init__(self, shape: tuple[int, ...], gain: float = 1.0):
        super().__init__(shape)
        self.gain = gain

    def forward(self, x):
        self.check_input(x)
        return self.gain * (x[..., ::2] + x[..., 1::2]) / 2


class Fixed(LinearOperator):
    def __init__(self):
        super().__init__((1, 8, 8))

    def forward(self, x):
        self.check_input(x)
        return x.flip(-1)
"""
PRIOR = """
from pathlib import Path

import torch
from posteriori.priors import Gaussian, Network


def load(mean: Path, std: float = 0.2):
    return Gaussian(torch.load(mean), std**2, range=(0.0, 1.0))


class Net(torch.nn.Module): ...
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of a user's files, left as they are by what a test imports."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    for name, text in (
        ("own_method.py", METHOD),
        ("own_operator.py", OPERATOR),
        ("own_prior.py", PRIOR),
    ):
        (tmp_path / name).write_text(text)
    (tmp_path / "own_package" / "inner").mkdir(parents=True)
    (tmp_path / "own_package" / "__init__.py").write_text(
        "from own_package.inner.deep import Shrink"
    )
    (tmp_path / "own_package" / "inner" / "deep.py").write_text(METHOD)
    torch.save(torch.full((1, 8, 8), 0.5), tmp_path / "mean.pt")
    np.save(tmp_path / "y.npy", np.random.default_rng(0).random((1, 8, 8), dtype=np.float32))
    np.save(tmp_path / "half.npy", np.random.default_rng(0).random((1, 8, 4), dtype=np.float32))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_") and name not in before]:
        del sys.modules[name]


def write(folder, **changes):
    record = {
        "prior": {"gaussian": {"mean": 0.5, "std": 0.2, "shape": [1, 8, 8]}},
        "operator": "identity",
        "noise": {"law": "gaussian", "sigma": 0.1, "range": [0, 1]},
        "measurement": {"file": "y.npy"},
        "method": "MMPS",
        "n": 2,
        "steps": 4,
    } | changes
    (folder / "problem.yaml").write_text(yaml.safe_dump(record))
    return folder / "problem.yaml"


@pytest.mark.parametrize(
    "name",
    [
        "own_method.py:Shrink",
        "own_method:Shrink",
        "own_package:Shrink",
        "own_package.inner.deep:Shrink",
    ],
)
def test_a_method_is_named_by_its_file_or_its_module_and_set_like_those_of_the_library(
    folder, name
):
    task = problem_file.load(
        write(
            folder,
            method={"name": name, "scale": "5e-1", "transition": {"name": "DDIM", "eta": 0.5}},
        )
    ).build()
    made = type(task.method)(scale=0.5, transition=po.methods.DDIM(0.5))
    assert task.method == made
    a, b = (po.sample(task.posterior, m, n=2, steps=4, seed=3).samples for m in (task.method, made))
    assert torch.equal(a, b)


def test_operator_and_prior_of_ones_own(folder):
    method = {"name": "own_method.py:made", "scale": 1}
    operator = {"name": "own_operator.py:Halves", "gain": 2}
    prior = {"name": "own_prior.py:load", "mean": "mean.pt", "std": 0.3}
    task = problem_file.load(
        write(
            folder, method=method, operator=operator, prior=prior, measurement={"file": "half.npy"}
        )
    ).build()
    A = task.posterior.given.A
    assert A.in_shape == (1, 8, 8)
    assert A.gain == 2.0
    check_operator(A)
    check_method_without_reference(task)
    assert task.posterior.prior.variance == pytest.approx(0.09)


def check_method_without_reference(task):
    """All that ``check_method`` asks of any method; a reference, a family and a cost it asks of
    those of the library."""
    with pytest.raises(AssertionError, match="states no reference"):
        check_method(task.method, task.posterior, claims=False)
    stated = type(
        "Stated",
        (type(task.method),),
        {"reference": "none", "family": "explicit", "cost": "1 denoiser call"},
    )
    check_method(stated(), task.posterior, claims=False)


def test_ones_own_operator_takes_part_in_a_composition_and_makes_pictures_where_it_says_so(folder):
    parts = [
        {"name": "own_operator.py:Fixed"},
        {"name": "own_operator.py:Halves", "pictures": True},
    ]
    section = problem_file.load(
        write(folder, operator={"name": "compose", "parts": parts})
    ).operator
    assert section.build((1, 8, 8)).out_shape == (1, 8, 4)
    assert [part.pictorial for part in section.parts] == [False, True]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"method": "own_methd.py:Shrink"},
            ["no file", "own_methd.py", "did you mean own_method.py"],
        ),
        ({"method": "own_methd:Shrink"}, ["no module 'own_methd'", "did you mean 'own_method'"]),
        ({"method": "own_package.iner:Shrink"}, ["no module 'own_package.iner'"]),
        ({"method": "own_method.py:Shrnk"}, ["has no 'Shrnk'", "did you mean 'Shrink'"]),
        ({"method": "own_method.py:"}, ["no import path", "my_file.py:MyClass"]),
        (
            {"method": "own_method.Shrink"},
            ["unknown method 'own_method.Shrink'", "mypackage:MyClass"],
        ),
        (
            {"method": "own_operator.py:Halves"},
            ["a class of operators; expected a method", "under `operator:`"],
        ),
        (
            {"operator": "own_method.py:Shrink"},
            ["a class of methods; expected an operator", "under `method:`"],
        ),
        ({"method": "own_method.py:ready"}, ["method (Shrink)", "name the class"]),
        ({"method": "own_method.py:number"}, ["is an int", "expected a method"]),
        ({"method": "own_method.py:Bare"}, ["settings scale", "@dataclass(frozen=True)"]),
        ({"method": "own_method.py:Unwritten"}, ["does not define step", "check_method"]),
        ({"method": "own_method.py:made"}, ["needs scale"]),
        ({"method": "own_method.py:wrong"}, ["made an operator (Identity)", "expected a method"]),
        (
            {"method": "own_method.py:fails"},
            ["ZeroDivisionError", f"own_method.py, line {LINES.index('    return 1 / 0') + 1}"],
        ),
        (
            {"method": {"name": "own_method.py:Shrink", "scal": 2}},
            ["did you mean 'scale'? Known: scale, way, transition\n"],
        ),
        (
            {"method": {"name": "own_method.py:Shrink", "scale": -1}},
            ["scale", "expected a number >= 0, got -1"],
        ),
        (
            {"method": {"name": "own_method.py:Shrink", "way": "plian"}},
            ["way", "'plian'", "did you mean 'plain'"],
        ),
        (
            {"method": {"name": "own_method.py:Shrink", "preset": "published"}},
            ["no preset 'published'"],
        ),
        (
            {"method": {"name": "own_method.py:made", "scale": "much"}},
            ["scale", "expected a finite number, got 'much'"],
        ),
        (
            {"operator": {"name": "own_operator.py:Halves", "gian": 2}},
            ["no setting 'gian'", "did you mean 'gain'"],
        ),
        ({"operator": {"name": "own_operator.py:Halves", "pictures": "yes"}}, ["pictures"]),
        (
            {"operator": "own_operator.py:Fixed", "measurement": {"file": "y.png"}},
            ["stores whole numbers", "says pictures: true"],
        ),
        ({"prior": "own_prior.py:load"}, ["needs mean"]),
        (
            {"prior": {"name": "own_prior.py:load", "mean": "mean.pt", "std": "wide"}},
            ["load.std: expected a finite number, got 'wide'"],
        ),
        ({"prior": "own_prior.py:Net"}, ["derives from no prior", "priors.Network(net, ...)"]),
        (
            {"prior": {"name": "own_prior.py:load", "mean": "none.pt"}},
            ["FileNotFoundError", "own_prior.py, line 9"],
        ),
        ({"method": "own_broken.py:A"}, ["SyntaxError", "own_broken.py, line 2"]),
        (
            {"method": "own_needs.py:A"},
            ["No module named 'own_absent'", "own_needs.py, line 1", "install"],
        ),
        ({"method": "own_script.py:A"}, ["ended the program", "__main__"]),
        ({"method": "own_sunk.py:A"}, ["RuntimeError: no luck", "own_sunk.py, line 2"]),
        (
            {"method": "own_package/inner/near.py:A"},
            ["relative import", "mypackage.module:MyClass"],
        ),
        ({"method": "json.py:A"}, ["loaded already", "rename the file"]),
        ({"method": "json:A"}, ["hides", "rename yours"]),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_said_in_a_sentence(folder, monkeypatch, capsys, changes, words):
    sources = {
        "broken": "x = 1\ny = (",
        "needs": "import own_absent",
        "script": "raise SystemExit(0)",
        "sunk": "\nraise RuntimeError('no luck')",
    }
    for name, text in sources.items():
        (folder / f"own_{name}.py").write_text(text)
    (folder / "own_package" / "inner" / "near.py").write_text("from . import deep")
    (folder / "json.py").write_text("A = 1")
    Image.fromarray(np.full((8, 8), 100, dtype=np.uint8)).save(folder / "y.png")
    assert (
        call(monkeypatch, "solve", write(folder, **changes), "--out", folder / "run", "--quiet")
        == 2
    )
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert not (folder / "run").exists()


def test_a_run_goes_on_with_the_same_code_only(folder, monkeypatch, capsys):
    file, out = write(folder, method="own_method.py:Shrink"), folder / "run"
    assert call(monkeypatch, "solve", file, "--out", out, "--quiet") == 0
    assert call(monkeypatch, "solve", file, "--out", out, "--quiet", "--resume") == 0
    source = folder / "own_method.py"
    source.write_text(source.read_text() + "\n# changed\n")
    capsys.readouterr()
    assert call(monkeypatch, "solve", file, "--out", out, "--quiet", "--resume") == 2
    assert "code: {'own_method.py:Shrink'" in capsys.readouterr().err


def test_what_fails_in_ones_own_step_is_said_with_its_line(folder, monkeypatch, capsys):
    source = folder / "own_method.py"
    source.write_text(
        source.read_text().replace(
            "        return self.transition(guided", "        return self.transition(1, guided"
        )
    )
    code = call(
        monkeypatch,
        "solve",
        write(folder, method="own_method.py:Shrink"),
        "--out",
        folder / "run",
        "--quiet",
    )
    assert code == 2
    line = next(k for k, text in enumerate(LINES, 1) if "return self.transition" in text)
    assert f"own_method.py, line {line}; --debug shows" in capsys.readouterr().err


def test_a_class_of_the_same_name_in_another_module_is_another_method(folder):
    post = problem_file.load(write(folder)).build().posterior
    one, other = (
        solvers.named_method("own_method:Shrink", {"folder": folder}),
        solvers.named_method("own_package:Shrink", {"folder": folder}),
    )
    po.sample(post, one, n=1, steps=3, folder=folder / "run")
    with pytest.raises(
        ValueError,
        match=r"method\.class: 'own_method\.Shrink' then, 'own_package\.inner\.deep\.Shrink' now",
    ):
        po.sample(post, other, n=1, steps=3, folder=folder / "run", resume=True)


def test_a_file_is_run_again_when_it_has_changed_and_only_then(folder):
    first = solvers.named_method("own_method.py:Shrink", {"folder": folder})
    assert type(solvers.named_method("own_method.py:Shrink", {"folder": folder})) is type(first)
    source = folder / "own_method.py"
    source.write_text(
        source.read_text().replace("scale: NonNegative = 1.0", "scale: NonNegative = 2.0")
    )
    assert solvers.named_method("own_method.py:Shrink", {"folder": folder}).scale == 2.0


def test_the_current_folder_is_looked_in_and_no_installed_module_is_replaced(
    folder, monkeypatch, tmp_path_factory
):
    monkeypatch.chdir(folder)
    file = write(folder, method="own_method:Shrink").rename(
        tmp_path_factory.mktemp("elsewhere") / "problem.yaml"
    )
    before = list(sys.path)
    assert type(problem_file.load(file).method).__name__ == "Shrink"
    assert sys.path[: len(before)] == before
    assert str(folder) in sys.path[len(before) :]


def test_a_method_of_ones_own_is_measured_beside_the_librarys_and_again_when_its_file_changes(
    folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    words = [
        "bench",
        "exact",
        "--bed",
        "gaussian",
        "--cells",
        "white",
        "--steps",
        "10",
        "--quiet",
        "--json",
        "rows.json",
        "--methods",
    ]
    assert call(monkeypatch, *words, "PiGDM,own_method.py:Shrink") == 0
    assert "own_method.py:Shrink" in capsys.readouterr().out
    rows = {row["method"]: row for row in json.loads((folder / "rows.json").read_text())}
    assert rows["own_method.py:Shrink"]["value"] > 0
    source = folder / "own_method.py"
    for change, same in (("", True), ("\n# changed", False)):
        source.write_text(source.read_text() + change)
        assert call(monkeypatch, *words, "PiGDM", "own_method:Shrink", "own_method.py:Shrink") == 0
        again = {row["method"]: row for row in json.loads((folder / "rows.json").read_text())}
        assert (
            again["own_method.py:Shrink"]["code"] == rows["own_method.py:Shrink"]["code"]
        ) is same
        assert again["PiGDM"] == rows["PiGDM"]
    assert call(monkeypatch, *words, "own_method.py:Shrnk") == 2
    assert "did you mean 'Shrink'" in capsys.readouterr().err


def test_a_method_of_ones_own_has_a_row_on_photographs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words = [
        "bench",
        "images",
        "--images",
        "chelsea",
        "--problems",
        "random",
        "--side",
        "32",
        "--steps",
        "2",
        "--quiet",
        "--json",
        "rows.json",
    ]
    assert call(monkeypatch, *words, "--methods", "own_method.py:Shrink") == 0
    row = json.loads((folder / "rows.json").read_text())[-1]
    assert (row["method"], row["outcome"]) == ("own_method.py:Shrink", "finished")
    assert len(row["settings"]["code"]) == 16
    assert photographs.still_current(row)
    (folder / "own_method.py").write_text(METHOD + "\n# changed\n")
    assert not photographs.still_current(row)
