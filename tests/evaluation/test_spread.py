"""How much of a spread few steps keep, against the affine probe; intervals of Student's law; what a
run says of both."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import bed, complex_picture
from reference import F64

import posteriori as po
from posteriori import evaluation as ev
from posteriori import grid, methods
from posteriori.evaluation.spread import kept_of
from posteriori.methods import DDIM, ConstantFraction, Heun, Midpoint
from posteriori.report.words import spread_in_words as _spread

LEVELS = grid.karras(9, 20.0, 0.05)


@pytest.mark.parametrize(
    "transition", [DDIM(1.0), DDIM(0.0), ConstantFraction(0.3), Heun(), Midpoint()]
)
def test_what_is_kept_is_what_the_probe_finds_on_a_gaussian(transition):
    std = torch.tensor([0.1, 0.7, 3.0], dtype=F64)
    prior = po.priors.Gaussian(torch.zeros(3, dtype=F64), std.square())
    post = po.Posterior(
        prior,
        po.Likelihood(
            torch.zeros(1, dtype=F64),
            po.operators.Dense(torch.zeros(1, 3, dtype=F64)),
            po.noise.Gaussian(1.0),
        ),
    )
    _, covariance = ev.affine_probe(post, methods.Unconditional(transition), 9, LEVELS)
    torch.testing.assert_close(
        ev.share_kept(transition, LEVELS, std),
        covariance.diagonal().sqrt() / std,
        rtol=1e-9,
        atol=0,
    )


def test_of_the_samples_spread_the_axis_behind_it_is_found():
    for transition in (DDIM(1.0), Midpoint()):
        for std in (0.08, 0.3, 2.0):
            share = float(ev.share_kept(transition, LEVELS, torch.tensor([std], dtype=F64)))
            assert kept_of(transition, LEVELS, share * std) == pytest.approx(share, rel=0.01)


def test_many_levels_keep_all_and_few_ancestral_ones_do_not():
    std = torch.tensor([0.5], dtype=F64)
    assert float(ev.share_kept(DDIM(1.0), grid.karras(16, 20.0, 0.002), std)) < 0.8
    assert float(ev.share_kept(Midpoint(), grid.karras(16, 20.0, 0.002), std)) == pytest.approx(
        1, abs=0.02
    )
    assert float(ev.share_kept(DDIM(1.0), grid.karras(2000, 20.0, 0.002), std)) == pytest.approx(
        1, abs=0.01
    )


@pytest.mark.parametrize("n", [2, 4, 9])
def test_students_intervals_hold_their_level_for_any_number_of_gaussian_samples(n):
    g = torch.Generator().manual_seed(n)
    x = torch.randn(n + 1, 40_000, generator=g, dtype=F64)
    inside = ev.student(x[1:].mean(0), x[1:].std(0), n, x[0], 0.8)
    assert inside == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / 40_000))
    assert ev.student(x[1:].mean(0), 0.6 * x[1:].std(0), n, x[0], 0.8) < 0.7


def test_a_run_says_what_its_steps_kept_in_the_users_units():
    post = bed("white")
    truth = post.prior.sample(1, 3)[0]
    for transition, low, high in ((DDIM(1.0), 0.3, 0.8), (Midpoint(), 0.95, 1.1)):
        method = replace(methods.PiGDM(), transition=transition)
        run = po.sample(post, method, n=40, grid=grid.karras(6, 10.0, 0.02), seed=0)
        record = ev.summary(run, post, truth, method)
        assert low < record["kept"] < high
        assert any("transition Midpoint" in flag for flag in record["flags"]) == (
            transition == DDIM(1.0)
        )
        assert 0 <= record["inside_80"] <= 1
        assert record["kept"] == pytest.approx(
            kept_of(transition, torch.tensor(run.config["levels"], dtype=F64), record["spread"]),
            rel=1e-12,
        )
    assert ev.summary(run, post, truth)["kept"] is None
    assert ev.summary(run, post, None, methods.DAPS())["kept"] is None


def test_units_and_parts_of_complex_numbers_do_not_matter():
    prior = po.priors.Gaussian(torch.zeros(1, 4, 4, dtype=F64), 0.3, range=(-1, 1))
    A = po.operators.Identity((1, 4, 4))
    found = []
    for low, high in ((-1, 1), (0, 255)):
        width = (high - low) / 2
        post = po.Posterior(
            prior,
            po.Likelihood(
                torch.full((1, 4, 4), (low + high) / 2, dtype=F64),
                A,
                po.noise.Gaussian(0.2 * width),
                range=(low, high),
            ),
        )
        method = methods.PiGDM(transition=DDIM(1.0))
        run = po.sample(post, method, n=6, steps=8, seed=0)
        found.append(ev.summary(run, post, method=method)["kept"])
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    post = complex_picture()
    run = po.sample(post, methods.Unconditional(), n=6, steps=8, seed=0)
    record = ev.summary(run, post, method=methods.Unconditional())
    spread = record["spread"] / 2**0.5
    assert record["kept"] == pytest.approx(
        kept_of(DDIM(1.0), torch.tensor(run.config["levels"], dtype=F64), spread), rel=1e-12
    )


@pytest.mark.parametrize(
    ("inside", "kept", "said"),
    [
        (0.78, 0.6, "hold 78.0 % of the reference's numbers."),
        (0.66, 0.7, "14 points too few, in part for want of steps."),
        (
            0.66,
            0.98,
            "14 points too few, not for want of steps: "
            "the method's approximation, or the prior, is off there.",
        ),
        (0.66, None, "14 points too few."),
        (0.91, 0.7, "11 points too many, not for want of steps"),
        (0.91, 1.3, "11 points too many, in part for want of steps."),
    ],
)
def test_the_page_says_by_how_much_intervals_miss_and_why(inside, kept, said):
    post, method = bed(), methods.MMPS()
    run = po.sample(post, method, n=4, steps=3)
    record = ev.summary(run, post, post.prior.sample(1, 0)[0], method) | {
        "inside_80": inside,
        "kept": kept,
        "inside_80_room": 0.03,
    }
    text = _spread(run, record)
    assert said in text
    assert ("in these 3 steps a Gaussian as wide keeps" in text) == (kept is not None)
    assert _spread(run, {}) == ""
