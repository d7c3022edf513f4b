"""The page and the table."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from cases import bed, picture

import posteriori as po
from posteriori import report
from posteriori.run import Run


@pytest.mark.parametrize("make", [bed, picture])
def test_a_page_is_one_file_that_needs_nothing_else(tmp_path, make):
    post = make()
    for name, method in (("a", po.methods.MMPS()), ("b", po.methods.DiffPIR())):
        run = po.sample(post, method, n=3, steps=4)
        record = report.save(run, post, tmp_path / name, reference=run.mean)
        assert record["n"] == 3
    page = report.page(tmp_path)
    text = page.read_text()
    assert "MMPS" in text
    assert "DiffPIR" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text
    assert "chi2" in text
    assert torch.equal(Run.load(tmp_path / "a").samples, po.sample(post, po.methods.MMPS(), n=3, steps=4).samples)


def test_a_page_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run in"):
        report.page(tmp_path)


def test_the_table_shows_a_dash_for_what_is_not_known():
    text = report.table([{"method": "MMPS", "psnr_mean": 30.123, "counts": {"denoiser": 20, "vjp": 40}, "seconds": 1.0}])
    row = text.splitlines()[2]
    assert "30.12" in row
    assert " 20 " in row
    assert " - " in row
    assert len({len(line) for line in text.splitlines()}) == 1


def test_the_colour_scale_gets_lighter():
    from posteriori.report.colour import ANCHORS

    lightness = ANCHORS @ [0.2126, 0.7152, 0.0722]
    assert all(b > a for a, b in pairwise(lightness))


def test_every_number_of_the_table_stands_under_its_heading():
    from posteriori.report.table import HEADINGS, cells

    record = {
        "psnr_mean": 1,
        "psnr_sample": 2,
        "ssim_mean": 3,
        "ssim_sample": 4,
        "chi2_samples": 5,
        "spread": 6,
        "seconds": 9,
        "inside_80": 0.1,
    }
    shown = dict(zip(HEADINGS, cells(record | {"method": "MMPS", "counts": {"denoiser": 7, "vjp": 8}}), strict=True))
    assert shown.pop("Method") == "MMPS"
    assert shown.pop("In 80 %") == "10%"
    assert {head: float(text) for head, text in shown.items()} == {
        "PSNR mean, dB": 1, "PSNR one, dB": 2, "SSIM mean": 3, "SSIM one": 4, "chi2": 5, "Spread": 6, "Denoiser": 7, "VJP": 8, "Seconds": 9,
    }  # fmt: skip


def test_a_map_is_the_root_mean_square_over_channels():
    from posteriori.report.page import _flat

    image = torch.tensor([3.0, -4.0, 0.0]).view(3, 1, 1).expand(3, 2, 5)
    torch.testing.assert_close(_flat(image), torch.full((2, 5), (25 / 3) ** 0.5))
    assert torch.equal(_flat(-image[0]), image[0])


def test_the_residual_on_a_page_is_in_standard_deviations_of_the_noise(tmp_path):
    post = picture()
    run = po.sample(post, po.methods.DiffPIR(), n=2, steps=4)
    report.save(run, post, tmp_path, reference=run.mean, baseline=2 * run.mean)
    extras = Run.load(tmp_path).extras
    torch.testing.assert_close(extras["residual"], (post.given.y - post.given.A(run.samples[:1])[0]).abs() / post.given.std)
    assert torch.equal(extras["reference"], run.mean)
    assert torch.equal(extras["baseline"], 2 * run.mean)
    torch.testing.assert_close(extras["measurement"], post.given.A.adjoint(post.given.y[None])[0])
