"""The page of a run under way."""

from __future__ import annotations

import re

import pytest
import torch
from cases import bed, complex_picture, picture

import posteriori as po
from posteriori import report
from posteriori.likelihood import Posterior


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def followed(folder, post, *, seconds=6.0, **given):
    """A run of so many seconds a step with a live page, and the pages that it had after its
    steps."""
    pages, clock, place = [], Clock(), folder / "index.html"

    def look(step, s, rows, info):
        pages.append(place.read_text() if place.exists() else "")
        clock.now += seconds

    with report.LivePage(folder, post, "MMPS", clock=clock, **given) as live:
        run = po.sample(
            post, po.methods.MMPS(), n=3, steps=6, batch=1, watch=[live, look], progress=live.at
        )
    return run, pages, place


def test_a_live_page_tells_how_far_a_run_is_and_shows_what_the_denoiser_sees(tmp_path):
    post = picture()
    run, pages, place = followed(tmp_path, post)
    told = [page for page in pages if page]
    assert len(told) == 17  # of 18 steps: the first ends when no time has passed
    for page in told:
        (share,) = re.findall(r"(\d+) % of the steps", page)
        (done,) = re.findall(r'max="18" value="(\d+)"', page)
        assert int(share) == 100 * int(done) // 18
        assert '<meta http-equiv="refresh" content="5">' in page
        assert 'alt="The first sample under way"' in page
        assert "<script" not in page
        assert "http" not in page.replace("http-equiv", "")
    # Before the ninth of 18 steps of six seconds eight were done; the page is as it was then.
    assert 'value="8"' in told[7]
    assert "48 s so far, about 1 min 0 s left" in told[7]
    assert len({re.findall(r"base64,([^\"]+)", page)[0] for page in told}) > 1
    last = place.read_text()
    assert "All samples are drawn." in last
    assert "refresh" not in last
    # The numbers and calls of the run are those without a page.
    alone = po.sample(post, po.methods.MMPS(), n=3, steps=6, batch=1)
    assert torch.equal(run.samples, alone.samples)
    assert run.counts == alone.counts


def test_the_picture_is_the_denoised_image_of_the_first_row():
    post = picture()
    row = torch.randn(2, *post.shape, generator=torch.Generator().manual_seed(0))
    seen = []
    inner = post.prior.denoise

    class Told(type(post.prior)):
        def denoise(self, x, sigma):
            seen.append((x, float(sigma)))
            return inner(x, sigma)

    post.prior.__class__ = Told
    live = report.LivePage("unused", post, clock=Clock())
    live.row = row[:1], 0.5
    assert "at noise level 0.5" in live._picture()
    ((x, sigma),) = seen
    assert torch.equal(x, row[:1].to(x))
    assert sigma == 0.5
    live.row = row[:1], 0.0
    assert "<img" in live._picture()
    assert len(seen) == 1  # an image without noise is shown as it is


def test_pages_come_every_few_seconds_and_take_a_twentieth_of_the_time(tmp_path):
    clock = Clock()
    live = report.LivePage(tmp_path, picture(), every=5.0, clock=clock)
    moments, cost = [], 0.0

    def renewed():
        moments.append(clock.now)
        clock.now += cost
        return ""

    live._picture = renewed
    rows = torch.zeros(1, *live.post.shape)
    live.at(0, 1000)
    for cost, expected in ((0.1, [5, 10, 15, 20]), (2.0, [5, 47, 89])):  # noqa: B007
        moments.clear()
        clock.now, live.due = 0.0, 5.0
        while clock.now < 100:
            clock.now += 0.25
            live(0, torch.tensor(1.0), rows, {})
        assert moments[: len(expected)] == pytest.approx(expected, abs=1.0)


def test_a_short_run_leaves_no_live_page(tmp_path):
    _, pages, place = followed(tmp_path, picture(), seconds=0.0)
    assert set(pages) == {""}
    assert not place.exists()


def test_a_run_that_stops_says_why_and_does_not_load_itself_again(tmp_path):
    post = picture()

    clock = Clock()

    def broken(step, s, rows, info):
        clock.now += 6
        if step == 4:
            raise RuntimeError("<b>no more</b>")

    with (
        pytest.raises(RuntimeError, match="no more"),
        report.LivePage(tmp_path, post, clock=clock) as live,
    ):
        po.sample(post, po.methods.MMPS(), steps=6, watch=[live, broken], progress=live.at)
    page = (tmp_path / "index.html").read_text()
    assert "The run has stopped: RuntimeError: &lt;b&gt;no more&lt;/b&gt;." in page
    assert "refresh" not in page


@pytest.mark.parametrize("make", [bed, complex_picture])
def test_vectors_and_complex_images_have_a_live_page_too(tmp_path, make):
    _, _, place = followed(tmp_path, make())
    assert ("<img" in place.read_text()) == (make is complex_picture)


def test_a_denoiser_that_fails_costs_the_picture_alone(tmp_path, monkeypatch):
    post = picture()

    def fails(self, u):
        raise ValueError("not now")

    live = report.LivePage(tmp_path, post, clock=(clock := Clock()))
    with live, monkeypatch.context() as patch:
        patch.setattr(Posterior, "to_given", fails)
        live.at(0, 4)
        clock.now = 9.0
        live(0, torch.tensor(0.5), torch.zeros(1, *post.shape), {})
    assert "<img" not in (tmp_path / "index.html").read_text()


def test_a_page_that_another_follows_loads_itself_again(tmp_path):
    _, _, place = followed(tmp_path, picture(), followed=True)
    assert "All samples are drawn." in place.read_text()
    assert 'http-equiv="refresh"' in place.read_text()
