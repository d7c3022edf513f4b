"""The explorer of a page as a browser shows it: what is seen is read from the canvases, what is
told from the table."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from pages import noise, run_of, unpacked

from posteriori import report

pytestmark = pytest.mark.browser
SIZE = 16
# What lies under a click on a share (x, y) of a canvas, 0 to 255.
SEEN = """(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(
  Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data].slice(0, 3)"""


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install '.[browser]'"
    )
    place = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if place is None:
        pytest.skip("there is no chromium: apt-get install chromium, or set CHROMIUM to another")
    with api.sync_playwright() as play:
        made = play.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def run():
    """Four samples of 16 x 16 grey pixels, of which the lower half is little known; the third pixel
    of y was not measured."""
    base = torch.linspace(0.1, 0.9, SIZE * SIZE).view(1, SIZE, SIZE)
    spread = torch.where(torch.arange(SIZE) < SIZE // 2, 0.01, 0.1)[None, :, None]
    y = base + 0.05
    y[0, 0, 2] = float("nan")
    return run_of(base + spread * noise(4, 1, SIZE, SIZE), extras={"measurement": y})


@pytest.fixture(scope="module")
def place(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    run.save(folder)
    return report.page(folder)


@pytest.fixture
def page(browser, place):
    yield from opened(browser, place)


def opened(browser, place, **given):
    shown = browser.new_page(viewport={"width": 1200, "height": 900}, **given)
    wrong, asked = [], []
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    shown.on("request", lambda one: asked.append(one.url))
    shown.goto(place.as_uri())
    shown.wait_for_selector("#explorer[data-ready]")
    yield shown
    shown.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def settled(page):
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def seen(page, row, column, number=0, first=(0, 0), side=SIZE):
    """What is shown of a pixel, of a canvas that shows so many from ``first`` on."""
    settled(page)
    share = [(column - first[1] + 0.3) / side, (row - first[0] + 0.3) / side]
    return page.locator("#explorer canvas").nth(number).evaluate(SEEN, share)


def grey(values, row, column, black=0.0, white=1.0):
    return 255 * float(np.clip((values[..., row, column].item() - black) / (white - black), 0, 1))


def click(page, row, column, number=0):
    canvas = page.locator("#explorer canvas").nth(number)
    box = canvas.bounding_box()
    at = {"x": (column + 0.5) / SIZE * box["width"], "y": (row + 0.5) / SIZE * box["height"]}
    canvas.click(position=at)


def table(page):
    rows = page.locator(".ex-readout tbody tr").all()
    return {one.locator("th").inner_text(): one.locator("td").all_inner_texts() for one in rows}


def named(page, name):
    return page.get_by_role("button", name=name, exact=True)


def test_flip_shows_each_picture_by_its_button_and_by_keys(page, run):
    assert seen(page, 3, 4) == pytest.approx([grey(run.mean, 3, 4)] * 3, abs=1)
    for k in (0, 3):
        named(page, f"Sample {k}").click()
        assert named(page, f"Sample {k}").get_attribute("aria-pressed") == "true"
        assert seen(page, 12, 9) == pytest.approx([grey(run.samples[k], 12, 9)] * 3, abs=1)
    page.locator("#explorer canvas").focus()
    page.keyboard.press("b")  # back to the one before
    assert seen(page, 12, 9) == pytest.approx([grey(run.samples[0], 12, 9)] * 3, abs=1)
    page.keyboard.press("n")
    assert page.get_by_role("status").inner_text() == "Sample 1"
    assert seen(page, 12, 9) == pytest.approx([grey(run.samples[1], 12, 9)] * 3, abs=1)
    page.keyboard.press("p")
    assert page.locator("#explorer").get_attribute("data-view") == "Sample 0"
    named(page, "Measurement").click()
    assert seen(page, 0, 2) == [176, 196, 222]  # nothing was measured there


def test_a_click_tells_the_numbers_of_the_run(page, run, place):
    ((scene, _),) = unpacked(place)
    error = scene["scales"]["scene"]["error"]
    low, high = run.interval(0.6)
    for row, column in ((3, 4), (15, 15), (0, 0)):
        click(page, row, column)
        told = table(page)
        expected = {
            "Measurement": run.extras["measurement"], "Mean": run.mean,
            "60 % interval, low": low, "60 % interval, high": high,
        } | {f"Sample {k}": x for k, x in enumerate(run.samples)}  # fmt: skip
        assert set(told) == {*expected, "Standard deviation"}
        for name, x in expected.items():
            assert abs(float(told[name][0]) - x[0, row, column].item()) <= error, name
        away = float(told["Standard deviation"][0]) - run.std[0, row, column].item()
        assert abs(away) <= scene["scales"]["spread"]["error"]
        assert f"Row {row}, column {column}: Measurement" in page.get_by_role("status").inner_text()
    click(page, 0, 2)
    assert table(page)["Measurement"] == ["none"]
    said = re.search(r"pictures ±([\d.e-]+)", page.locator("#explorer").inner_text())
    assert float(said[1]) == pytest.approx(error)


def test_arrow_keys_move_the_pixel_that_is_told(page):
    click(page, 3, 4)
    for key, where in (
        ("ArrowRight", "3,5"), ("ArrowDown", "4,5"), ("Shift+ArrowDown", "14,5"),
        ("Shift+ArrowDown", "15,5"), ("ArrowUp", "14,5"), ("ArrowLeft", "14,4"),
    ):  # fmt: skip
        page.keyboard.press(key)
        assert page.locator("#explorer").get_attribute("data-pixel") == where


def test_swipe_has_one_picture_left_of_the_divider_and_another_right_of_it(page, run):
    named(page, "Swipe").click()
    page.get_by_label("Left picture").select_option("Sample 0")
    page.get_by_label("Right picture").select_option("Sample 2")
    left, right = run.samples[0], run.samples[2]
    for column, x in ((5, left), (10, right)):
        assert seen(page, 12, column) == pytest.approx([grey(x, 12, column)] * 3, abs=1)
    divider = page.get_by_label("Divider")
    divider.focus()
    divider.press("Home")
    assert seen(page, 12, 5) == pytest.approx([grey(right, 12, 5)] * 3, abs=1)
    divider.press("End")
    assert seen(page, 12, 10) == pytest.approx([grey(left, 12, 10)] * 3, abs=1)
    divider.fill("50")
    box = page.locator("#explorer canvas").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], y, steps=3)
    page.mouse.up()
    assert float(divider.input_value()) == pytest.approx(80, abs=1)
    assert seen(page, 12, 10) == pytest.approx([grey(left, 12, 10)] * 3, abs=1)


def test_zoom_and_place_are_those_of_all_panels(page, run):
    named(page, "Side by side").click()
    names = page.locator("#explorer figcaption b").all_inner_texts()
    assert names[:3] == ["Mean", "Measurement", "Standard deviation"]
    assert len(names) == 9
    click(page, 4, 12, names.index("Sample 1"))  # zoom at the upper right
    page.locator("#explorer canvas").nth(1).focus()
    box = page.locator("#explorer canvas").nth(1).bounding_box()
    page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 0.05 * box["height"])
    for _ in range(4):
        page.mouse.wheel(0, -100)
    page.wait_for_function("() => Number(document.getElementById('explorer').dataset.zoom) > 2")
    side = SIZE / float(page.locator("#explorer").get_attribute("data-zoom"))
    first = (0.05 * (SIZE - side), 0.95 * (SIZE - side))  # what lay under the pointer still does
    for name, x in (("Mean", run.mean), ("Sample 0", run.samples[0]), ("Sample 3", run.samples[3])):
        number = names.index(name)
        for row, column in ((1, 14), (4, 11), (6, 13)):
            shown = seen(page, row, column, number, first, side)
            assert shown == pytest.approx([grey(x, row, column)] * 3, abs=1), (name, row, column)
    page.keyboard.press("0")
    assert page.locator("#explorer").get_attribute("data-zoom") == "1"
    page.keyboard.press("+")
    assert page.locator("#explorer").get_attribute("data-zoom") == "2"
    page.keyboard.press("-")
    named(page, "Zoom in").click()
    # A drag moves all of them.
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 20 + box["width"], box["y"] + 20 + box["height"], steps=4)
    page.mouse.up()
    for number, x in ((0, run.mean), (names.index("Sample 2"), run.samples[2])):
        shown = seen(page, 1, 1, number, (0, 0), SIZE / 2)
        assert shown == pytest.approx([grey(x, 1, 1)] * 3, abs=1)


def test_window_and_level_set_black_and_white(page, run):
    level, window = (page.get_by_label(name, exact=True) for name in ("Level", "Window"))
    assert (level.input_value(), window.input_value()) == ("0.5", "1")
    level.fill("0.4")
    level.press("Enter")
    window.fill("0.2")
    window.press("Enter")
    for row, column in ((5, 4), (3, 3), (15, 3)):
        expected = grey(run.mean, row, column, 0.3, 0.5)
        assert seen(page, row, column) == pytest.approx([expected] * 3, abs=1)
    assert "black 0.3, white 0.5" in page.locator("#explorer figcaption").inner_text()
    # All pictures of the scene share it, maps have their own.
    named(page, "Standard deviation").click()
    assert "0 to " in page.locator("#explorer figcaption").inner_text()
    assert level.input_value() != "0.4"
    named(page, "Sample 0").click()
    assert level.input_value() == "0.4"
    page.locator("#explorer canvas").focus()
    page.keyboard.press("r")
    assert seen(page, 5, 4) == pytest.approx([grey(run.samples[0], 5, 4)] * 3, abs=1)
    page.get_by_label("Level, slider").focus()
    page.keyboard.press("ArrowRight")
    assert float(level.input_value()) > 0.5


def test_pixels_less_sure_than_a_threshold_are_masked_on_every_picture(page, run):
    threshold = page.get_by_label("Threshold of the standard deviation")
    top = float(threshold.get_attribute("max"))
    threshold.fill(str(round(0.04 / (top / 400)) * (top / 400)))
    limit = float(threshold.input_value())
    hidden = (run.std > limit)[0]
    assert 0.3 < float(hidden.float().mean()) < 0.6
    share = f"{100 * float(hidden.double().mean()):.1f} % of the pixels"
    assert share in page.locator("#explorer").inner_text()
    assert share in threshold.get_attribute("aria-valuetext")
    page.locator("#explorer canvas").focus()
    for name, x in (("Mean", run.mean), ("Sample 2", run.samples[2])):
        named(page, name).click()
        for row in (2, 7, 9, 14):
            for column in (1, 8):
                shown = seen(page, row, column)
                if hidden[row, column]:
                    assert shown[2] > shown[0] + 20  # light blue, or its darker stripe
                else:
                    assert shown == pytest.approx([grey(x, row, column)] * 3, abs=1)
    box = page.get_by_role("checkbox", name="hide pixels")
    assert box.is_checked()
    page.locator("#explorer canvas").focus()
    page.keyboard.press("m")
    assert not box.is_checked()
    row, column = hidden.nonzero()[0].tolist()
    assert seen(page, row, column) == pytest.approx([grey(run.samples[2], row, column)] * 3, abs=1)


def test_everything_has_a_name_and_can_be_reached_by_the_tab_key(page):
    unnamed = page.evaluate("""() => [...document.querySelectorAll(
      '#explorer button, #explorer input, #explorer select, #explorer canvas')].filter((one) =>
      !one.getAttribute('aria-label') && !one.textContent.trim() && !one.closest('label')
      ).map((one) => one.outerHTML)""")
    assert unnamed == []
    page.locator("#explorer button").first.focus()
    reached = set()
    for _ in range(30):
        reached.add(page.evaluate("() => document.activeElement.tagName"))
        page.keyboard.press("Tab")
    assert {"BUTTON", "CANVAS", "INPUT", "SUMMARY"} <= reached
    label = page.locator("#explorer canvas").get_attribute("aria-label")
    assert label == "Mean, 16 by 16 pixels"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(browser, place, scheme):
    for page in opened(browser, place, color_scheme=scheme):
        page.locator("#explorer canvas").focus()
        page.keyboard.press("ArrowUp")
        ratios = page.evaluate("""() => {
          const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map((v) => {
            const s = v / 255; return s <= 0.03928 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          const behind = (one) => { const c = getComputedStyle(one).backgroundColor;
            return c === 'rgba(0, 0, 0, 0)' ? behind(one.parentElement) : c; };
          return [...document.querySelectorAll('#explorer button, #explorer td, #explorer th, '
            + '#explorer p, p.lead, figcaption, h1')].filter((one) => one.textContent.trim())
            .map((one) => { const a = light(getComputedStyle(one).color), b = light(behind(one));
              return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }); }""")
        assert len(ratios) > 20
        assert min(ratios) >= 4.5  # WCAG 2.2, 1.4.3


def test_a_narrow_window_needs_no_sideways_scrolling(browser, place):
    for page in opened(browser, place):
        page.set_viewport_size({"width": 360, "height": 700})
        click(page, 3, 4)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 360


def test_without_a_script_the_pictures_are_all_there(browser, place):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(place.as_uri())
    assert not page.locator("#explorer").is_visible()
    assert page.get_by_alt_text("Sample 3", exact=True).is_visible()
    page.context.close()


def test_slices_and_colours(browser, tmp_path):
    samples = 0.5 + 0.1 * noise(4, 10, 3, 8, 8)
    run = run_of(samples)
    run.save(tmp_path)
    for page in opened(browser, report.page(tmp_path)):
        page.get_by_label("Slice").fill("7")
        page.wait_for_selector("#explorer[data-scene='7']")
        canvas = page.locator("#explorer canvas")
        canvas.focus()
        page.keyboard.press("ArrowUp")  # the pixel in the middle
        told = table(page)["Sample 1"]
        assert [float(v) for v in told] == pytest.approx(samples[1, 7, :, 4, 4].tolist(), abs=1e-4)
        page.keyboard.press(".")
        page.wait_for_selector("#explorer[data-scene='8']")
        named(page, "Sample 1").click()
        assert table(page)["Sample 1"] != told
        settled(page)
        shown = page.locator("#explorer canvas").evaluate(SEEN, [0.3 / 8, 0.3 / 8])
        expected = [255 * float(v) for v in samples[1, 8, :, 0, 0].clamp(0, 1)]
        assert shown == pytest.approx(expected, abs=1)


def test_hounsfield_windows_are_offered_where_images_are_in_them(browser, tmp_path):
    run_of(300 * noise(4, 1, 8, 8), span=(-1000.0, 1500.0)).save(tmp_path)
    for page in opened(browser, report.page(tmp_path)):
        named(page, "lung").click()
        assert "black -1350, white 150" in page.locator("#explorer figcaption").inner_text()
        named(page, "As at first").click()
        assert "black -1000, white 1500" in page.locator("#explorer figcaption").inner_text()


def test_a_name_that_is_html_stays_text(browser, tmp_path):
    bad = "<img src=x onerror='window.ran = true'></script><script>window.ran = true</script>"
    samples = 0.5 + 0.1 * noise(4, 1, 8, 8)
    run_of(samples, extras={"baseline": samples[0]}, method=bad).save(tmp_path)
    record = {"baseline": {"name": bad, "psnr": None}, "flags": [bad], "method": bad}
    (tmp_path / "summary.json").write_text(json.dumps(record))
    for page in opened(browser, report.page(tmp_path)):
        assert page.evaluate("() => window.ran") is None
        assert named(page, bad).is_visible()
        # Were a script smuggled in all the same, the page's policy would not run it.
        with pytest.raises(Exception, match="Content Security Policy"):
            page.add_script_tag(content="window.ran = true")
        assert page.evaluate("() => window.ran") is None
        break
