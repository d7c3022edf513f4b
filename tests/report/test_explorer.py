"""The explorer of a page: its numbers, its size, and what it keeps out."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from cases import complex_picture
from pages import noise, run_of, unpacked

import posteriori as po
from posteriori import report
from posteriori.report import explorer, quantised


def test_codes_are_half_a_step_from_the_numbers_and_know_what_is_none():
    x = 1e3 * noise(2, 5, 7)
    x[0, 1, 2] = float("nan")
    for bits in (6, 11, 16):
        scale = quantised.CodeScale.over([x, -x], bits)
        codes = scale.codes(x)
        back = scale.low + scale.step * codes.astype(float)
        away = np.abs(back - x.double().numpy())
        assert (codes == quantised.NOTHING).sum() == 1
        assert codes[0, 1, 2] == quantised.NOTHING
        assert np.nanmax(away) <= scale.step / 2 * (1 + 1e-9)
        printed = np.array([float(f"{v:.{scale.decimals}f}") for v in back.ravel()])
        assert np.nanmax(np.abs(printed - x.double().numpy().ravel())) <= scale.error * (1 + 1e-9)
    constant = quantised.CodeScale.over([torch.ones(3, 3)], 16)
    assert (constant.codes(torch.ones(3, 3)) == 0).all()
    assert constant.low == 1.0


def test_every_number_of_a_run_is_on_its_page_within_what_it_states(tmp_path):
    samples = 0.5 + 0.2 * noise(9, 3, 24, 20)
    weights = noise(9, seed=1).double()
    y = torch.full((3, 22, 18), 0.25)
    extras = {"measurement": y, "reference": samples[0] / 2, "residual": noise(3, 24, 20).abs()}
    run = run_of(samples, log_w=weights, extras=extras)
    run.save(tmp_path)
    ((scene, views),) = unpacked(report.page(tmp_path))
    level = scene["level"]
    assert level == pytest.approx(min(0.8, (run.ess - 1) / (run.ess + 1)))
    low, high = run.interval(level)
    told = f"{100 * level:.0f} % interval"
    expected = {
        "Mean": run.mean, "Reference": extras["reference"], f"{told}, low": low,
        f"{told}, high": high, "Standard deviation": run.std.square().mean(0).sqrt()[None],
        "Residual of sample 0": extras["residual"].square().mean(0).sqrt()[None],
    } | {f"Sample {k}": x for k, x in enumerate(samples)}  # fmt: skip
    assert set(views) == {*expected, "Measurement"}
    scales = {view["name"]: scene["scales"][view["scale"]] for view in scene["views"]}
    for name, x in expected.items():
        away = np.abs(views[name] - x.double().numpy()).max()
        assert away <= scales[name]["step"] / 2 * (1 + 1e-9), name
        assert scales[name]["step"] / 2 < scales[name]["error"] <= scales[name]["step"] * 1.1
    # y of a blur without a boundary lies in the middle of the image's frame.
    seen = views["Measurement"]
    assert seen.shape == (3, 24, 20)
    assert np.isnan(seen).sum() == 3 * (24 * 20 - 22 * 18)
    np.testing.assert_allclose(seen[:, 1:-1, 1:-1], 0.25, atol=scales["Measurement"]["step"] / 2)


def test_a_page_is_as_large_as_it_may_be_and_coarser_or_shorter_where_it_must():
    run = run_of(0.5 + 0.2 * noise(16, 1, 32, 32))
    fine = explorer.explorer([(run, {})], 10**7)
    assert unpacked(fine)[0][0]["bits"] == 16
    room = len("".join(re.findall(r'class="explorer-data">(.*?)<', fine)))
    for part in (0.7, 0.5):
        text = explorer.explorer([(run, {})], int(part * room))
        ((scene, _),) = unpacked(text)
        assert len("".join(re.findall(r'class="explorer-data">(.*?)<', text))) <= part * room
        assert 6 <= scene["bits"] < 16
        assert scene["shown"] == 16
    ((scene, views),) = unpacked(explorer.explorer([(run, {})], int(0.2 * room)))
    assert 6 <= scene["bits"] < 10
    assert 0 < scene["shown"] < scene["drawn"] == 16
    # What is said of all of them still is of all.
    np.testing.assert_allclose(
        views["Mean"], run.mean.double(), atol=scene["scales"]["scene"]["step"] / 2
    )
    assert explorer.explorer([(run, {})], 1000) == ""


@pytest.mark.slow
def test_a_page_of_sixteen_coloured_samples_of_512_by_512_has_less_than_15_mb(tmp_path):
    run_of(0.5 + 0.1 * noise(16, 3, 512, 512)).save(tmp_path)
    assert report.page(tmp_path).stat().st_size < 15e6


def test_names_of_a_problem_cannot_become_a_part_of_the_page(tmp_path):
    bad = '</script><script>alert(1)</script><img src=x onerror="alert(2)"><!--'
    samples = 0.5 + 0.1 * noise(4, 1, 8, 8)
    for k in range(2):
        run = run_of(samples, extras={"baseline": samples[0]}, method=bad)
        replace(run, config=run.config | {"operator": bad}).save(tmp_path / f"{k}")
        record = {"baseline": {"name": bad, "psnr": 1.0}, "flags": [bad], "method": bad}
        (tmp_path / f"{k}" / "summary.json").write_text(json.dumps(record))
    text = report.page(tmp_path).read_text()
    # As in the words of the page, so in what the script reads; and it alone may run.
    assert bad not in text
    assert text.count("<script") == text.count("</script>") == 4
    assert "onerror=" not in html.unescape(re.sub(r"<[^>]*>", "", text)) or "<img src=x" not in text
    scenes = unpacked(text)
    assert [scene["name"] for scene, _ in scenes] == [bad, bad]
    assert bad in scenes[0][1]
    (allowed,) = re.findall(r"script-src '(sha256-[^']+)'", text)
    script = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(script) == 1
    digest = hashlib.sha256(script[0].encode()).digest()
    assert allowed == f"sha256-{base64.b64encode(digest).decode()}"


def test_the_script_needs_no_network_and_sets_no_html():
    text = "".join(one.read_text() for one in (files("posteriori.report") / "web").iterdir())
    for word in ("http", "fetch(", "innerHTML", "outerHTML", "insertAdjacent", "eval(", "import("):
        assert word not in text, word
    assert "prefers-color-scheme: dark" in report.page.__globals__["STYLE"]


def test_what_is_no_picture_has_the_page_without_an_explorer(tmp_path):
    run_of(noise(4, 6)).save(tmp_path)
    text = report.page(tmp_path).read_text()
    assert "<script" not in text
    assert "script-src 'none'" in text
    assert "<polyline" in text


def test_without_a_script_a_page_shows_all_that_it_did(tmp_path):
    run_of(0.5 + 0.1 * noise(4, 1, 8, 8)).save(tmp_path)
    text = report.page(tmp_path).read_text()
    assert '<section id="explorer" aria-label="Explorer" hidden>' in text
    plain = re.sub(
        r"<section id=\"explorer\".*?</section>|<script>.*?</script>", "", text, flags=re.S
    )
    for name in ("Mean", "Standard deviation", "Sample 0", "Sample 3"):
        assert f'alt="{name}"' in plain


def test_complex_images_have_a_magnitude_and_a_phase(tmp_path):
    run = po.sample(complex_picture(), po.methods.MMPS(), n=4, steps=3, folder=tmp_path)
    (size, modulus), (turn, phase) = unpacked(report.page(tmp_path))
    assert (size["name"], turn["name"]) == ("magnitude", "phase")
    for k, x in enumerate(run.samples):
        a, b = size["scales"]["scene"]["step"], turn["scales"]["scene"]["step"]
        x = x.double() if not x.is_complex() else x.to(torch.complex128)
        np.testing.assert_allclose(modulus[f"Sample {k}"][0], x.abs().squeeze(), atol=0.51 * a)
        np.testing.assert_allclose(phase[f"Sample {k}"][0], x.angle().squeeze(), atol=0.51 * b)
    assert turn["level"] is None
    assert "Standard deviation" not in phase
    assert any("does not lie on the pixels" in note for note in size["notes"])


def test_two_channels_are_real_and_imaginary_part(tmp_path):
    samples = noise(4, 2, 6, 6)
    run_of(samples, span=(-1.0, 1.0)).save(tmp_path)
    _, (scene, phase) = unpacked(report.page(tmp_path))
    angle = torch.view_as_complex(samples[2].permute(1, 2, 0).contiguous()).angle()
    np.testing.assert_allclose(
        phase["Sample 2"][0], angle, atol=0.51 * scene["scales"]["scene"]["step"]
    )


def test_a_volume_has_a_scene_for_each_slice_and_what_was_measured_in_the_middle(
    tmp_path, monkeypatch
):
    samples = 0.5 + 0.1 * noise(4, 5, 1, 8, 8)
    extras = {"measurement": samples[0, 2], "reference": samples[1]}
    run_of(samples, extras=extras).save(tmp_path)
    found = unpacked(report.page(tmp_path))
    assert [scene["name"] for scene, _ in found] == [f"slice {k} of 5" for k in range(5)]
    for k, (scene, views) in enumerate(found):
        atol = 0.51 * scene["scales"]["scene"]["step"]
        np.testing.assert_allclose(views["Sample 3"], samples[3, k].double(), atol=atol)
        np.testing.assert_allclose(views["Reference"], samples[1, k].double(), atol=atol)
        assert ("Measurement" in views) == (k == 2)
    # Where a page has no room for all slices, every second one, that in the middle among them.
    monkeypatch.setattr(explorer, "_MOST", 8 * samples[0].numel() // 2)
    text = explorer.explorer([(run_of(samples), {})], 10**6)
    assert [scene["name"] for scene, _ in unpacked(text)] == [f"slice {k} of 5" for k in (0, 2, 4)]
    monkeypatch.setattr(explorer, "_MOST", samples[0, 0].numel())
    assert (
        unpacked(explorer.explorer([(run_of(samples), {})], 10**6))[0][0]["name"] == "slice 2 of 5"
    )


def test_runs_of_several_methods_lie_in_one_explorer(tmp_path):
    for name in ("DDRM", "MMPS"):
        run_of(0.5 + 0.1 * noise(3, 1, 8, 8), method=name).save(tmp_path / name)
    assert {scene["name"] for scene, _ in unpacked(report.page(tmp_path))} == {"DDRM", "MMPS"}


def test_a_kernel_is_not_compared_with_the_measurement_of_its_image():
    image, kernel = 0.5 + 0.1 * noise(3, 1, 8, 8), noise(3, 1, 4, 4).abs()
    parts = {
        "image": {"shape": [1, 8, 8], "range": [0, 1]},
        "kernel": {"shape": [1, 4, 4], "range": None},
    }
    run = run_of(
        torch.cat([image.flatten(1), kernel.flatten(1)], 1), extras={"measurement": image[0]}
    )
    run = replace(run, config=run.config | {"parts": parts})
    (first, views), (second, others) = unpacked(explorer.explorer([(run, {})], 10**6))
    assert (first["name"], second["name"]) == ("image", "kernel")
    assert "Measurement" in views
    assert "Measurement" not in others
    assert others["Mean"].shape == (1, 4, 4)


def test_the_files_of_the_explorer_are_a_part_of_the_package():
    names = {one.name for one in (files("posteriori.report") / "web").iterdir()}
    assert names == {"1-numbers.js", "2-pictures.js", "3-actions.js", "4-page.js", "page.css"}
