"""Nothing of the package is left out of the contracts."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from cases import METHODS, NOISES, OPERATORS, PRIORS, ROOT, classes

from posteriori import noise
from posteriori.citations import BIBLIOGRAPHY, bibliography
from posteriori.methods import ALL
from posteriori.methods.base import Method
from posteriori.noise import NoiseLaw
from posteriori.operators.base import LinearOperator, Operator
from posteriori.priors.base import Prior


def test_every_operator_has_a_case():
    import torch

    used = {type(make(torch.float64)) for make in OPERATORS.values()}
    used |= {type(m) for make in OPERATORS.values() for m in make(torch.float64).modules()}
    missing = (
        {c.__name__ for c in classes("operators", Operator)}
        - {c.__name__ for c in used}
        - {LinearOperator.__name__}
    )
    assert not missing


def test_every_method_has_a_case_and_a_reference():
    assert {type(m) for m in METHODS.values()} == set(ALL.values()) == classes("methods", Method)
    entries = set(bibliography())
    assert len(entries) == BIBLIOGRAPHY.read_text().count("\n@") + 1, "each key once"
    for method in ALL.values():
        assert method.reference in entries
        assert method.__doc__
        if hasattr(method, "published"):
            assert method.published() in METHODS.values(), (
                f"{method.__name__}.published() has no case"
            )


def test_every_noise_has_a_case():
    laws = {
        c
        for _, c in inspect.getmembers(noise, inspect.isclass)
        if issubclass(c, NoiseLaw) and not inspect.isabstract(c)
    }
    assert {type(law) for law, *_ in NOISES.values()} == laws


def test_every_prior_has_a_case():
    import torch

    used = set()
    for case in PRIORS.values():
        make = case[0] if isinstance(case, tuple) else case
        made = make(torch.float64) if callable(make) else make
        used |= {type(m).__name__ for m in made.modules()}
    assert {c.__name__ for c in classes("priors", Prior)} <= used


@pytest.mark.parametrize("method", ALL.values(), ids=lambda method: method.__name__)
def test_method_files_are_short_and_say_what_they_are(method):
    path = Path(inspect.getfile(method))
    text = path.read_text()
    assert text.count("\n") <= 200, f"{path.name} has {text.count(chr(10))} lines"
    for heading in ("Reference:", "Cost per step:", "Assumes:", "Exact when:"):
        assert heading in text or (heading == "Assumes:" and path.stem == "daps"), (
            f"{path.name} does not say '{heading}'"
        )


def test_files_and_functions_stay_small():
    import ast

    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 450, f"{path.name} has {text.count(chr(10))} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                start = (
                    node.body[1].lineno
                    if len(node.body) > 1 and ast.get_docstring(node)
                    else node.body[0].lineno
                )
                assert (node.end_lineno or 0) - start < 70, f"{path.name}: {node.name} is too long"
