"""Published settings bring the number and the place of their paper's noise levels, and say when
they are used otherwise."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
from cases import bed
from reference import F64

import posteriori as po
from posteriori import grid, problem_file
from posteriori.diagnostics import RunWarning
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods import ALL, DAPS, DDIM, DDRM, DPS, FPS, MMPS, FreeDoM, MCGDiff, courses
from posteriori.methods.courses import changed, course_of
from posteriori.methods.data_steps import gaussian_draws
from posteriori.noise import Gaussian
from posteriori.operators import Dense
from posteriori.priors import Gaussian as GaussianPrior
from posteriori.rng import Streams

PRESETS = {
    f"{cls.__name__}.{name}": getattr(cls, name)
    for cls in ALL.values()
    for name in dir(cls)
    if name.startswith("published")
}
# Of the papers and their codes.
STEPS = {
    **{
        f"{n}.published": 1000
        for n in ("DPS", "MCG", "TMPD", "DMPS", "ScoreSDE", "REDDiff", "FPS", "ILVR")
    },
    **{
        f"{n}.published": 100
        for n in ("DDNM", "DSG", "DiffPIR", "TDS", "FreeDoM", "PnPDM", "SMCDiff", "MCGDiff")
    },
    **{
        "DDRM.published": 20,
        "PiGDM.published": 20,
        "DDS.published": 50,
        "SITCOM.published": 20,
        "MGPS.published": 300,
        "DAPS.published": 200,
    },
    **{
        "ReSample.published": 500,
        "RePaint.published": 250,
        "SNIPS.published": 500,
        "DCDP.published": 10,
        "DCPnPDP.published": 50,
        "Peng.published": 50,
    },
}


def preset(name):
    return PRESETS[name](1.0) if name == "FreeDoM.published_faces" else PRESETS[name]()


def colours(sigma_max=20.0):
    """A prior of images in [-1, 1] that was trained up to a level of 20."""
    prior = GaussianPrior(torch.zeros(1, 3, 4, dtype=F64), 0.5, range=(-1, 1))
    prior.sigma_max = sigma_max
    return prior


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_published_setting_states_its_steps_and_its_grid(name):
    method = preset(name)
    course = course_of(method)
    assert course is not None, (
        f"{name} has no course: @course(steps, grid) above it says what its paper ran along"
    )
    assert course.steps == STEPS.get(name, course.steps)
    assert 1 <= course.fewest <= course.steps
    assert str(course.steps) in PRESETS[name].__doc__, "help() of the preset says the number"
    if course.grid is None:
        assert type(method).levels is not po.methods.Method.levels, (
            "a method without a grid chooses its levels itself"
        )
        return
    post = Posterior(
        colours(),
        Likelihood(
            torch.zeros(12, dtype=F64),
            Dense(torch.eye(12, dtype=F64), (1, 3, 4)),
            Gaussian(0.1),
            range=(-1, 1),
        ),
    )
    for steps in (course.steps, course.fewest, 1, 7):
        levels = course.levels(post, steps)
        assert levels.shape == (steps + 1,)
        assert levels.dtype == F64
        assert bool((levels.diff() < 0).all())
        assert float(levels[-1]) == 0
        top = float(post.prior.know().ladder()[-1])
        assert float(levels[0]) <= max(20.0, top) * (1 + 1e-6), (
            "no level lies beyond what the prior knows"
        )
    with pytest.raises(ValueError, match="steps must be an integer >= 1, got 0"):
        course.levels(post, 0)


def test_a_published_setting_runs_along_its_papers_levels_unless_told_otherwise():
    post = bed("general")
    run = po.sample(post, DDRM.published(), seed=1)
    expected = grid.make(
        "ddpm", 20, post.prior.sigma_max, post.prior.sigma_min, post.prior.know().ladder
    )
    assert run.config["steps"] == 20
    assert run.config["levels"] == expected.tolist()
    assert po.sample(post, DDRM()).config["steps"] == 100, (
        "any other setting has the library's number"
    )
    explicit = po.sample(post, DDRM.published(), grid="karras", steps=5)
    assert (
        explicit.config["levels"]
        == grid.karras(5, post.prior.sigma_max, post.prior.sigma_min).tolist()
    )
    assert post.plan(DDRM.published()).steps == 20


def test_the_levels_are_those_of_the_papers():
    prior = colours(200.0)
    post = Posterior(
        prior,
        Likelihood(
            torch.zeros(12, dtype=F64),
            Dense(torch.eye(12, dtype=F64), (1, 3, 4)),
            Gaussian(0.1),
            range=(-1, 1),
        ),
    )
    daps = DAPS.published().levels(post, 200)
    ramp = 100 ** (1 / 7) + torch.arange(200, dtype=F64) / 200 * (0.1 ** (1 / 7) - 100 ** (1 / 7))
    assert daps[:-1] == pytest.approx((ramp**7).tolist(), rel=1e-12), (
        "201 levels from 100 to 0.1, the last dropped"
    )
    dcdp = po.methods.DCDP.published().levels(post, 10)
    ddpm = ((torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64), 0) ** -1) - 1).sqrt()
    assert dcdp[:-1] == pytest.approx(
        [float(ddpm[max(round(400 * k / 9), 1) - 1]) for k in range(9, -1, -1)], rel=0.04
    )
    diffpir = po.methods.DiffPIR.published().levels(post, 100)
    times = (1000 - (torch.linspace(0, 1, 100, dtype=F64) * 1000**2).sqrt()).clamp(1, 1000)
    assert diffpir[:-1] == pytest.approx([float(ddpm[int(t) - 1]) for t in times], rel=0.15)
    snips = po.methods.SNIPS.published().levels(post, 500)
    assert (float(snips[0]), float(snips[-2])) == pytest.approx((180.0, 0.02)), (
        "90 and 0.01 of images in [0, 1], here in [-1, 1]"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 5}, "meant for 20 steps, grid 'ddpm'; with 5 steps it is not the paper's"),
        ({"grid": "karras"}, "with 20 steps of grid 'karras'"),
        ({"grid": grid.karras(20, 80.0, 0.002)}, "with 20 steps of other levels"),
        ({"steps": 5, "grid": "ddpm"}, "with 5 steps it is"),
        ({}, None),
        ({"steps": 40}, None),
        ({"grid": "ddpm"}, None),
    ],
)
def test_leaving_the_papers_levels_is_said_once(settings, words):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        po.sample(bed("general"), DDRM.published(), seed=0, n=2, **settings)
    said = [
        str(w.message)
        for w in caught
        if issubclass(w.category, RunWarning) and "published setting" in str(w.message)
    ]
    assert len(said) == (words is not None)
    assert words is None or words in said[0]
    notes = " ".join(bed("general").plan(DDRM.published(), **settings).notes)
    assert ("published setting" in notes) == (words is not None), "the plan says it before the run"


def test_a_range_of_steps_is_heeded():
    course = course_of(MMPS.published())
    assert (course.fewest, course.steps) == (64, 256)
    about = courses.course_record(MMPS.published())
    assert courses.off_course(about, 64, "the method's own") is None
    assert "64 to 256 steps" in str(courses.off_course(about, 63, "the method's own"))


def test_a_course_is_no_hyper_parameter():
    mine = DPS("norm", 0.3, DDIM(eta=1.0))
    assert DPS.published() == mine
    assert course_of(mine) is None
    assert po.methods.base.method_settings(DPS.published()) == po.methods.base.method_settings(mine)
    assert (
        course_of(changed(DPS.published(), scale=1.0))
        == course_of(DPS.published(1.0))
        == course_of(DPS.published())
    )
    assert course_of(dataclasses.replace(DPS.published(), scale=1.0)) is None
    assert course_of(FreeDoM.published_faces(1.0)).steps == 100


def test_methods_that_choose_their_levels_still_do():
    post = bed("general")
    assert torch.equal(MCGDiff.published().levels(post, 9), MCGDiff().levels(post, 9))
    assert torch.equal(
        FPS.published().levels(post, 9),
        grid.make("ddpm", 9, post.prior.sigma_max, post.prior.sigma_min, post.prior.know().ladder),
    )


def test_a_problem_file_takes_the_papers_steps(tmp_path):
    text = (
        "prior: {gaussian: {mean: 0.5, std: 0.2, shape: [1, 8, 8]}}\n"
        "operator: {name: blur, std: 1, boundary: circular}\n"
        "noise: {law: gaussian, sigma: 0.05, range: [0, 1]}\nmeasurement: {file: y.npy}\n"
    )
    import numpy as np

    np.save(tmp_path / "y.npy", np.full((1, 8, 8), 0.5, dtype=np.float32))
    for method, more, steps in (
        ("{name: DPS, preset: published}", "", 1000),
        ("{name: DPS, preset: published, scale: 1}", "", 1000),
        ("{name: DPS, preset: published}", "steps: 7\n", 7),
        ("DPS", "", 32),
    ):
        (tmp_path / "p.yaml").write_text(text + f"method: {method}\n{more}")
        task = problem_file.load(tmp_path / "p.yaml").build()
        assert task.settings["steps"] == steps
        assert (course_of(task.method) is None) == (method == "DPS")


# DAPS


class Silent:
    """No noise: what is left of a chain is its mean."""

    def normal(self, like):
        return torch.zeros_like(like)


@pytest.mark.parametrize("edges", [(-1.0, 1.0), (0.0, 1.0)])
def test_the_chain_of_daps_is_the_papers(edges):
    """x' = x + h ((m - x) / sigma^2 + 2 / tau^2 A^T (y - A x)) in [-1, 1]: from rate at sigma = 100
    to a hundredth at 0.1."""
    half = (edges[1] - edges[0]) / 2
    A = torch.tensor([[0.5, 0.2], [0.0, 0.3], [0.1, 0.4]], dtype=F64)
    y = torch.tensor([0.3, -0.2, 0.5], dtype=F64)
    m = torch.tensor([[0.2, -0.4], [1.0, 0.3]], dtype=F64)
    prior = GaussianPrior(torch.zeros(2, dtype=F64), 0.5, range=edges)
    post = Posterior(prior, Likelihood(half * y, Dense(A), Gaussian(0.7), range=edges))
    for sigma, h in (
        (100.0, 1e-4),
        (0.1, 1e-6),
        (((100 ** (1 / 7) + 0.1 ** (1 / 7)) / 2) ** 7, 0.505e-4),
    ):
        x = m
        for _ in range(30):
            x = x + h * ((m - x) / sigma**2 + 2 / 0.01**2 * (y - x @ A.T) @ A)
        ours = gaussian_draws.annealed(
            post, half * m, torch.tensor(half * sigma, dtype=F64), 1e-4, 30, Silent()
        )
        assert torch.allclose(ours, half * x, rtol=1e-9, atol=1e-12)


def test_the_noise_of_the_chain_is_that_of_its_step():
    """A flat likelihood at sigma = 100: 40 steps leave m with a variance of 2 h 40; 4 standard
    errors of 20 000 numbers."""
    prior = GaussianPrior(torch.zeros(200, dtype=F64), 0.5, range=(-1, 1))
    post = Posterior(
        prior,
        Likelihood(
            torch.zeros(1, dtype=F64),
            Dense(torch.zeros(1, 200, dtype=F64)),
            Gaussian(1.0),
            range=(-1, 1),
        ),
    )
    x = gaussian_draws.annealed(
        post,
        torch.zeros(100, 200, dtype=F64),
        torch.tensor(100.0, dtype=F64),
        1e-4,
        40,
        Streams(0, range(100)),
    )
    assert float(x.square().mean()) == pytest.approx(80e-4, rel=4 * (2 / 20000) ** 0.5)


def test_a_published_daps_restores_what_its_paper_says_it_does():
    """A Gaussian prior of smooth images in [-1, 1]: within 1.6 times the error of the exact
    posterior's samples.

    With the step of the measured curvature and the true noise level, as it once was, the error was
    several times that.
    """
    n = 24
    t = torch.arange(n, dtype=F64)
    prior = GaussianPrior(
        torch.zeros(n, dtype=F64),
        0.3 * (-(t[:, None] - t).abs() / 12).exp() + 1e-3 * torch.eye(n, dtype=F64),
        range=(-1, 1),
    )
    A = torch.exp(-0.5 * ((t[:, None] - t) / 1.5) ** 2)
    A = A / A.sum(1, keepdim=True)
    truth = prior.sample(1, 3)[0]
    law = Gaussian(0.05)
    y = law.sample(truth[None] @ A.T, Streams(5, [0]))[0]
    post = Posterior(prior, Likelihood(y, Dense(A), law, range=(-1, 1)))
    exact = po.evaluation.exact_posterior(post).sample(64, 1)
    ours = po.sample(post, DAPS.published(), n=64, steps=40, seed=0).samples
    rms = [float((x - truth).square().mean().sqrt()) for x in (ours, exact)]
    assert rms[0] < 1.6 * rms[1], rms
