"""Gaussian deblurring with DPS: what the number of steps and the share of fresh noise do to the
image, and what others make of the time."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from posteriori import priors
from posteriori.driver import sample
from posteriori.evaluation.baselines import best_linear
from posteriori.evaluation.images import lpips, psnr, ssim
from posteriori.experiments import Cell, Row
from posteriori.experiments.costs import VJP
from posteriori.experiments.photographs import lpips_missing
from posteriori.experiments.studies.base import Study
from posteriori.grid import GridName
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods.explicit.ddrm import DDRM
from posteriori.methods.explicit.dps import DPS
from posteriori.methods.explicit.mmps import MMPS
from posteriori.methods.transitions import DDIM
from posteriori.tasks.photographs import RANGE, SIGMA, scene

SIDE, ETAS, STEPS = 40, (0.0, 0.25, 0.5, 0.85, 1.0), (10, 20, 50, 100, 200, 500, 1000)
# The paper's scale is for 1000 steps on 256 x 256 pixels: its step is divided by the norm of a
# residual, which grows with the image.
PUBLISHED, PUBLISHED_SIDE, PUBLISHED_STEPS = 0.3, 256, 1000
FIRST, SECOND = "astronaut", "chelsea"
OTHERS: dict[str, tuple[int, ...]] = {
    "DPS published": (10, 100, 1000),
    "MMPS": (10, 20, 50),
    "DDRM": (10, 20, 50, 100, 200),
}
# From dark to light as eta grows; all other methods are black.
_COLOURS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#e6a100")
MARKS = {"DPS published": "x", "MMPS": "s", "DDRM": "^"}
COLUMNS = {
    "photo": "photograph",
    "method": (
        "DPS (bounded weighting), DPS published (the paper's step), MMPS, DDRM, "
        "or Wiener (a linear filter, no diffusion)"
    ),
    "eta": (
        "share of fresh noise of a DDIM step, 0 none, 1 ancestral sampling; "
        "none where the method has its own"
    ),
    "steps": "reverse steps",
    "samples": "samples drawn, of seed 0",
    "outcome": "finished, partly diverged (scores are of the rest) or diverged (no scores)",
    "psnr": "PSNR of a sample against the photograph, dB, mean over samples",
    "psnr_std": "standard deviation of that PSNR between the samples, dB, where there are two",
    "ssim": "SSIM as PSNR",
    "lpips": "LPIPS as PSNR, where its weights are installed",
    "chi2": (
        "mean squared residual over the noise variance; 1 fits the measurement as its noise allows"
    ),
    "denoiser": "denoiser calls for a sample",
    "vjp": "vector-Jacobian products for a sample",
    "calls": "denoiser calls plus twice the vector-Jacobian products",
    "seconds": "wall-clock time of a sample, one at a time, s",
}


def _plan(quick: bool) -> list[Cell]:
    most = 50 if quick else STEPS[-1]
    wanted: list[tuple[str, str, float | None, int]] = [
        (FIRST, "DPS", eta, k) for k in STEPS if k <= most for eta in ETAS
    ]
    wanted += [] if quick else [(SECOND, "DPS", eta, k) for k in STEPS if k <= 50 for eta in ETAS]
    wanted += [
        (FIRST, name, _eta(name), k) for name, counts in OTHERS.items() for k in counts if k <= most
    ]
    cells: list[Cell] = [
        dict(zip(("photo", "method", "eta", "steps"), cell, strict=True)) for cell in wanted
    ]
    cells = [cell | {"samples": 1 if quick or cell["steps"] > 100 else 2} for cell in cells]
    return [*cells, {"photo": FIRST, "method": "Wiener", "eta": None, "steps": 0, "samples": 1}]


def _eta(name: str) -> float | None:
    return None if name == "DDRM" else 1.0


def _method(cell: Cell) -> Any:
    """The sampler of a cell."""
    if cell["method"] == "DPS":
        return DPS(transition=DDIM(cell["eta"]))
    if cell["method"] == "DPS published":
        return DPS.published(PUBLISHED * SIDE / PUBLISHED_SIDE * PUBLISHED_STEPS / cell["steps"])
    return MMPS(transition=DDIM(1.0)) if cell["method"] == "MMPS" else DDRM()


@lru_cache(maxsize=1)
def _prior() -> priors.Network:
    prior = priors.photos()
    for weight in prior.parameters():
        # Channels last: the same numbers, a tenth sooner on a CPU.
        weight.data = (
            weight.data.contiguous(memory_format=torch.channels_last)
            if weight.ndim == 4
            else weight.data
        )
    # The first call of a network sets up what later ones use: it is nobody's time.
    blank = torch.zeros(1, 3, SIDE, SIDE)
    prior.linearize(blank, torch.tensor(1.0))[1](blank)
    return prior


def _measure(cell: Cell) -> list[Row]:
    about, prior = scene(cell["photo"], "blur", SIDE), _prior()
    row: Row = {**dict.fromkeys(COLUMNS), **cell, "outcome": "finished"}
    counts, began = {"denoiser": 0.0, "vjp": 0.0}, time.perf_counter()
    if cell["method"] == "Wiener":
        x = best_linear(about.given.y, about.given.linear, SIGMA, about.truth)[0][None]
    else:
        grid: GridName | None = "ddpm" if cell["method"] == "DPS published" else None
        try:
            run = sample(
                Posterior(prior, about.given),
                _method(cell),
                n=cell["samples"],
                steps=cell["steps"],
                seed=0,
                grid=grid,
                batch=1,
            )
        except FloatingPointError:
            return [row | {"outcome": "diverged", "seconds": time.perf_counter() - began}]
        row["outcome"] = "finished" if len(run.samples) == cell["samples"] else "partly diverged"
        x, counts = run.samples, {kind: run.counts[kind] for kind in ("denoiser", "vjp")}
    row |= counts | {
        "calls": counts["denoiser"] + VJP * counts["vjp"],
        "seconds": (time.perf_counter() - began) / cell["samples"],
    }
    return [row | _scores(x, about.truth[None], about.given)]


def _scores(x: Tensor, truth: Tensor, given: Likelihood) -> Row:
    each = psnr(x, truth, 1.0)
    return {
        "psnr": float(each.mean()),
        "psnr_std": float(each.std()) if len(each) > 1 else None,
        "ssim": float(ssim(x, truth, RANGE).mean()),
        "lpips": None if lpips_missing() else float(lpips(x.clamp(*RANGE), truth, RANGE).mean()),
        "chi2": float(given.chi2(x).mean()),
    }


def _draw(rows: list[Row]) -> Figure:
    picture = Figure(figsize=(9.2, 7.6), layout="constrained")
    grid = picture.add_gridspec(2, 2)
    panels = (
        picture.add_subplot(grid[0, 0]),
        picture.add_subplot(grid[0, 1]),
        picture.add_subplot(grid[1, :]),
    )
    axes = zip(panels, ("steps", "steps", "seconds"), ("psnr", "ssim", "psnr"), strict=True)
    for place, x, y in axes:
        _curves(place, [r for r in rows if r["photo"] == FIRST and r[y] is not None], x, y)
    picture.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        fontsize=9,
        frameon=False,
    )
    return picture


def _curves(axes: Axes, rows: list[Row], x: str, y: str) -> None:
    for eta, colour in zip(ETAS, _COLOURS, strict=True):
        mine = sorted(
            (r for r in rows if r["method"] == "DPS" and r["eta"] == eta), key=lambda r: r[x]
        )
        axes.plot(
            [r[x] for r in mine],
            [r[y] for r in mine],
            "o-",
            ms=4,
            color=colour,
            label=f"DPS, eta = {eta:g}",
        )
    for name, mark in MARKS.items():
        mine = sorted((r for r in rows if r["method"] == name), key=lambda r: r[x])
        axes.plot(
            [r[x] for r in mine],
            [r[y] for r in mine],
            f"{mark}--",
            ms=6,
            lw=1,
            color="black",
            label=name,
        )
    for r in rows:
        if r["method"] == "Wiener":
            axes.axhline(r[y], color="black", ls=":", label="Wiener filter")
    label = {
        "psnr": "PSNR (dB)",
        "ssim": "SSIM",
        "steps": "reverse steps",
        "seconds": "time of a sample (s)",
    }
    axes.set(xscale="log", xlabel=label[x], ylabel=label[y])
    if x == "steps":
        axes.set_xticks(sorted({r[x] for r in rows if r[x]}), minor=False)
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _findings(rows: list[Row]) -> tuple[str, str, str]:
    kept = [r for r in rows if r["psnr"] is not None]
    dps = [r for r in kept if r["method"] == "DPS" and r["photo"] == FIRST]
    return (
        _about_eta(kept, dps),
        _about_steps(dps, len([r for r in rows if r["psnr"] is None]), len(rows)),
        _about_speed(kept, dps),
    )


def _about_eta(kept: list[Row], dps: list[Row]) -> str:
    texts = []
    for k in (min(r["steps"] for r in dps), max(r["steps"] for r in dps)):
        mine = sorted((r for r in dps if r["steps"] == k), key=lambda r: r["psnr"])
        best, worst = mine[-1], mine[0]
        texts.append(f"with {k} steps eta = {best['eta']:g} is best by PSNR "
                     f"({best['psnr']:.2f} dB; worst eta = {worst['eta']:g}, "
                     f"{worst['psnr']:.2f} dB)")  # fmt: skip
    second = [r for r in kept if r["photo"] == SECOND]
    text = f"Of DPS {texts[0]}; {texts[1]}."
    if second:
        k = max(r["steps"] for r in second)
        best, same = (
            max((r for r in part if r["steps"] == k), key=lambda r: r["psnr"])
            for part in (second, dps)
        )
        text += (
            f" On the second photograph with {k} steps the best is eta = {best['eta']:g}, "
            f"on the first with as many {same['eta']:g}."
        )
    return text


def _about_steps(dps: list[Row], lost: int, of: int) -> str:
    texts = []
    for eta in (ETAS[0], ETAS[-1]):
        mine = sorted((r for r in dps if r["eta"] == eta), key=lambda r: r["steps"])
        if mine:
            top = max(mine, key=lambda r: r["psnr"])
            texts.append(
                f"with eta = {eta:g} PSNR goes from {mine[0]['psnr']:.2f} dB "
                f"at {mine[0]['steps']} steps to {mine[-1]['psnr']:.2f} at {mine[-1]['steps']}, "
                f"the highest being {top['psnr']:.2f} at {top['steps']} "
                f"(SSIM {mine[0]['ssim']:.3f}, {mine[-1]['ssim']:.3f} and {top['ssim']:.3f})"
            )
    pairs = [r["psnr_std"] ** 2 for r in dps if r["psnr_std"] is not None]
    noise = ""
    if pairs:
        std = (sum(pairs) / len(pairs)) ** 0.5
        noise = f" Two samples of a cell differ by {std:.2f} dB (standard deviation)."
    return f"For DPS {'; '.join(texts)}.{noise} {lost} of {of} cells diverged."


def _about_speed(kept: list[Row], dps: list[Row]) -> str:
    top = max(dps, key=lambda r: r["psnr"])
    text = f"DPS is at its best with eta = {top['eta']:g} and {top['steps']} steps ({_price(top)})."
    for name in OTHERS:
        mine = [r for r in kept if r["method"] == name]
        reach = [r for r in mine if r["psnr"] >= top["psnr"]]
        if reach:
            least = min(reach, key=lambda r: r["calls"])
            text += f" {name} reaches it with {least['steps']} steps ({_price(least)})."
        elif mine:
            most = max(mine, key=lambda r: r["psnr"])
            text += (
                f" {name} falls short of it with {most['steps']} steps, "
                f"its best here ({_price(most)})."
            )
    wiener = [r["psnr"] for r in kept if r["method"] == "Wiener"]
    return text + "".join(
        f" The Wiener filter, its strength chosen with sight of the photograph, has {v:.2f} dB, "
        f"{abs(v - top['psnr']):.2f} dB "
        f"{'more' if v > top['psnr'] else 'less'} than DPS at its best."
        for v in wiener
    )


def _price(row: Row) -> str:
    return f"{row['psnr']:.2f} dB, {row['calls']:.0f} calls, {row['seconds']:.2g} s"


STUDY = Study(
    name="deblur-steps",
    question="How many reverse steps and how much fresh noise does DPS need "
    "to deblur a photograph, and is the time well spent?",
    setting=f"""Circular Gaussian blur of standard deviation 2 pixels and Gaussian noise of standard
