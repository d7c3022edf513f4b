"""What a run says of its samples, and that a folder gives back what was put into it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from reference import F64

from posteriori.run import Run, Status


def made(samples, weights=None):
    n = len(samples)
    log_w = torch.zeros(n, dtype=F64) if weights is None else torch.tensor(weights, dtype=F64).log()
    status = (*[Status() for _ in range(n)], Status("diverged", 3, "too large"))
    trace = {"ess": torch.rand(4, n + 1, dtype=F64, generator=torch.Generator().manual_seed(0))}
    extras = {"measurement": torch.rand(2, 3, generator=torch.Generator().manual_seed(1))}
    return Run(
        samples,
        log_w,
        -1.25,
        status,
        {"denoiser": 7, "vjp": 0.5},
        trace,
        2.5,
        {"method": "Made"},
        ("key2020",),
        extras,
    )


def test_mean_and_spread_are_weighted_and_unbiased():
    x = torch.tensor([[1.0, 5.0], [2.0, 1.0], [4.0, 0.0]], dtype=F64)
    plain = made(x)
    torch.testing.assert_close(plain.mean, x.mean(0))
    torch.testing.assert_close(plain.std, x.std(0))
    w = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
    weighted = made(x, [5.0, 3.0, 2.0])
    mean = w @ x
    torch.testing.assert_close(weighted.mean, mean)
    torch.testing.assert_close(
        weighted.std, (w @ (x - mean).square() / (1 - w.square().sum())).sqrt()
    )
    assert not bool(made(x[:1]).std.any())


def test_the_spread_of_complex_samples_is_that_of_both_parts():
    z = torch.randn(5, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(z).std, (z.real.var(0) + z.imag.var(0)).sqrt())


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_a_folder_gives_back_the_run(tmp_path, dtype):
    run = made(
        torch.randn(3, 2, 4, dtype=dtype, generator=torch.Generator().manual_seed(2)),
        [1.0, 2.0, 3.0],
    )
    run.save(tmp_path)
    back = Run.load(tmp_path)
    for name in ("samples", "log_w"):
        assert getattr(back, name).dtype == getattr(run, name).dtype
        assert torch.equal(getattr(back, name), getattr(run, name))
    for name in ("trace", "extras"):
        assert getattr(back, name).keys() == getattr(run, name).keys()
        assert all(
            torch.equal(value, getattr(run, name)[key])
            for key, value in getattr(back, name).items()
        )
    for name in ("log_evidence", "status", "counts", "seconds", "config", "references"):
        assert getattr(back, name) == getattr(run, name)


def test_a_run_gives_the_bibtex_of_its_papers_and_names_a_key_that_it_does_not_know():
    run = made(torch.zeros(1, 4))
    known = dataclasses.replace(run, references=("chung2023dps", "mine2030"))
    first, second = known.bibtex().split("\n")
    assert first.startswith("@article{chung2023dps,")
    assert first.count("{") == first.count("}")
    assert second == "% mine2030: not among the library's references"
