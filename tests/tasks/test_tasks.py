"""The registry of benchmark problems: each by its name, with its parts, its levels and exact
draws."""

from __future__ import annotations

import inspect

import pytest
import torch

from posteriori import tasks
from posteriori.evaluation import exact_posterior
from posteriori.experiments.boards import BOARDS
from posteriori.tasks import beds, bipsda


def test_a_task_is_made_from_its_name_and_settings():
    task = tasks.get("gmm25", d=8, measured=2)
    post = beds.gmm25(8, 2, 0, "original").posterior
    assert task.settings == {"d": 8, "measured": 2, "seed": 0, "schedule": "original"}
    assert torch.equal(task.posterior.likelihood.y, post.likelihood.y)
    assert task.prior is task.posterior.prior
    assert task.operator is task.posterior.likelihood.A
    assert task.noise.std == post.likelihood.noise.std
    again = tasks.get(task.name, **task.settings)
    assert torch.equal(again.posterior.likelihood.y, post.likelihood.y)


@pytest.mark.parametrize("name", [name for name in tasks.TASKS if name != "photographs"])
def test_every_task_draws_from_its_posterior_and_lists_its_levels(name):
    task = tasks.get(name)
    levels = task.levels(5)
    assert float(levels[0]) == pytest.approx(float(task.bed.sigma_max), rel=1e-12)
    assert levels[-2] == pytest.approx(task.bed.sigma_min)
    assert levels[-1] == 0
    x = task.exact(3, seed=1)
    assert x.shape == (3, *task.prior.shape)
    assert torch.equal(x, task.exact(3, seed=1))
    if name != "kernels":  # image and blur together have no closed form
        assert torch.equal(x, exact_posterior(task.posterior).sample(3, 1))
    other = tasks.get(name, seed=1)
    assert not torch.equal(other.posterior.likelihood.y, task.posterior.likelihood.y)


def test_a_task_without_a_closed_form_draws_by_rejection_or_says_so():
    task = tasks.get("bipsda", problem="ct")
    assert torch.equal(task.truth, bipsda.bipsda("ct", 0).truth)
    assert task.exact(2, seed=0).shape == (2, 10)
    photograph = tasks.get("photographs", image="chelsea", problem="box", side=32)
    assert photograph.truth.shape == photograph.posterior.shape == (3, 32, 32)
    assert photograph.noise.std == 0.05
    chi2 = float(photograph.posterior.given.chi2(photograph.truth[None]))
    assert abs(chi2 - 1) < 5 * (2 / photograph.posterior.given.y.numel()) ** 0.5
    with pytest.raises(TypeError):
        photograph.exact(2, seed=0)


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("gmm52", {}, ValueError, "unknown task 'gmm52'; did you mean 'gmm25'"),
        ("gmm25", {"dimension": 8}, TypeError, "gmm25 has no setting 'dimension'.*measured"),
        ("gmm25", {"d": 7}, ValueError, "an even d"),
        ("photographs", {"image": "coffee"}, ValueError, "unknown image 'coffee'"),
        ("photographs", {"problem": "blurr"}, ValueError, "did you mean 'blur'"),
    ],
)
def test_what_a_task_does_not_have_is_refused_by_name(name, settings, error, message):
    with pytest.raises(error, match=message):
        tasks.get(name, **settings)


def test_the_docstrings_name_every_task_and_setting():
    about = inspect.getdoc(tasks.get)
    for name, (make, _) in tasks.TASKS.items():
        assert f"{name}: {', '.join(inspect.signature(make).parameters)}" in about
        assert f"{name} " in tasks.registry.__doc__


def test_the_scoreboard_takes_its_problems_from_the_registry():
    assert set(BOARDS) == set(tasks.TASKS) - {"photographs"}
    for name, board in BOARDS.items():
        task = board.make(board.cells[0], 1, board.schedules[0])
        assert (task.name, task.settings["seed"]) == (name, 1)
