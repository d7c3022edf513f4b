"""Clouds of images in a bounded memory: 128 particles, some at a time, give the samples of the
whole."""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from cases import bed, full_gaussian, short_pilot
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import posteriori as po
from posteriori.methods import DDSMC, FPS, TDS, Bootstrap, MCGDiff, MomentSMC, SMCDiff
from posteriori.methods.smc import particles
from posteriori.methods.smc.moments import second_moments
from posteriori.noise import Gaussian
from posteriori.priors.base import Prior

SIZE, PARTICLES = (3, 32, 32), 128
# One batch of the images of the cloud, in single precision: 1.5 MiB.
CLOUD = PARTICLES * 3 * 32 * 32 * 4


class Conv(Prior):
    """Two convolutions with 32 channels: a graph holds about 22 numbers for each of an image's.
    Notes the largest batch it sees."""

    def __init__(self):
        super().__init__(SIZE, variance=0.25, sigma_max=20.0, sigma_min=0.01, max_std=5.0)
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 3, 3, padding=1)
        ).requires_grad_(False)
        self.largest = 0

    def denoise(self, x, sigma):
        self.largest = max(self.largest, len(x))
        c = 0.25 / (0.25 + sigma**2)
        return c * x + 0.1 * (1 - c) * self.net(x / (0.25 + sigma**2).sqrt())


class Live(TorchDispatchMode):
    """Bytes of the storages alive that were made under it, and the most there were."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.note(value.untyped_storage())
        return out

    def note(self, storage):
        key = storage._cdata
        if key in self.known:
            return
        size = storage.nbytes()

        def gone(_):
            self.known.pop(key, None)
            self.now -= size

        self.known[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


def photo():
    seen = torch.zeros(SIZE, dtype=torch.bool)
    seen[0, 10, 20] = seen[2, 20, 25] = True
    A = po.operators.Mask(seen)
    return po.Posterior(Conv(), po.Likelihood(torch.tensor([0.3, -0.2]), A, Gaussian(0.2)))


IMAGES = [
    Bootstrap(PARTICLES),
    TDS(PARTICLES, "pigdm"),
    TDS(PARTICLES, "moments"),
    DDSMC(PARTICLES),
    MCGDiff(PARTICLES),
    FPS(PARTICLES),
    SMCDiff(PARTICLES),
    MomentSMC(PARTICLES, solves=1, roots=2),
]


def fewer_numbers(monkeypatch):
    """A quarter of the numbers at once: as many rows of these images as of ones of 64 x 64."""
    quarter = particles.NUMBERS_AT_ONCE // 4
    for module in (particles, second_moments):
        monkeypatch.setattr(module, "NUMBERS_AT_ONCE", quarter)


@pytest.mark.parametrize("method", IMAGES, ids=str)
def test_a_cloud_of_images_stays_within_its_memory(method, monkeypatch):
    """By default 21 rows at a time: at most 16 copies of the cloud, graph and temporaries of a step
    included."""
    fewer_numbers(monkeypatch)
    post = photo()
    with Live() as live:
        run = po.sample(post, method, n=PARTICLES, grid=torch.tensor([1.0, 0.5, 0.0]))
    assert len(run.samples) == PARTICLES
    assert post.prior.largest == particles.NUMBERS_AT_ONCE // (3 * 32 * 32) == 21
    assert live.most < 16 * CLOUD, live.most / CLOUD


def test_without_chunks_the_graph_of_the_whole_cloud_would_be_held():
    """So that the bound above can fail."""
    post = photo()
    with Live() as live:
        po.sample(
            post,
            TDS(PARTICLES, "pigdm", chunk=PARTICLES),
            n=PARTICLES,
            grid=torch.tensor([1.0, 0.5, 0.0]),
        )
    assert post.prior.largest == PARTICLES
    assert live.most > 20 * CLOUD, live.most / CLOUD


class Recorded(po.priors.Gaussian):
    """Notes the rows of each call."""

    sizes: list[int] = []

    def denoise(self, x, sigma):
        self.sizes.append(len(x))
        return super().denoise(x, sigma)

    def linearize(self, x, sigma):
        self.sizes.append(len(x))
        return super().linearize(x, sigma)

    def know(self):
        return replace(super().know(), closed=SimpleNamespace(draw_given=self.draw_given))

    def draw_given(self, x, sigma, rng):
        self.sizes.append(len(x))
        return super().know().closed.draw_given(x, sigma, rng)


SMALL = [
    TDS(16),
    Bootstrap(16),
    DDSMC(16),
    MCGDiff(16),
    FPS(16),
    SMCDiff(16),
    SMCDiff(16, "exact"),
    MomentSMC(16, pilot=16),
]


@pytest.mark.parametrize("method", SMALL, ids=str)
def test_chunks_give_the_same_samples_for_every_method(method, monkeypatch):
    """To rounding, not to the bit: sums of batched products depend on the batch. MomentSMC's solves
    stop at 1e-6 and magnify it."""
    short_pilot(monkeypatch)
    plain, post = full_gaussian(), bed("general", sigma=0.1)
    post = po.Posterior(Recorded(plain.mean, plain.covariance), post.likelihood)
    whole = po.sample(post, method, n=32, steps=6)
    Recorded.sizes.clear()
    parts = po.sample(post, replace(method, chunk=5), n=32, steps=6)
    # What refuses a posterior asks for one draw; the pilot of MomentSMC runs in chunks too.
    assert max(Recorded.sizes) == 5
    near = 1e-6 if isinstance(method, MomentSMC) else 1e-9
    torch.testing.assert_close(parts.samples, whole.samples, rtol=near, atol=near)
    with pytest.raises(ValueError, match="chunk: expected a number >= 1, got 0"):
        po.sample(post, replace(method, chunk=0), n=32, steps=6)
