"""Every setting is checked when its object is constructed, whoever constructs it."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Literal

import numpy as np
import pytest
import torch
from cases import classes

import posteriori as po
from posteriori import methods, noise
from posteriori.methods import transitions
from posteriori.methods.data_steps.descent import Adam, Conjugate, HeavyBall
from posteriori.noise import NoiseLaw
from posteriori.operators.base import Operator
from posteriori.priors.base import Prior
from posteriori.priors.schedule import VE, ContinuousVP, DiscreteVP, RectifiedFlow
from posteriori.problem_file.method import named_method as from_file
from posteriori.settings import Checked, Count, Share, settings_of

LAWS = [
    c
    for _, c in inspect.getmembers(noise, inspect.isclass)
    if issubclass(c, NoiseLaw) and not inspect.isabstract(c)
]
TOOLS = [
    transitions.DDIM,
    transitions.ConstantFraction,
    transitions.Heun,
    Adam,
    Conjugate,
    HeavyBall,
    VE,
    DiscreteVP,
    ContinuousVP,
    RectifiedFlow,
]
CLASSES = [
    *methods.ALL.values(),
    *classes("operators", Operator),
    *classes("priors", Prior),
    *LAWS,
    *TOOLS,
]
FIELDS = sorted(
    {(cls, name) for cls in CLASSES for name in settings_of(cls)},
    key=lambda pair: (pair[0].__name__, pair[1]),
)


def spoilt(setting):
    """Values of the right kind for nobody: a misspelt word, a word for a number, a flag for a
    number, a word for an object."""
    if setting.protocol:
        return ["DDIM", transitions.DDIM]
    if setting.kind:
        return [setting.kind.__name__, setting.kind, 1.0]
    if setting.words and not isinstance(setting.words[0], str):
        return [max(setting.words) + 1, "two"]
    if setting.words:
        return [
            word[:-1] + ("x" if word[-1] != "x" else "y") for word in setting.words if len(word) > 2
        ] or ["no such word"]
    if setting.hint is bool:
        return ["yes", 2]
    if setting.hint is str:
        return [3]
    return ["seven", True, float("nan")]


@pytest.mark.parametrize(
    ("cls", "name"), FIELDS, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_a_misspelt_setting_is_refused_by_name(cls, name):
    for bad in spoilt(settings_of(cls)[name]):
        if isinstance(bad, bool) and settings_of(cls)[name].hint is bool:
            continue
        with pytest.raises(ValueError, match=rf"^{cls.__name__}\.{name}\b"):
            cls(**{name: bad})


@pytest.mark.parametrize(
    "cls",
    [*methods.ALL.values(), *LAWS, transitions.DDIM, transitions.ConstantFraction, Adam, HeavyBall],
)
def test_no_setting_of_a_method_or_law_is_left_unchecked(cls):
    fields, known = {f.name for f in dataclasses.fields(cls) if f.init}, set(settings_of(cls))
    # A covariance of noise is an object of its own, which the law asks for by itself.
    assert fields - known <= ({"covariance"} if cls in LAWS else set())
    assert known <= fields


def test_the_sweep_sees_every_kind():
    assert sum(bool(settings_of(cls)[name].words) for cls, name in FIELDS) >= 48
    assert (po.operators.Blur, "boundary") in FIELDS
    assert (po.priors.Network, "parametrization") in FIELDS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: methods.DPS(weighting="bouded"),
            "DPS.weighting is 'bouded'; did you mean 'bounded'",
        ),
        (lambda: methods.DPS(scale=-1), "DPS.scale: expected a number >= 0, got -1"),
        (lambda: methods.LGDMC(scale=-1), "LGDMC.scale: expected a number >= 0"),
        (lambda: methods.MMPS(iterations=0), "MMPS.iterations: expected a number >= 1, got 0"),
        (lambda: methods.MMPS(rtol=-1.0), "MMPS.rtol: expected a number >= 0"),
        (lambda: methods.TDS(share=50), "TDS.share: expected a number <= 1, got 50"),
        (lambda: methods.TDS(particles=0), "TDS.particles: expected a number >= 1, got 0"),
        (lambda: methods.FPS(share=float("nan")), "FPS.share: expected a finite number, got nan"),
        (lambda: methods.MomentSMC(power=-1), "MomentSMC.power: expected a number > 0"),
        (lambda: methods.TMPD(True), "TMPD.covariance is True; known: row sum, diagonal"),
        (
            lambda: methods.DPS(transition="DDIM"),
            r"DPS.transition is 'DDIM'; expected an object such as DDIM\(\)",
        ),
        (lambda: methods.DDIM(eta=1.5), "DDIM.eta: expected a number <= 1, got 1.5"),
        (
            lambda: dataclasses.replace(methods.DPS(), scale=-2.0),
            "DPS.scale: expected a number >= 0",
        ),
        (lambda: noise.Gaussian(-0.1), "Gaussian.sigma: expected a number >= 0, got -0.1"),
        (lambda: noise.Poisson(0), "Poisson.peak: expected a number > 0, got 0"),
        (
            lambda: po.operators.Identity((2, 3.5)),
            r"Identity.shape\[1\]: expected a whole number, got 3.5",
        ),
    ],
)
def test_a_value_out_of_bounds_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_files_and_python_say_the_same():
    for settings in ({"weighting": "bouded"}, {"scale": -1}, {"scale": "large"}):
        with pytest.raises(ValueError, match=r"DPS\.") as python:
            methods.DPS(**settings)
        with pytest.raises(ValueError, match=r"DPS\.") as file:
            from_file({"name": "DPS", **settings})
        assert str(file.value) == str(python.value)


def test_numbers_of_other_libraries_are_taken_as_numbers():
    assert methods.MMPS(iterations=np.int64(3)).iterations == 3
    assert type(methods.MMPS(iterations=np.int64(3)).iterations) is int
    assert methods.DPS(scale=torch.tensor(0.5)).scale == 0.5
    assert methods.DPS(scale=1).scale == 1.0
    with pytest.raises(ValueError, match="DPS.scale: expected a number, got the text '1e-1'"):
        methods.DPS(scale="1e-1")
    assert from_file({"name": "DPS", "scale": "1e-1"}).scale == 0.1
    assert po.operators.Identity(torch.Size([2, 3])).in_shape == (2, 3)
    assert po.operators.Identity(np.array([2, 3])).in_shape == (2, 3)


def test_a_class_of_ones_own_is_checked_too():
    @dataclasses.dataclass(frozen=True)
    class Mine(methods.Method[torch.Tensor]):
        inner: Count = 2
        share: Share = 0.5
        rule: Literal["one", "other"] = "one"
        free: object = None

        def step(self, post, state, sigma, s, rng):
            return post.prior.denoise(state, sigma), {}

    assert Mine(free="anything").free == "anything"
    with pytest.raises(ValueError, match=r"Mine.rule is 'anther'; did you mean 'other'"):
        Mine(rule="anther")
    with pytest.raises(ValueError, match=r"Mine.inner: expected a number >= 1"):
        Mine(inner=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'iner'"):
        Mine(iner=3)


def test_signatures_are_those_of_the_constructors():
    assert list(inspect.signature(methods.DPS).parameters) == ["weighting", "scale", "transition"]
    assert list(inspect.signature(po.operators.Blur).parameters)[:2] == ["kernel", "shape"]
    assert isinstance(methods.DPS, Checked)
