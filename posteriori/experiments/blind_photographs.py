"""Photographs behind a motion blur that nobody knows: crops, kernels of 13, 15 and 17 pixels in
turn, noise of 0.02 of [0, 1], the shipped priors of photographs and of kernels.

The blur repeats the image beyond its border; the kernel is looked for on 17 x 17 pixels. Kernels
are traces of a shaken camera that the prior was not trained on. One row per (crop, method): PSNR of
the blurred picture, of the mean of the samples, and of that mean at the best shift of whole pixels
(a shifted image with a kernel shifted the other way is the same measurement), and how near the
kernel is to the true one up to a shift, see ``evaluation.kernels``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from posteriori import grid, methods
from posteriori.diagnostics import quiet
from posteriori.driver import sample
from posteriori.evaluation.images import psnr
from posteriori.evaluation.kernels import kernel_correlation, kernel_error
from posteriori.experiments import Row
from posteriori.kernel_doubts import kernel_facts, kernel_remarks
from posteriori.likelihood import Likelihood, Posterior
from posteriori.measurements import read_image
from posteriori.measurements.photos import COFFEE
from posteriori.methods.base import method_settings
from posteriori.noise import Gaussian
from posteriori.operators import BlindConvolution
from posteriori.priors import Joint, blur_kernels, motion_kernels, photos
from posteriori.priors.pretrained import KERNEL_SIDES
from posteriori.rng import Streams
from posteriori.settings import suggestion

SIGMA, SIDES, SEED = 0.02, (13, 15, 17), 7
# Of the levels, in units of the priors: above the first a denoised picture says nothing of the
# blur, below the last the kernel does not change.
LEVELS = (6.0, 0.06)
SHIFT = 8
FOUND, GAIN = 0.8, 2.0


class BlindCell(NamedTuple):
    """What a row is about: a picture by its file, which of its crops, the number of the kernel, the
    method, side in pixels, noise levels."""

    picture: str
    place: int
    kernel: int
    method: str
    side: int
    steps: int


def plan_blind(
    folder: Path | None, names: list[str], crops: int, side: int, steps: int
) -> list[BlindCell]:
    """Every row in order: of each picture of the folder the crop in its middle first, then, where
    that are not enough, those beside each other from the upper left. The photograph that ships
    where no folder is given.

    Raises ``ValueError`` for an unknown method, a bad number, and fewer crops than asked for.
    """
    for name in names:
        if name not in blind_methods():
            raise ValueError(f"unknown method {name!r}; {suggestion(name, blind_methods())}")
    if side % 8 or not 32 <= side <= 256:
        raise ValueError(f"the crops have a side of 32 to 256 pixels, a multiple of 8, got {side}")
    if crops < 1 or steps < 1:
        raise ValueError(f"crops and steps must be at least 1, got {crops} and {steps}")
    found = _places(_pictures(folder), side, crops)
    if len(found) < crops:
        raise ValueError(
            f"{len(found)} crops of {side} x {side} pixels are in {folder or COFFEE.name}, "
            f"{crops} were asked for: name a folder of more pictures by --images, or ask for fewer"
        )
    return [
        BlindCell(str(file), place, k, name, side, steps)
        for k, (file, place) in enumerate(found)
        for name in names
    ]


def blind_methods() -> dict[str, methods.Method[Any]]:
    """Methods for an unknown kernel with this prior, by name."""
    own = {"FastDiffusionEM": methods.FastDiffusionEM(samples=1)}
    return own | {
        name: method
        for name, make in methods.ALL.items()
        if (method := make()).family == "blind" and name not in own
    }


def measure_blind(cell: BlindCell) -> Row:
    """The row of a cell."""
    began = time.perf_counter()
    x, kernel = crop(Path(cell.picture), cell.place, cell.side), true_kernel(cell.kernel)
    post, method = blurred(x, kernel, cell.kernel), blind_methods()[cell.method]
    y = post.given.y
    row: Row = {**cell._asdict(), "picture": Path(cell.picture).name, "outcome": "finished"}
    row |= {"settings": settings_by_name(cell.method), "blurred": float(psnr(y[None], x, 1.0))}
    if (why := method.refuses(post)) is not None:
        return row | {"outcome": f"refused: {why}"}
    try:
        with quiet():
            run = sample(
                post, method, n=method.group, steps=cell.steps, grid=blind_levels(cell.steps)
            )
    except FloatingPointError as error:
        return row | {"outcome": f"diverged: {error}"}
    image, k = run.parts["image"].mean, run.parts["kernel"].mean[None]
    return row | {
        "psnr": float(psnr(image[None], x, 1.0)),
        "aligned": aligned_psnr(image, x),
        "correlation": float(kernel_correlation(k, kernel)),
        "error": float(kernel_error(k, kernel)),
        "chi2": float(post.given.chi2(run.samples).mean()),
        "said": kernel_remarks(kernel_facts(run, post)),
        "denoiser": run.counts["denoiser"],
        "seconds": time.perf_counter() - began,
    }


def settings_by_name(name: str) -> dict[str, Any]:
    """What a stored row must have been measured with to be kept."""
    return {key: str(value) for key, value in method_settings(blind_methods()[name]).items()}


def blind_levels(steps: int) -> Tensor:
    """The (steps + 1,) noise levels of a run, in units of the priors."""
    return grid.karras(steps, *LEVELS)


def aligned_psnr(image: Tensor, truth: Tensor) -> float:
    """The largest PSNR in dB over shifts of at most ``SHIFT`` pixels, the image being a torus."""
    moves = range(-SHIFT, SHIFT + 1)
    shifted = torch.stack([image.roll((i, j), (1, 2)) for i in moves for j in moves])
    return float(psnr(shifted, truth, 1.0).max())


def blurred(x: Tensor, kernel: Tensor, seed: int) -> Posterior:
    """The posterior on a photograph x (3, side, side) and its kernel, measured with noise by
    ``seed``."""
    A = BlindConvolution(tuple(x.shape), KERNEL_SIDES)
    clean = A.apply(x[None], kernel)
    y = clean.add(Streams(seed, [0]).normal(clean), alpha=SIGMA)[0]
    prior = Joint(
        {"image": _photos(), "kernel": blur_kernels()},
        ranges={"image": (0, 1)},
        shapes={"image": tuple(x.shape)},
    )
    return Posterior(prior, Likelihood(y, A, Gaussian(SIGMA)))


def true_kernel(k: int) -> Tensor:
    """Kernel k: a trace on 13, 15 or 17 pixels in turn, in the middle of 17 x 17."""
    side = SIDES[k % len(SIDES)]
    room = (KERNEL_SIDES[0] - side) // 2
    return pad(motion_kernels(k + 1, side, SEED)[k].float(), (room,) * 4)


def crop(file: Path, place: int, side: int) -> Tensor:
    """A crop (3, side, side) in [0, 1]: the middle for place 0, then those beside each other."""
    x, _ = read_image(file, channels=3)
    H, W = x.shape[1:]
    row, column = divmod(place - 1, W // side)
    top, left = (row * side, column * side) if place else ((H - side) // 2, (W - side) // 2)
    return x[:, top : top + side, left : left + side].contiguous()


@lru_cache(maxsize=1)
def _photos() -> Any:
    return photos(autocast="bfloat16")


def _pictures(folder: Path | None) -> list[Path]:
    if folder is None:
        return [COFFEE]
    kinds = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in kinds)
    if not files:
        raise ValueError(f"no picture ({', '.join(kinds)}) in {folder}")
    return files


def _places(files: list[Path], side: int, crops: int) -> list[tuple[Path, int]]:
    """The first ``crops`` pairs of a file and a crop of it, as ``plan_blind`` orders them."""
    middles: list[tuple[Path, int]] = []
    others: list[tuple[Path, int]] = []
    for file in files:
        if len(middles) >= crops:
            break
        H, W = read_image(file, channels=3)[0].shape[1:]
        if min(H, W) >= side:
            middles.append((file, 0))
            others += [(file, 1 + k) for k in range((H // side) * (W // side))]
    return (middles + others)[:crops]


def blind_tables(rows: list[Row]) -> Iterator[str]:
    """Markdown: a row for each crop, and for each method how many kernels were found and by how
    much pictures are better than blurred ones."""
    heads = "crop, kernel, method, blurred, PSNR, at best shift, correlation, chi2, denoiser, s"
    yield "| " + heads.replace(", ", " | ") + " | |"
    yield "|---" * 11 + "|"
    for r in rows:
        about = f"| {r['picture']} {r['place']} | {SIDES[r['kernel'] % 3]} px | {r['method']} |"
        if r["outcome"] != "finished":
            yield f"{about} {r['blurred']:.2f} | | | | | | | {r['outcome']} |"
            continue
        said = " ".join(text.split(":")[0] for text in r["said"])
        yield (
            f"{about} {r['blurred']:.2f} | {r['psnr']:.2f} | {r['aligned']:.2f} "
            f"| {r['correlation']:.2f} | {r['chi2']:.2f} | {r['denoiser']:g} "
            f"| {r['seconds']:.0f} | {said} |"
        )
    for name in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == name and r["outcome"] == "finished"]
        if not mine:
            continue
        found = sum(r["correlation"] >= FOUND for r in mine)
        gains = [
            sum(r[kind] - r["blurred"] for r in mine) / len(mine) for kind in ("psnr", "aligned")
        ]
        yield ""
        yield (
            f"{name}: correlation of at least {FOUND:g} in {found} of {len(mine)}; "
            f"{gains[0]:+.2f} dB on average, {gains[1]:+.2f} dB at the best shift."
        )
