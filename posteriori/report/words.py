"""What a run says, in sentences: what was solved, how far to trust it, and how well each pixel is
known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from posteriori.diagnostics import KEPT, chi2_limits
from posteriori.measurements.pictures import channel_rms, pictured, top
from posteriori.run import Run

# Points by which 80 % intervals may miss before it is said.
MISS = 5.0
_LEVEL = 0.8
PLACES = (
    ("upper left", "upper middle", "upper right"),
    ("left", "centre", "right"),
    ("lower left", "lower middle", "lower right"),
)
Record = dict[str, Any]


def lead(runs: list[tuple[Run, Record]]) -> str:
    """The first sentence of a page: what was solved, and how far to trust it."""
    run, record = runs[0]
    c = run.config
    what = f"a measurement of shape {_times(c['measurement_shape'])} ({c['operator']}, {noise(c)})"
    if len(runs) == 1:
        n, shape = len(run.samples), _times(list(run.samples.shape[1:]))
        if run.parts:
            sizes = {name: list(part.samples.shape[1:]) for name, part in run.parts.items()}
            shape = ", ".join(f"{_times(size)} ({name})" for name, size in sizes.items())
        if "frame" in c:
            shape += f" (the part that was measured, of {_times(c['image_shape'])})"
        paired = " in antithetic pairs" if run.antithetic else ""
        drew = (
            f"{c['method']} drew {n} sample{'s' if n > 1 else ''}{paired} of shape {shape} "
            f"that could have made {what}"
        )
        unseen = n > 1 and record.get("rmse_mean") is None and not run.samples.is_complex()
        known = (
            " Whether their spread is right cannot be seen without the true image."
            if unseen
            else ""
        )
        return f"{drew}; {trust(run, record)}.{known}"
    doubted = [r.config["method"] for r, found in runs if found.get("flags")]
    judged = (
        f"checks found something on {', '.join(doubted)}"
        if doubted
        else "no check found anything on any of them"
    )
    best = (
        f"; the mean of {c['method']} is nearest to the reference, {record['psnr_mean']:.2f} dB"
        if record.get("psnr_mean")
        else ""
    )
    return f"{len(runs)} runs on {what}: {judged}{best}."


def trust(run: Run, record: Record) -> str:
    """How far the samples can be trusted, as far as the folder tells."""
    if not record:
        return (
            "nothing is known of how they fit, since the folder was written before fits were kept"
        )
    said, chi2 = [], record.get("chi2_samples")
    if chi2 is not None:
        low, high = chi2_limits(record["measured"]) if "measured" in record else (0.5, 2.0)
        ratio = chi2 / (record.get("chi2_expected") or 1.0)
        fit = (
            "fit it as its noise allows"
            if low <= ratio <= high
            else "do not fit it as its noise allows"
        )
        said.append(
            f"they {fit} (chi-square {chi2:.2f}, 1 expected)"
            if (record.get("chi2_expected") or 1.0) == 1.0
            else f"they {fit}"
        )
    if record.get("inside_80") is not None:
        said.append(f"their 80 % intervals hold {100 * record['inside_80']:.0f} % of the reference")
    flags = record.get("flags") or []
    said.append(
        f"{len(flags)} check{'s' if len(flags) > 1 else ''} found something, see below"
        if flags
        else "no check found anything wrong"
    )
    return ", ".join(said[:-1]) + (" and " if len(said) > 1 else "") + said[-1]


def noise(c: Record) -> str:
    level = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in c["noise"].items()
    )
    unit = f" for images in [{c['range'][0]:g}, {c['range'][1]:g}]" if c["range"] else ""
    return f"noise {level}{unit}"


def _times(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


def known(run: Run) -> str:
    """How well pixels are known, and where least; empty for one sample and for what is no
    picture."""
    planes = pictured(run.mean)
    if planes is None or run.ess < 1.5:
        return (
            ""
            if planes is None
            else "One sample says nothing about how well a pixel is known: draw four or more."
        )
    from scipy.special import stdtrit

    error, freedom = run.predictive()
    wide = channel_rms(error).double().cpu() * float(stdtrit(freedom, (1 + _LEVEL) / 2))
    half, most = top(wide, 0.5), top(wide, 0.95)
    share = (
        f" (black to white is {run.config['range'][1] - run.config['range'][0]:g})"
        if run.config["range"]
        else ""
    )
    return (
        f"If the samples are right, half of the pixels are known to within ±{half:.2g}{share}, "
        f"and 95 % to within ±{most:.2g} "
        f"({100 * _LEVEL:.0f} % intervals of {len(run.samples)} samples). "
        f"The least sure 5 % lie {where_it_misses(run, wide, planes)}."
    )


def where_it_misses(run: Run, wide: Tensor, mean: Tensor) -> str:
    """In which part of the picture the widest twentieth of the intervals lies: unmeasured pixels, a
    ninth of it, or edges."""
    least = wide >= top(wide, 0.95)
    hidden = _hidden(run, wide)
    if hidden is not None and float(hidden[least].double().mean()) >= 0.8:
        return "where nothing was measured"
    rows, columns = (torch.arange(side) * 3 // side for side in wide.shape)
    shares = torch.zeros(3, 3, dtype=torch.float64)
    shares.index_put_(
        (rows[:, None].expand_as(wide)[least], columns.expand_as(wide)[least]),
        torch.ones(int(least.sum())).double(),
        True,
    )
    shares /= shares.sum()
    found = shares.flatten().topk(2)
    names = [PLACES[int(k) // 3][int(k) % 3] for k in found.indices]
    if float(found.values[0]) >= 0.4:
        return f"mostly in the {names[0]} of the picture"
    steep = wide * 0
    if min(wide.shape) > 2:
        steep = channel_rms(
            torch.stack([d.abs() for d in torch.gradient(channel_rms(mean).double().cpu())])
        )
    on_edges = float((steep >= top(steep, 0.8))[least].double().mean())
    if on_edges >= 0.5:
        return "mostly on edges of the mean"
    return (
        f"most often in the {names[0]} and the {names[1]}"
        if float(found.values.sum()) >= 0.5
        else "all over the picture"
    )


def _hidden(run: Run, wide: Tensor) -> Tensor | None:
    y = run.extras.get("measurement")
    if y is None or not bool(y.isnan().any()):
        return None
    return (
        interpolate(y.isnan().any(0).double()[None, None], size=wide.shape, mode="nearest")[0, 0]
        > 0.5
    )


def spread_in_words(run: Run, record: Record) -> str:
    """What the spread of the samples is worth, in sentences; empty when nothing is known."""
    said, kept, inside = [], record.get("kept"), record.get("inside_80")
    if kept is not None:
        said.append(
            f"Mean standard deviation {record['spread']:.3g}; "
            f"in these {len(run.config['levels']) - 1} steps a Gaussian as wide keeps "
            f"{100 * kept:.0f} % of its own."
        )
    if inside is not None:
        said.append(
            f"The 80 % intervals of {len(run.independent().samples)} samples"
            f"{', one of each pair,' if run.antithetic else ''} hold {100 * inside:.1f} % "
            f"of the reference's numbers{_miss(inside, kept, record.get('inside_80_room') or 0.0)}."
        )
    return " ".join(said)


def _miss(inside: float, kept: float | None, room: float) -> str:
    """By how many points a share of 80 % is missed and, as far as the steps tell, why; empty within
    five points, or within ``room``."""
    points = 100 * inside - 80
    if abs(points) <= max(MISS, 100 * room):
        return ""
    said = f", {abs(points):.0f} points too {'few' if points < 0 else 'many'}"
    if kept is None:
        return said
    steps = abs(kept - 1) > KEPT and (kept < 1) == (points < 0)
    cause = (
        "in part for want of steps"
        if steps
        else "not for want of steps: the method's approximation, or the prior, is off there"
    )
    return f"{said}, {cause}"
