"""Every method on photographs: four problems, the shipped prior, default settings, one sample; one
row per (image, problem, method).

    blur        Gaussian kernel of standard deviation 2 pixels, circular
    downsample  means over 4 x 4 pixels
    box         a square of half the side hidden in the middle
    random      70 % of the pixels hidden, all channels at once

each with Gaussian noise of standard deviation 0.05 of [0, 1]. No posterior is known here: PSNR and
SSIM are against the photograph, and chi-square (1 when the sample fits the measurement as its noise
allows) needs no reference. The row ``Wiener`` is no method: the linear estimate with a 1/f^2
spectrum whose strength was chosen with sight of the photograph. A method that refuses a problem,
diverges, fails or runs out of time has a row whose ``outcome`` and ``reason`` say so.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

from posteriori import methods
from posteriori.diagnostics import quiet
from posteriori.driver import sample
from posteriori.evaluation.baselines import best_linear
from posteriori.evaluation.images import MetricUnavailable, lpips, psnr, ssim
from posteriori.experiments import Row
from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, method_settings
from posteriori.priors.base import Prior
from posteriori.problem_file import method as solvers
from posteriori.problem_file import own
from posteriori.run import Run
from posteriori.settings import suggestion
from posteriori.tasks.photographs import DEGRADATIONS as PROBLEMS
from posteriori.tasks.photographs import PHOTOGRAPHS, RANGE, SIGMA, Scene, scene

BASELINE = "Wiener"
# A finite sample this many widths of the range away from it is no picture any more.
ASTRAY = 5.0
IMAGE_SCORES = ("psnr", "ssim", "lpips", "chi2")
COSTS = ("denoiser", "vjp", "seconds")


class PhotographCell(NamedTuple):
    """What a row is about; side in pixels."""

    image: str
    problem: str
    method: str
    side: int
    steps: int


def plan_photographs(
    images: list[str], problems: list[str], names: list[str], side: int, steps: int
) -> Iterator[PhotographCell]:
    """Every row in order, the Wiener row first. Methods of the user's own are named by their import
    path.

    Raises ``ValueError`` naming an unknown image, problem or method, or a bad number, and for an
    own method that cannot be made.
    """
    kinds = (
        ("image", images, [*PHOTOGRAPHS]),
        ("problem", problems, [*PROBLEMS]),
        ("method", names, [BASELINE, *methods.ALL]),
    )
    for kind, chosen, known in kinds:
        for name in chosen:
            if kind == "method" and own.is_path(name):
                solvers.named_method(name)
            elif name not in known:
                raise ValueError(
                    f"unknown {kind} {name!r}; {suggestion(name, known)}{own.hint(name)}"
                )
    if side % 8 or not 32 <= side <= 256:
        raise ValueError(f"the crops have a side of 32 to 256 pixels, a multiple of 8, got {side}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    for problem in problems:
        for image in images:
            for name in dict.fromkeys((BASELINE, *names)):
                yield PhotographCell(image, problem, name, side, steps)


def measure_photograph(
    cell: PhotographCell, prior: Prior, limit: float | None = None
) -> tuple[Row, Tensor | None]:
    """The row of a cell and its sample (3, side, side), None when there is none.

    limit: seconds of the processor after which a run is given up, with the outcome "stopped".
    Seconds are those of the processor, not of the clock: other work on the machine adds none.
    """
    about, began = scene(cell.image, cell.problem, cell.side), time.process_time()
    row: Row = {
        **cell._asdict(),
        "outcome": "finished",
        "reason": "",
        **dict.fromkeys((*IMAGE_SCORES, *COSTS)),
        "settings": None,
    }
    if cell.method == BASELINE:
        x, _, _ = best_linear(about.given.y, about.given.linear, SIGMA, about.truth)
        return row | _scores(x, about) | {
            "denoiser": 0,
            "vjp": 0,
            "seconds": time.process_time() - began,
        }, x
    method = solvers.named_method(cell.method)
    row["settings"] = _settings(method)
    end, run = _attempt(method, Posterior(prior, about.given), cell.steps, limit)
    row |= end | {"seconds": time.process_time() - began}
    if run is None:
        return row, None
    x = run.samples[0]
    row |= _scores(x, about) | {kind: run.counts[kind] for kind in ("denoiser", "vjp")}
    far = float((x - sum(RANGE) / 2).abs().max())
    if far > ASTRAY:
        row |= {
            "outcome": "diverged",
            "reason": (
                f"the sample is finite, but holds values {far:.2g} away from the middle of [0, 1]"
            ),
        }
    return row, x


def still_current(row: Row) -> bool:
    """Whether a stored row still says what a new one would: not given up for lack of time, and of
    the method's present defaults."""
    if row["outcome"] == "stopped":
        return False
    return row["method"] == BASELINE or row["settings"] == _settings(
        solvers.named_method(row["method"])
    )


