"""The mathematics of the study guidance-strength: the published step converted, its prior, the
guidance of the right width."""

from __future__ import annotations

import math

import pytest
import torch

from posteriori.experiments.studies import guidance_strength as study
from posteriori.experiments.studies import guidance_sweep as beds
from posteriori.methods.explicit.dps import DPS


def cell(
    bed="mixture", problem="denoising", weighting="published", guidance=0.3, steps=1000, seed=0
):
    return {
        "bed": bed,
        "problem": problem,
        "weighting": weighting,
        "guidance": guidance,
        "steps": steps,
        "seed": seed,
    }


def test_the_published_step_moves_a_pixel_as_far_on_every_image_size():
    """One step's move of a pixel is rho / sqrt(d) when the residual is the same everywhere: it must
    not depend on the bed."""
    moves = [
        beds.guidance_scale(cell(bed=bed, steps=steps)) * steps / math.sqrt(math.prod(shape))
        for bed, shape in beds.BED_SHAPES.items()
        for steps in (1000, 60)
    ]
    assert moves == pytest.approx([0.3 * 1000 / math.sqrt(256 * 256 * 3)] * 4)
    assert beds.guidance_scale(cell(weighting="bounded", guidance=3.0)) == 3.0


@pytest.mark.parametrize("bed", list(beds.BED_SHAPES))
def test_what_is_printed_is_given_as_it_stands(bed):
    assert beds.guidance_scale(cell(bed=bed, guidance=beds.as_printed(bed))) == pytest.approx(
        DPS.published().scale
    )


def test_the_prior_is_the_one_that_the_page_describes():
    prior = beds.mixture_prior()
    k = torch.arange(8, dtype=torch.float64)
    wave = torch.stack(
        [
            math.sqrt((1 if u == 0 else 2) / 8) * torch.cos(math.pi * u * (k + 0.5) / 8)
            for u in range(8)
        ]
    )
    basis = torch.einsum("ui,vj->uvij", wave, wave).reshape(64, 64)
    spectrum = torch.stack([1 / (1 + u**2 + k**2) for u in k]).flatten()
    coefficients = basis @ prior.covariances[0] @ basis.T
    torch.testing.assert_close(
        coefficients, torch.diag(0.0625 * spectrum / spectrum.mean()), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(
        prior.means[2].view(8, 8), 0.5 * torch.cos(math.pi * (k + 0.5) / 8)[:, None].expand(8, 8)
    )
    torch.testing.assert_close(prior.means.sum(0), torch.zeros(64, dtype=torch.float64))


def test_the_weight_one_is_exact_enough_and_a_tenth_is_not():
    """The claim that the study rests on, for denoising: the derived guidance gives the exact spread
    within a few per cent."""
    exact, one, tenth = (
        beds.sweep_measure(cell(weighting=name, guidance=guidance, steps=100))[0]
        for name, guidance in (("exact", None), ("bounded", 1.0), ("bounded", 0.1))
    )
    assert one["spread"] == pytest.approx(exact["spread"], rel=0.1)
    assert tenth["spread"] > 3 * exact["spread"]
    assert one["distance"] < 3 * exact["distance"]


def rows(spreads, outcome="finished"):
    blank = dict.fromkeys(beds.COLUMNS)
    made = [blank | cell(weighting="exact", guidance=None) | {"spread": 0.1, "outcome": "finished"}]
    return made + [
        blank | cell(guidance=g) | {"spread": s, "outcome": outcome} for g, s in spreads.items()
    ]


def test_the_right_width_is_the_first_crossing_from_weak_guidance():
    width = study.right_width(
        rows({1.0: 0.4, 0.1: 0.8, 4.0: 0.025, 10.0: 0.2, 30.0: 0.01}), "denoising", "published"
    )
    assert width == pytest.approx(2.0)
    assert study.right_width(rows({1.0: 0.4, 3.0: 0.2}), "denoising", "published") is None
    assert (
        study.right_width(rows({1.0: 0.4, 3.0: 0.01}, "astray"), "denoising", "published") is None
    )


def test_lost_samples_are_rows_that_say_so():
    lost = beds.sweep_measure(cell(weighting="bounded", guidance=1e6, steps=20))[0]
    assert lost["outcome"] == "diverged"
    assert lost["lost"] == lost["samples"] == 99
    assert lost["error"] is None
    far = beds.sweep_measure(cell(weighting="bounded", guidance=30.0, steps=8))[0]
    assert far["outcome"] in ("astray", "partly diverged")
    assert far["error"] > 5


def test_lpips_is_measured_where_it_can_be(monkeypatch):
    monkeypatch.setattr(beds, "lpips_missing", lambda: None)
    seen = []
    monkeypatch.setattr(
        beds, "lpips", lambda x, y, limits: seen.append(x.shape) or torch.full((len(x),), 0.5)
    )
    x = torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    out = beds.sweep_scores(x, x[0], None, cell(bed="photograph"))
    assert (out["lpips_one"], out["lpips_pairs"]) == (0.5, 0.5)
    assert seen == [(9, 3, 64, 64)] * 2
