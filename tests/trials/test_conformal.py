"""Scaled intervals: their finite-sample statement, exactly, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from reference import draw

import posteriori as po
from posteriori.conformal import KEPT_RATIOS, Conformal, ratios_of, spread_of

F64 = torch.float64


def table(count, kept, seed=0):
    """Ratios of images that differ much: some of them ten times as far out as others."""
    g = torch.Generator().manual_seed(seed)
    scale = torch.randn(count, 1, generator=g, dtype=F64).exp()
    return (scale * torch.randn(count, kept, generator=g, dtype=F64).abs()).sort(1).values


def left_out(ratios, level, images=None):
    """The share inside of each image, scaled by the others."""
    out = []
    for j in range(len(ratios)):
        others = Conformal(torch.cat([ratios[:j], ratios[j + 1 :]]), {})
        out.append((ratios[j] <= others.factor(level, images)).double().mean())
    return torch.stack(out)


@pytest.mark.parametrize(("count", "kept"), [(10, 1), (11, 7), (20, 500), (31, 64)])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_on_average_over_which_image_is_the_further_one_the_share_keeps_its_bounds(
    count, kept, level
):
    """Of exchangeable images each is the further one with equal probability, given what they are:
    the mean over them is the expectation, without Monte Carlo."""
    ratios = table(count, kept)
    share = float(left_out(ratios, level).mean())
    # count - 1 images were calibrated
    assert level - 1e-12 <= share <= level + Conformal(ratios[1:], {}).bound() + 1e-12


@pytest.mark.parametrize(("count", "images"), [(10, 0.8), (11, 0.9), (40, 0.9)])
def test_with_images_so_many_of_them_have_the_level(count, images):
    ratios, level = table(count, 30), 0.9
    enough = (left_out(ratios, level, images) >= level - 1e-12).double().mean()
    assert images - 1e-12 <= float(enough) <= images + 1 / count + 1e-12


def test_of_one_number_an_image_it_is_split_conformal():
    """The ceil(level (N + 1))-th smallest of N."""
    ratios = torch.arange(1.0, 20.0, dtype=F64)[:, None]
    found = Conformal(ratios, {})
    assert [found.factor(level) for level in (0.9, 0.5, 0.95)] == [18.0, 10.0, 19.0]
    assert found.bound() == pytest.approx(2 / 20)
    assert found.bound(images=True) == pytest.approx(1 / 20)


def test_too_few_images_state_nothing_and_how_many_can_is_told():
    found = Conformal(table(8, 20), {})
    with pytest.raises(ValueError, match=r"8 images cannot state level=0.9: 9 can"):
        found.factor(0.9)
    with pytest.raises(ValueError, match=r"images=0.95: 19 can"):
        found.factor(0.5, 0.95)
    assert Conformal(table(9, 20), {}).factor(0.9) > 0
    with pytest.raises(ValueError, match="level must lie strictly between"):
        found.factor(1.0)


def test_kept_ratios_promise_no_more_than_all_of_them():
    truth, mean, std = draw(3, 40, 41), 0.1 * draw(3, 40, 41, seed=1), draw(3, 40, 41, seed=2).abs()
    kept = ratios_of(mean, std, truth)
    every = ((truth - mean).abs() / spread_of(std)).flatten()
    assert len(kept) == KEPT_RATIOS
    for k in (0, 99, 249, 449, 499):
        share = float((every <= kept[k]).double().mean())
        assert (k + 1) / KEPT_RATIOS <= share < (k + 1) / KEPT_RATIOS + 1 / every.numel() + 1e-12
    few = ratios_of(mean[0, :3], std[0, :3], truth[0, :3])
    assert torch.equal(
        few, ((truth - mean).abs()[0, :3] / spread_of(std[0, :3])).flatten().sort()[0]
    )


def test_a_number_on_which_all_samples_agree_is_not_known_for_certain():
    std = torch.tensor([0.0, 1.0], dtype=F64)
    assert float(spread_of(std)[0]) == pytest.approx(0.01 / math.sqrt(2))
    with pytest.raises(ValueError, match="all the same image"):
        spread_of(torch.zeros(3))
    with pytest.raises(ValueError, match="complex"):
        ratios_of(torch.zeros(3), torch.ones(3), torch.zeros(3, dtype=torch.complex64))


@pytest.fixture
def run():
    prior = po.priors.Gaussian(torch.zeros(6, dtype=F64), 1.0)
    A = po.operators.Dense(torch.eye(6, dtype=F64)[:3])
    post = po.Posterior(prior, po.Likelihood(draw(3), A, po.noise.Gaussian(0.3)))
    return post, po.sample(post, po.methods.DPS(), n=4, steps=8)


def test_the_interval_of_a_run_is_its_mean_and_a_multiple_of_its_spread(run, tmp_path):
    post, done = run
    found = po.calibrate(post, po.methods.DPS(), n=4, steps=8, trials=12).conformal
    low, high = done.interval(0.9, calibrated=found)
    room = found.factor(0.9) * spread_of(done.std)
    assert torch.allclose(low, done.mean - room, rtol=0, atol=1e-12)
    assert torch.allclose(high, done.mean + room, rtol=0, atol=1e-12)
    found.save(tmp_path)
    again = done.interval(0.9, calibrated=tmp_path, images=0.9)
    assert float((again[1] - again[0]).min()) > 0
    with pytest.raises(ValueError, match="give calibrated= as well"):
        done.interval(0.5, images=0.9)
    with pytest.raises(FileNotFoundError, match="no calibration"):
        done.interval(0.9, calibrated=tmp_path / "none")


def test_a_run_of_another_kind_is_refused_by_what_differs(run):
    post, done = run
    found = po.calibrate(post, po.methods.DPS(), n=4, steps=8, trials=10).conformal
    for other in (
        po.sample(post, po.methods.DPS(), n=5, steps=8),
        po.sample(post, po.methods.DPS(scale=0.5), n=4, steps=8),
        po.sample(post, po.methods.DPS(), n=4, steps=9),
    ):
        with pytest.raises(ValueError, match="another kind.*(n: 4|settings|steps: 8)"):
            other.interval(0.5, calibrated=found)
    moved = replace(done, config=done.config | {"seed": 5})
    assert moved.interval(0.5, calibrated=found)
