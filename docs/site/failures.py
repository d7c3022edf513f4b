"""The pictures of docs/guide/is-it-right.md: five runs that went wrong.

``python docs/site/failures.py`` draws them again, or those that are named, and writes what their
numbers are to ``docs/pictures/failures/failures.json``. The prior is ``digits``, seeds are fixed.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import posteriori as po

OUT = Path(__file__).resolve().parents[1] / "pictures" / "failures"
SIDE, SCALE, GAP = 32, 3, 6


def digit() -> Tensor:
    """The digit of all pictures, (1, 1, 32, 32) in [-1, 1], drawn by the prior."""
    return po.priors.digits().sample(1, seed=41, steps=12, shape=(1, SIDE, SIDE))


def half_hidden(truth: Tensor, sigma: float = 0.1) -> po.Posterior:
    """The lower half of the digit measured, in [0, 1]."""
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[:, SIDE // 2 :] = True
    return observed(truth, po.operators.Mask(mask), sigma)


def observed(truth: Tensor, A: Any, sigma: float, stated: float = 1.0) -> po.Posterior:
    """A measurement of the digit in [0, 1]; ``stated``: the end of the range that the likelihood is
    told, 1 where it is right."""
    noise = po.noise.Gaussian(sigma)
    y = noise.sample(A((truth + 1) / 2), po.rng.Streams(1, [0]))[0]
    return po.Posterior(po.priors.digits(), po.Likelihood(y, A, noise, range=(0, stated)))


def chi2(post: po.Posterior, samples: Tensor) -> float:
    """Mean squared residual of the samples over the noise variance; about 1 where they fit."""
    given = post.given
    return float(((given.y - given.A(samples)) / given.noise.std).square().mean())


def over_guided(truth: Tensor) -> dict[str, Any]:
    """DPS with a step a hundred times as strong as published, beside MMPS."""
    blur = po.operators.Blur(
        po.operators.gaussian_kernel(1.5), (1, SIDE, SIDE), boundary="circular"
    )
    post = observed(truth, blur, 0.05)
    methods = {"MMPS": po.methods.MMPS(iterations=3), "DPS x 100": po.methods.DPS("norm", 30.0)}
    return _compared("over-guided", truth, post, methods, steps=12)


def collapsed(truth: Tensor) -> dict[str, Any]:
    """One cloud that copies one completion, beside a cloud of its own for each sample."""
    post = half_hidden(truth)
    methods = {
        "of their own": po.methods.FPS(8, single=True),
        "one cloud": po.methods.FPS(8),
    }
    return _compared("collapsed", truth, post, methods, steps=20, spread=True)


def off_range(truth: Tensor) -> dict[str, Any]:
    """A measurement in [0, 1] that is said to be in [0, 2], beside the right range."""
    blur = po.operators.Blur(
        po.operators.gaussian_kernel(1.0), (1, SIDE, SIDE), boundary="circular"
    )
    rows, told = [(truth + 1) / 2], {}
    for name, end in (("[0, 1]", 1.0), ("[0, 2]", 2.0)):
        post = observed(truth, blur, 0.05, end)
        run = _run(post, po.methods.MMPS(), steps=8)
        rows += [run.samples[:2]]
        told[name] = {"chi2": chi2(post, run.samples), "largest": float(run.samples.max())}
    return _saved("off-range", rows, told)


def drifting(truth: Tensor) -> dict[str, Any]:
    """Image and kernel unknown: a pair that fits y as well as the right one."""
    kernel = po.priors.motion_kernels(1, 9, 1)[0].float()
    A = po.operators.BlindConvolution((1, SIDE, SIDE), (9, 9))
    family = po.priors.kernel_family(po.priors.motion_kernels(64, 9, 0).float(), 0.005)
    prior = po.priors.Joint(
        {"image": po.priors.digits(), "kernel": family},
        ranges={"image": (0, 1)},
        shapes={"image": (1, SIDE, SIDE)},
    )
    noise = po.noise.Gaussian(0.02)
    y = noise.sample(A.apply((truth + 1) / 2, kernel), po.rng.Streams(1, [0]))[0]
    post = po.Posterior(prior, po.Likelihood(y, A, noise))
    run = _run(post, po.methods.DCDP(), steps=15, n=2)
    image, found = run.parts["image"].samples[:1], run.parts["kernel"].samples[0]
    known = po.Posterior(
        po.priors.digits(),
        po.Likelihood(
            y, po.operators.Blur(kernel, (1, SIDE, SIDE), boundary="circular"), noise, range=(0, 1)
        ),
    )
    right = _run(known, po.methods.DCDP(), steps=15, n=1)
    rows = [
        (truth + 1) / 2,
        y[None],
        _enlarged(kernel),
        right.samples,
        _enlarged(found.reshape(9, 9)),
        image,
    ]
    left = (y - A.apply(image, found.reshape(9, 9))) / 0.02
    told = {
        "kernel known": {"chi2": chi2(known, right.samples), "psnr": _psnr(right.samples, truth)},
        "kernel unknown": {"chi2": float(left.square().mean()), "psnr": _psnr(image, truth)},
    }
    return _saved("drifting-kernel", rows, told)


def hallucinated(truth: Tensor) -> dict[str, Any]:
    """What is hidden is filled in crisply, and differently in each sample."""
    return _compared(
        "hallucinated",
        truth,
        half_hidden(truth),
        {"FPS": po.methods.FPS(16, single=True)},
        steps=20,
        n=4,
        spread=True,
    )


def _run(post: po.Posterior, method: Any, *, steps: int, n: int = 2) -> po.Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return po.sample(post, method, n=n, steps=steps, seed=0)


def _compared(
    name: str,
    truth: Tensor,
    post: po.Posterior,
    methods: dict[str, Any],
    *,
    steps: int,
    n: int = 2,
    spread: bool = False,
) -> dict[str, Any]:
    rows, told = [(truth + 1) / 2], {}
    shown = (
        post.given.A.adjoint(post.given.y[None]) if post.given.y.ndim == 1 else post.given.y[None]
    )
    rows.append(shown.reshape(1, 1, SIDE, SIDE))
    for label, method in methods.items():
        run = _run(post, method, steps=steps, n=4 if spread else n)
        rows.append(run.samples)
        told[label] = {"chi2": chi2(post, run.samples), "psnr": _psnr(run.samples, truth)}
        if spread:
            rows.append(2 * run.std[None])
            told[label]["spread"] = float(run.std.mean())
    return _saved(name, rows, told)


def _psnr(samples: Tensor, truth: Tensor) -> float:
    return float(-10 * (samples - (truth + 1) / 2).square().mean((1, 2, 3)).log10().mean())


def _enlarged(kernel: Tensor) -> Tensor:
    """A kernel as a picture of the size of the images, its largest tap white."""
    picture = (kernel / kernel.max()).clamp(0, 1)[None, None]
    return torch.nn.functional.interpolate(picture, (SIDE, SIDE), mode="nearest")


def _saved(name: str, groups: list[Tensor], told: dict[str, Any]) -> dict[str, Any]:
    """One row of pictures; groups stand apart."""
    tiles: list[Tensor] = []
    for group in groups:
        for picture in group:
            big = picture[0].clamp(0, 1).repeat_interleave(SCALE, 0).repeat_interleave(SCALE, 1)
            tiles += [big, torch.ones(SIDE * SCALE, 2)]
        tiles.append(torch.ones(SIDE * SCALE, GAP))
    row = (255 * torch.cat(tiles[:-2], 1)).round().to(torch.uint8).numpy()
    OUT.mkdir(parents=True, exist_ok=True)
    Image.fromarray(row).save(OUT / f"{name}.png", optimize=True)
    return {name: told}


if __name__ == "__main__":
    draws = {d.__name__: d for d in (over_guided, collapsed, off_range, drifting, hallucinated)}
    kept = OUT / "failures.json"
    record: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    one = digit()
    for chosen in sys.argv[1:] or draws:
        record |= draws[chosen](one)
        kept.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(record, indent=1), flush=True)