deviation {SIGMA} of the range [0, 1], on crops of {SIDE} x {SIDE} pixels of two photographs that
come with scikit-image: {FIRST} for every cell, {SECOND} for DPS up to 50 steps. The prior is the
shipped photograph prior; two samples of seed 0 up to 100 steps and one beyond (one throughout in
the quick run), drawn one at a time, scores averaged.

DPS is run with its bounded weighting, D_y = D + sigma^2 J^T A^T (y - A D) / (v^2 + r2 ||A||^2), v
the noise level, r2 = c sigma^2 / (c + sigma^2), c = 400 (the square of the largest sigma, as the
prior's spread is not known), J = dD/dx; with DDIM transitions of eta {ETAS} on Karras levels
(rho = 7) from sigma 20 to 0.002 for data in [-1, 1], and {STEPS[0]} to {STEPS[-1]} steps. DPS
published is the paper's step (gradient divided by the norm of the residual, linear-beta DDPM
levels, eta = 1), its scale 0.3 converted from {PUBLISHED_SIDE} to {SIDE} pixels a side by their
ratio and from 1000 to N steps by 1000 / N.

For comparison MMPS (moment matching, at most 5 GMRES iterations, eta = 1, Karras levels), and DDRM
(eta = 0.85, eta_b = 1, Karras levels), the best by PSNR (with DDNM, which equals it there) in a
trial of nine methods with 10 steps on the same photograph at 64 x 64 pixels; DiffPIR, DCDP,
ReSample, PnP-DM, DAPS, PiGDM and MMPS were the others. Wiener is the linear filter with a 1/f^2
spectrum whose strength was chosen with sight of the photograph. PSNR and SSIM are of samples, not
of their mean, unclamped; LPIPS (AlexNet) is computed where its weights are installed and otherwise
left empty.""",
    columns=COLUMNS,
    plan=_plan,
    measure=_measure,
    draw=_draw,
    shows=("photo", "method", "eta", "steps", "psnr", "ssim", "seconds"),
    caption=f"Above: PSNR and SSIM of samples of the photograph {FIRST} against reverse steps. "
    "Below: the same PSNR against wall-clock time on one core. Colours: DPS by eta; "
    "black: other methods, the dotted line being the Wiener filter.",
    findings=_findings,
    limits=(
        "One or two samples for each cell: "
        "differences between cells below their standard deviation are not resolved. "
        "More than 50 steps were taken on one photograph only, and the crops are small.",
        "PSNR and SSIM compare one sample with the truth: "
        "a sampler with more variety scores lower although its samples may be closer "
        "to posterior draws, so that a fall with more steps need not mean a worse one.",
        "The bounded weighting is one of several for DPS; "
        "another, or another scale, moves the best eta and number of steps.",
        "DDRM was chosen as the best of a trial on one of the photographs, "
        "with default settings for all.",
    ),
)