def _settings(method: methods.Method[Any]) -> dict[str, Any]:
    """The settings of a method as JSON values and, of one of the user's own, the digest of its
    file."""
    code = own.code(method)
    return json.loads(json.dumps(method_settings(method))) | ({"code": code} if code else {})


@lru_cache(maxsize=1)
def lpips_missing() -> str | None:
    """Why LPIPS cannot be computed here, None when it can; found out once, for finding out may take
    a download."""
    blank = torch.zeros(1, 3, 64, 64)
    try:
        lpips(blank, blank, RANGE)
    except MetricUnavailable as error:
        return str(error)
    return None


def _attempt(
    method: methods.Method[Any], post: Posterior, steps: int, limit: float | None
) -> tuple[Row, Run | None]:
    """One sample, or how the attempt ended."""
    began, done = time.process_time(), 0

    def count(k: int, s: Tensor, rows: Tensor, info: Info) -> None:
        nonlocal done
        done = k + 1

    def deadline(*call: Any) -> None:
        spent = time.process_time() - began
        if limit is not None and spent > limit and done < steps:
            raise TimeoutError(f"{spent:.0f} s for {done} of {steps} steps, {limit:g} s allowed")

    # Asked at every call of a network, the prior's or a method's own: one step of some methods
    # trains for minutes.
    hook = register_module_forward_pre_hook(deadline) if limit is not None else None
    try:
        refusal = method.refuses(post)
        if refusal:
            return {"outcome": "refused", "reason": refusal}, None
        with quiet():
            return {}, sample(post, method, steps=steps, seed=0, watch=[count])
    except FloatingPointError as error:
        return {"outcome": "diverged", "reason": str(error)}, None
    except TimeoutError as error:
        return {"outcome": "stopped", "reason": str(error)}, None
    # One method's failure is a finding about it, and no reason to lose the rows of the others.
    except (ArithmeticError, ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        return {"outcome": "failed", "reason": f"{type(error).__name__}: {error}"}, None
    finally:
        if hook is not None:
            hook.remove()


def _scores(x: Tensor, about: Scene) -> Row:
    rows, truth = x[None], about.truth[None]
    return {
        "psnr": float(psnr(rows, truth, 1.0)),
        "ssim": float(ssim(rows, truth, RANGE)),
        "lpips": None if lpips_missing() else float(lpips(rows.clamp(*RANGE), truth, RANGE)),
        "chi2": float(about.given.chi2(rows)),
    }


def photograph_tables(rows: list[Row]) -> str:
    """Markdown, one table per problem: PSNR of each image, the other numbers averaged over images,
    and every outcome but "finished"."""
    out = []
    for problem, side, steps in dict.fromkeys((r["problem"], r["side"], r["steps"]) for r in rows):
        part = [r for r in rows if (r["problem"], r["side"], r["steps"]) == (problem, side, steps)]
        images = list(dict.fromkeys(r["image"] for r in part))
        names = [
            name
            for name in IMAGE_SCORES[1:]
            if name != "lpips" or any(r["lpips"] is not None for r in part)
        ]
        heads = [
            "method",
            *(f"PSNR {image}" for image in images),
            *(_HEADS[name] for name in (*names, *COSTS)),
            "outcome",
        ]
        out += [
            "",
            f"**{problem}**, {side} x {side} pixels, {steps} steps, "
            f"noise {SIGMA:g} of [0, 1], one sample",
            "",
        ]
        out += ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 2) + "|---|"]
        for method in dict.fromkeys(r["method"] for r in part):
            mine = [r for r in part if r["method"] == method]
            scores = [
                _mean([r["psnr"] for r in mine if r["image"] == image], ".2f") for image in images
            ]
            numbers = [_mean([r[name] for r in mine], _FORMATS[name]) for name in (*names, *COSTS)]
            out.append("| " + " | ".join([method, *scores, *numbers, _outcome(mine)]) + " |")
    return "\n".join(out).strip() + "\n"


_HEADS = {
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "chi2": "chi2",
    "denoiser": "denoiser",
    "vjp": "VJP",
    "seconds": "s",
}
_FORMATS = {
    "ssim": ".3f",
    "lpips": ".3f",
    "chi2": ".3g",
    "denoiser": "g",
    "vjp": "g",
    "seconds": ".1f",
}


def _mean(values: list[float | None], form: str) -> str:
    known = [v for v in values if v is not None]
    return format(math.fsum(known) / len(known), form) if known else "-"


def _outcome(rows: list[Row]) -> str:
    """Nothing where all finished; else each way of ending once, with the images that it befell when
    they are not all."""
    ways: dict[str, list[str]] = {}
    for row in rows:
        if row["outcome"] != "finished":
            ways.setdefault(f"{row['outcome']}: {row['reason']}", []).append(row["image"])
    text = "; ".join(
        way if len(images) == len(rows) else f"{', '.join(images)} {way}"
        for way, images in ways.items()
    )
    return text.replace("|", "/").replace("\n", " ")
