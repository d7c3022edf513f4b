"""A run: its weighted mean and spread, and the folder that holds it."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from reference import F64, draw

import posteriori as po
from posteriori.evaluation import moments, summary
from posteriori.genealogy import genealogy_of
from posteriori.run import Run, Status, read_arrays, write_arrays


def run_of(x, log_w=None, status=None, trace=None, **more):
    log_w = torch.zeros(len(x), dtype=F64) if log_w is None else log_w
    return Run(
        x,
        log_w,
        None,
        status or (Status(),) * len(x),
        {},
        trace or {},
        0.0,
        {"method": "Made", **more},
        (),
    )


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_mean_and_standard_deviation_are_weighted(dtype):
    """mean = sum w x, variance = sum w |x - mean|^2 / (1 - sum w^2), which for equal weights is
    Bessel's n - 1."""
    x = draw(4, 2, 3, dtype=dtype)
    equal = run_of(x)
    torch.testing.assert_close(equal.mean, x.mean(0))
    torch.testing.assert_close(equal.std, ((x - x.mean(0)).abs().square().sum(0) / 3).sqrt())
    w = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)
    weighted = run_of(x, w.log() + 5)
    mean = sum(float(a) * row for a, row in zip(w, x, strict=True))
    square = sum(float(a) * (row - mean).abs().square() for a, row in zip(w, x, strict=True))
    torch.testing.assert_close(weighted.mean, mean)
    torch.testing.assert_close(weighted.std, (square / (1 - 0.3)).sqrt())
    assert float(run_of(x[:1]).std.max()) == 0
    if not x.is_complex():
        centred = (x - mean).flatten(1)
        torch.testing.assert_close(moments(x, w.log())[1], (w[:, None] * centred).T @ centred / 0.7)


def test_the_variance_of_independent_samples_is_unbiased():
    """Of 3 samples of weights 0.2, 0.3, 0.5 the expected variance is the law's, whatever the
    weights."""
    x, log_w = draw(3, 100_000), torch.tensor([0.2, 0.3, 0.5], dtype=F64).log()
    for weights, squares in ((None, 3), (log_w, None)):
        variance = run_of(x, weights).std.square()
        assert float(variance.mean()) == pytest.approx(
            1, abs=5 * float(variance.std()) / math.sqrt(100_000)
        ), squares


def test_a_summary_of_weighted_samples_is_that_of_repeated_ones():
    prior = po.priors.Gaussian(torch.full((1, 12, 12), 0.5, dtype=F64), 0.1, range=(0, 1))
    A = po.operators.Identity((1, 12, 12))
    post = po.Posterior(
        prior, po.Likelihood(prior.sample(1, 0)[0], A, po.noise.Gaussian(0.1), range=(0, 1))
    )
    x, truth = prior.sample(3, 1), prior.sample(1, 2)[0]
    weighted = summary(run_of(x, torch.tensor([1.0, 2.0, 1.0], dtype=F64).log()), post, truth)
    repeated = summary(run_of(x[[0, 1, 1, 2]]), post, truth)
    for name in (
        "chi2_samples",
        "chi2_mean",
        "residual_rms",
        "psnr_sample",
        "psnr_mean",
        "ssim_sample",
        "ssim_mean",
        "rmse_sample",
        "rmse_mean",
    ):
        assert weighted[name] == pytest.approx(repeated[name], rel=1e-9), name
    assert weighted["effective_samples"] == pytest.approx(1 / (0.0625 + 0.25 + 0.0625))


def test_a_folder_holds_every_field_of_a_run(tmp_path):
    status = (Status(), Status("diverged", 3, "use more steps"), Status())
    trace = {"ess": draw(5, 3), "ancestors": torch.arange(15).view(5, 3)}
    extras = {
        "fit": draw(2, 2, dtype=torch.complex64),
        "half": draw(3).bfloat16(),
        "mask": torch.tensor([True, False]),
    }
    x = draw(4, 2, 3, dtype=torch.complex128)
    run = Run(
        x[::2].transpose(1, 2),
        draw(2, seed=1),
        -3.5,
        status,
        {"denoiser": 7, "vjp": 1.5},
        trace,
        2.25,
        {"a": [1, None]},
        ("k",),
        extras,
    )
    run.save(tmp_path)
    again = Run.load(tmp_path)
    for f in fields(Run):
        one, two = getattr(run, f.name), getattr(again, f.name)
        if isinstance(one, torch.Tensor):
            one, two = {"": one}, {"": two}
        if isinstance(one, dict) and one and isinstance(next(iter(one.values())), torch.Tensor):
            assert one.keys() == two.keys(), f.name
            for name, value in one.items():
                assert value.dtype == two[name].dtype, (f.name, name)
                assert torch.equal(value, two[name]), (f.name, name)
        else:
            assert one == two, f.name


def test_arrays_that_share_memory_or_are_views_are_kept_as_they_read(tmp_path):
    x = draw(4, 6)
    given = {
        "whole": x,
        "part": x[1:3, ::2],
        "turned": x.T,
        "again": x,
        "one": x[0, 0],
        "none": x[:0],
        "expanded": x[:1].expand(3, 6),
    }
    write_arrays(tmp_path / "a.safetensors", given, {"note": "kept"})
    arrays, notes = read_arrays(tmp_path / "a.safetensors")
    assert notes == {"note": "kept"}
    assert arrays.keys() == given.keys()
    assert all(torch.equal(arrays[name], value) for name, value in given.items())


def test_a_cloud_cut_short_has_no_more_lines_than_samples():
    """Eight samples of one cloud from two ancestors, two of another from seven: four lines, not
    nine."""
    post = po.Posterior(
        po.priors.Gaussian(torch.zeros(6, dtype=F64), 1.0),
        po.Likelihood(
            torch.zeros(6, dtype=F64), po.operators.Identity((6,)), po.noise.Gaussian(1.0)
        ),
    )
    trace = {"ancestors": torch.tensor([[2.0] * 8 + [7.0] * 2]), "ess": torch.full((1, 10), 0.9)}
    run = run_of(
        draw(10, 6),
        trace=trace,
        settings={"particles": 8, "share": 0.5, "single": False},
        levels=[0.5, 0.0],
    )
    assert genealogy_of(run, post)["ancestors"] == 4
