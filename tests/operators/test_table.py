"""The table of operators in the documentation names all of them, with tests that exist."""

from __future__ import annotations

import re
from inspect import isclass

from reference import REPOSITORY

from posteriori import operators as ops
from posteriori.operators.base import LinearOperator, Operator
from posteriori.operators.parametric import Parametric

ROW = re.compile(r"^\| `(\w+)` \| `([\w/]+\.py)::(\w+)` \| (.+) \|$", re.MULTILINE)


def test_every_operator_has_a_row_with_a_test_that_exists():
    page = (REPOSITORY / "docs" / "operators.md").read_text()
    rows = ROW.findall(page.partition("its exact test, its engine")[2])
    named = [name for name, *_ in rows]
    public = {
        name
        for name in ops.__all__
        if isclass(made := getattr(ops, name)) and issubclass(made, Operator)
    } - {base.__name__ for base in (Operator, LinearOperator, Parametric)}
    assert sorted(named) == sorted(public), "docs/operators.md: a row for each operator, once"
    for name, file, test, engine in rows:
        text = (REPOSITORY / "tests" / file).read_text()
        assert f"\ndef {test}(" in text, f"{name}: {file} has no {test}"
        assert engine.strip()
