"""Every example of the gallery runs from top to bottom, in few steps."""

from __future__ import annotations

import re
import sys
import warnings

import pytest
from reference import REPOSITORY

GALLERY = REPOSITORY / "examples" / "gallery"
FILES = sorted(GALLERY.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_runs(file, tmp_path, monkeypatch, capsys):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(file), "--quick"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(file.read_text(), str(file), "exec"), {"__name__": "__main__"})
    assert pyplot.get_fignums(), "an example ends in a picture"
    pyplot.close("all")


def test_names_say_problem_prior_and_method():
    assert len(FILES) >= 13
    for file in FILES:
        assert re.fullmatch(r"[a-z]+_[a-z]+_[a-z0-9]+", file.stem)
        title, under = file.read_text().splitlines()[1:3]
        assert under == "=" * len(title)
