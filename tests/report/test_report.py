"""The page and the table."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from cases import bed, complex_picture, picture
from PIL import Image

import posteriori as po
from posteriori import report
from posteriori.measurements import pictures
from posteriori.report import figures, files, words
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
    assert ("<script" in text) == (make is picture)
    assert "chi2" in text
    assert torch.equal(
        Run.load(tmp_path / "a").samples, po.sample(post, po.methods.MMPS(), n=3, steps=4).samples
    )


def test_a_page_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run in"):
        report.page(tmp_path)


def test_the_table_shows_a_dash_for_what_is_not_known():
    text = report.table(
        [
            {
                "method": "MMPS",
                "psnr_mean": 30.123,
                "counts": {"denoiser": 20, "vjp": 40},
                "seconds": 1.0,
            }
        ]
    )
    row = text.splitlines()[2]
    assert "30.12" in row
    assert " 20 " in row
    assert " - " in row
    assert len({len(line) for line in text.splitlines()}) == 1


def test_the_colour_scale_gets_lighter():
    from posteriori.measurements.pictures import ANCHORS

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
    shown = dict(
        zip(
            HEADINGS,
            cells(record | {"method": "MMPS", "counts": {"denoiser": 7, "vjp": 8}}),
            strict=True,
        )
    )
    assert shown.pop("Method") == "MMPS"
    assert shown.pop("In 80 %") == "10%"
    assert {head: float(text) for head, text in shown.items()} == {
        "PSNR mean, dB": 1, "PSNR one, dB": 2, "SSIM mean": 3, "SSIM one": 4,
        "chi2": 5, "Spread": 6, "Denoiser": 7, "VJP": 8, "Seconds": 9,
    }  # fmt: skip


def test_a_map_is_the_root_mean_square_over_channels():
    from posteriori.measurements.pictures import channel_rms as _flat

    image = torch.tensor([3.0, -4.0, 0.0]).view(3, 1, 1).expand(3, 2, 5)
    torch.testing.assert_close(_flat(image), torch.full((2, 5), (25 / 3) ** 0.5))
    assert torch.equal(_flat(-image[0]), image[0])


def test_the_residual_on_a_page_is_in_standard_deviations_of_the_noise(tmp_path):
    post = picture()
    run = po.sample(post, po.methods.DiffPIR(), n=2, steps=4)
    report.save(run, post, tmp_path, reference=run.mean, baseline=2 * run.mean)
    extras = Run.load(tmp_path).extras
    seen = post.given.A.layout(
        (post.given.y - post.given.A(run.samples[:1])[0]).abs() / post.given.std
    )
    torch.testing.assert_close(extras["residual"], seen, equal_nan=True)
    assert torch.equal(extras["reference"], run.mean)
    assert torch.equal(extras["baseline"], 2 * run.mean)
    torch.testing.assert_close(
        extras["measurement"].nan_to_num(0), post.given.A.adjoint(post.given.y[None])[0]
    )
    assert int(extras["measurement"].isnan().sum()) == 12 - len(post.given.y)


def blurred(n=3, folder=None, **given):
    """A coloured picture of 24 x 20 pixels by a Gaussian prior."""
    shape = (3, 24, 20)
    x = torch.linspace(0, 1, 24).view(1, 24, 1).expand(shape).contiguous()
    prior = po.priors.Gaussian(torch.full(shape, 0.5), 0.05, range=(0, 1))
    A = po.operators.Blur(po.operators.gaussian_kernel(1.0, 3), shape, boundary="valid")
    y = A(x[None])[0] + 0.05 * torch.randn(3, 22, 18, generator=torch.Generator().manual_seed(0))
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.05), range=(0, 1)))
    return post, x, po.sample(post, po.methods.DiffPIR(), n=n, steps=5, folder=folder)


def words_of(page):
    text = re.sub(
        r"<style.*?</style>|<details.*?</details>|<figure.*?</figure>",
        "",
        page.read_text(),
        flags=re.S,
    )
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


def test_a_run_saved_by_sample_has_a_table_and_its_measurement(tmp_path, monkeypatch, capsys):
    post, x, run = blurred(folder=tmp_path)
    assert not (tmp_path / "problem.json").exists()
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["chi2_samples"] == pytest.approx(po.evaluation.summary(run, post)["chi2_samples"])
    page = report.page(tmp_path)
    assert f"<td>{record['chi2_samples']:.2f}</td>" in page.read_text()
    for name in ("Measurement", "Mean", "Standard deviation", "Sample 0", "Sample 2", "Residual"):
        assert f'alt="{name}"' in page.read_text()
    assert 'alt="Reference"' not in page.read_text()
    # The true image may be given later, from Python or from a file.
    known = report.page(tmp_path, tmp_path / "known.html", x)
    expected = po.evaluation.summary(run, post, x)
    assert f"<td>{expected['psnr_mean']:.2f}</td>" in known.read_text()
    assert 'alt="Reference"' in known.read_text()
    np.save(tmp_path / "truth.npy", x.numpy())
    with pytest.raises(ValueError, match="reference has shape"):
        report.page(tmp_path, tmp_path / "bad.html", x[:1])
    from posteriori.cli import main

    monkeypatch.setattr("sys.argv", ["posteriori"])
    with pytest.raises(SystemExit):
        main(
            [
                "report",
                str(tmp_path),
                "--reference",
                str(tmp_path / "truth.npy"),
                "--out",
                str(tmp_path / "cli.html"),
            ]
        )
    assert capsys.readouterr().out.strip() == str(tmp_path / "cli.html")
    assert (tmp_path / "cli.html").read_text() == known.read_text()


def test_a_folder_without_a_summary_still_has_a_row(tmp_path):
    blurred(folder=tmp_path)
    (tmp_path / "summary.json").unlink()
    text = report.page(tmp_path).read_text()
    assert "<td>DiffPIR</td>" in text
    assert "nothing is known of how they fit" not in text or "before fits were kept" in text


def test_what_report_save_knows_is_not_forgotten_by_a_resumed_run(tmp_path):
    post, x, run = blurred(folder=tmp_path)
    full = report.save(run, post, tmp_path, x)
    po.sample(post, po.methods.DiffPIR(), n=3, steps=5, folder=tmp_path, resume=True)
    assert json.loads((tmp_path / "summary.json").read_text())["psnr_mean"] == full["psnr_mean"]


def test_a_page_begins_with_what_was_solved_and_how_far_to_trust_it(tmp_path):
    post, _, run = blurred(folder=tmp_path)
    said = words_of(report.page(tmp_path))
    assert (
        "DiffPIR drew 3 samples of shape 3 x 24 x 20 "
        "that could have made a measurement of shape 3 x 22 x 18"
    ) in said
    assert "no check found anything wrong" in said
    far = po.Posterior(post.prior, replace(post.given, noise=po.noise.Gaussian(0.01)))
    report.save(run, far, tmp_path / "far")
    said = words_of(report.page(tmp_path / "far"))
    assert "do not fit it as its noise allows" in said
    assert "1 check found something, see below" in said
    assert "times the stated noise" in said


def test_intervals_in_words_hold_the_share_of_pixels_that_they_say():
    _, _, run = blurred()
    # Student's law, two degrees of freedom, 80 %
    wide = run.std.square().mean(0).sqrt().double() * 1.8856 * (4 / 3) ** 0.5
    half, most = (float(np.quantile(wide.numpy(), q)) for q in (0.5, 0.95))
    assert (
        f"half of the pixels are known to within ±{half:.2g} (black to white is 1), "
        f"and 95 % to within ±{most:.2g}"
    ) in words.known(run)
    assert words.known(replace(run, samples=run.samples[:1], log_w=run.log_w[:1])).startswith(
        "One sample says nothing"
    )
    assert words.known(replace(run, samples=run.samples.flatten(1))) == ""


def test_the_least_sure_pixels_are_found():
    _, _, run = blurred()
    mean = torch.zeros(1, 30, 30)
    corner, line = torch.zeros(30, 30), torch.zeros(1, 30, 30)
    corner[20:, 20:] = torch.rand(10, 10, generator=torch.Generator().manual_seed(0))
    assert words.where_it_misses(run, corner, mean) == "mostly in the lower right of the picture"
    line[..., 15:] = 1.0
    edge = torch.zeros(30, 30)
    edge[:, 14:16] = 1 + torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    edge[:, 15] += 1
    assert words.where_it_misses(run, edge, line) in (
        "mostly on edges of the mean",
        "mostly in the centre of the picture",
    )
    hidden = torch.zeros(1, 30, 30)
    hidden[0, :, :6] = float("nan")
    unseen = replace(run, extras={"measurement": hidden})
    assert (
        words.where_it_misses(unseen, hidden[0].isnan().double() * (1 + torch.rand(30, 30)), mean)
        == "where nothing was measured"
    )


def test_measurements_are_shown_in_their_own_scale(tmp_path):
    shape = (1, 16, 16)
    prior = po.priors.Gaussian(torch.full(shape, 0.5), 0.05, range=(0, 1))
    A = po.operators.Radon(shape, [10.0 * k for k in range(9)], 1.0)
    y = A(torch.full((1, *shape), 0.5))[0]
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.5), range=(0, 1)))
    run = po.sample(post, po.methods.MMPS(), n=2, steps=3, folder=tmp_path / "ct")
    (measured,) = figures.measured_figures(Run.load(tmp_path / "ct"))
    assert (
        f"in its own unit; {y.shape[1]} x {y.shape[2]}, values 0 to {float(y.max()):.3g}"
        in measured
    )
    assert f"<span>{float(y.max()):.3g}</span>" in measured
    post = complex_picture()
    run = po.sample(post, po.methods.MMPS(), n=2, steps=3, folder=tmp_path / "mri")
    kspace, back = figures.measured_figures(run)
    assert "log10 of its magnitude" in kspace
    assert 'alt="Back-projection"' in back
    seen = run.extras["kspace"]
    assert seen.shape == post.shape
    whole = post.given.A.fill(post.given.y)
    torch.testing.assert_close(seen.nan_to_num(0), whole.abs().square().sum(0).sqrt())
    # A picture of the scene keeps the scale of the images, however noisy, and a valid blur its
    # place in the frame.
    _, _, run = blurred(folder=tmp_path / "blur")
    (measured,) = figures.measured_figures(run)
    assert "own unit" not in measured
    assert "22 x 18" in measured
    pixels = np.asarray(decoded(measured))
    assert pixels.shape == (24, 20, 3)
    assert (pixels[0] == pictures.EMPTY_COLOUR).all()
    assert not (pixels[1:-1, 1:-1] == pictures.EMPTY_COLOUR).all(-1).any()


def decoded(figure):
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", figure)[1])))


def test_pictures_enlarge_without_a_script(tmp_path):
    blurred(folder=tmp_path)
    text = report.page(tmp_path).read_text()
    assert text.count('<input type="checkbox" aria-label="enlarge: ') == text.count("<img ") == 7
    assert ".zoom input:checked + img { position:fixed" in text
    assert re.findall(r"(?:src|href)=\"(?!data:)", text) == []


@pytest.mark.parametrize(
    ("suffix", "bits", "white"),
    [(".png", 16, None), (".tif", 16, None), (".png", 16, 4095.0), (".png", 8, None)],
)
def test_numbers_in_picture_files_mean_what_they_mean_in_the_measurement(
    tmp_path, suffix, bits, white
):
    _, _, run = blurred()
    run = replace(run, samples=run.samples.clamp(0, 1))
    top = white or 2**bits - 1
    po.measurements.write_image(
        tmp_path / f"y{suffix}", torch.rand(3, 24, 20), range=(0, (2**bits - 1) / top), bits=bits
    )
    depth = po.measurements.depth(tmp_path / f"y{suffix}", white=white)
    assert depth.bits == bits
    files.write(run, tmp_path, depth)
    back, info = po.measurements.read_image(tmp_path / "mean.png", white=white)
    assert info.stored == f"uint{bits}"
    torch.testing.assert_close(back, run.mean, rtol=0, atol=0.51 / top)
    again, _ = po.measurements.read_image(tmp_path / "sample-002.png", white=white)
    torch.testing.assert_close(again, run.samples[2], rtol=0, atol=0.51 / top)


def test_depth_is_that_of_the_file(tmp_path):
    np.save(tmp_path / "y.npy", np.zeros((4, 4), np.float32))
    assert po.measurements.depth(tmp_path / "y.npy").bits == 16
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "y.jpg")
    assert po.measurements.depth(tmp_path / "y.jpg") == po.measurements.Depth()
    assert po.measurements.depth(tmp_path / "y.jpg", unit=0.5).ends(0, 1) == (0.0, 127.5)
    with pytest.raises(FileNotFoundError, match="no such file"):
        po.measurements.depth(tmp_path / "none.png")


def test_the_standard_deviation_is_written_with_its_scale(tmp_path):
    _, _, run = blurred()
    (said,) = files.write(run, tmp_path)[-1:]
    spread = run.std.square().mean(0).sqrt()
    assert said.startswith(
        f"std.png: the scale ends at {float(np.quantile(spread.double().numpy(), 0.995)):.3g}"
    )
    picture = Image.open(tmp_path / "std.png")
    assert picture.size == (200, 240 + 36)  # every pixel ten times as large, and the bar


def test_a_notebook_shows_small_pictures_and_text_for_what_is_none():
    _, _, run = blurred()
    shown = run._repr_html_()
    assert shown.count("<img ") == 5
    assert "DiffPIR: 3 samples" in shown
    large = replace(
        run, samples=torch.rand(3, 3, 700, 500, generator=torch.Generator().manual_seed(0))
    )
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(part))).size
        for part in re.findall(r"base64,([^\"]+)", large._repr_html_())
    ]
    assert max(max(size) for size in sizes) <= 128
    assert len(large._repr_html_()) < 400_000
    vector = replace(run, samples=run.samples.flatten(1))
    assert "<img" not in vector._repr_html_()
    assert "3 samples of shape" in vector._repr_html_()
    assert "<img" in po.sample(complex_picture(), po.methods.MMPS(), n=2, steps=2)._repr_html_()


@pytest.mark.parametrize("name", ["Mask", "MaskedFourier", "MultiCoilFourier"])
def test_a_measurement_lies_where_it_was_taken(name):
    """What lies where something was measured is y, in the order of y; the rest is NaN; A @ B lies
    as A."""
    post = complex_picture() if name == "MultiCoilFourier" else picture()
    A, y = post.given.A, post.given.y
    if name == "MaskedFourier":
        A, y = A_fourier(), torch.arange(1.0, 13.0).to(torch.complex64)
    lies = A.layout(y)
    whole = A.adjoint(y[None])[0] if name == "Mask" else A.fill(y)
    torch.testing.assert_close(torch.where(lies.isnan(), 0, lies), whole)
    assert int((~lies.isnan()).sum()) == y.numel()
    if name == "Mask":
        torch.testing.assert_close(po.operators.Scaled(A, 2.0).layout(y), lies, equal_nan=True)
        torch.testing.assert_close(
            po.operators.Weighted(A, torch.ones_like(y)).layout(y), lies, equal_nan=True
        )
        volume = po.operators.Slicewise(A, 2).layout(torch.stack([y, y]))
        torch.testing.assert_close(volume, torch.stack([lies, lies]), equal_nan=True)
        torch.testing.assert_close(po.operators.Transmission(A).layout(y), lies, equal_nan=True)
    twice = A @ po.operators.Identity(A.in_shape) if name == "Mask" else A
    torch.testing.assert_close(twice.layout(y), lies, equal_nan=True)


def A_fourier():
    return po.operators.MaskedFourier(po.operators.random_mask((6, 4), 0.5, 0), (6, 4))
