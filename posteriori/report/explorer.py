"""The part of a page that a browser makes interactive: pictures as numbers (``quantised``), what
they are, and the script that shows them.

A scene is a set of pictures that lie on each other: a run of images, a part or a slice of it, the
phase of complex images. A page holds as many as it has room for. Without a script nothing of this
is seen, and the page is the pictures below it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files as resources
from typing import Any

import torch
from torch import Tensor

from posteriori.measurements.pictures import ANCHORS, EMPTY_COLOUR, channel_rms, pictured, top
from posteriori.report.figures import in_place, in_scale, magnitudes, picture_scale, same_scene
from posteriori.report.quantised import NOTHING, Codes, CodeScale, folded, packed
from posteriori.report.volumes import slice_of
from posteriori.run import Run

_LEVEL = 0.8
# The most letters of a page, and of its explorer where the pictures below it leave less.
PAGE, LEAST = 14_500_000, 4_000_000
# Numbers of a page: beyond, a browser takes seconds to unpack them.
_MOST = 20_000_000
BITS = range(16, 5, -1)
_MEASURED = ("measurement", "kspace", "backprojection", "residual")
# Of these numbers a computed tomograph is likely to be in Hounsfield units: level and width of the
# usual windows.
HOUNSFIELD = {"lung": (-600, 1500), "soft tissue": (40, 400), "bone": (400, 1800)}


@dataclass(frozen=True)
class _View:
    """A picture (C, h, w) of a scene: what it is, and the scale of numbers that it shares with
    others."""

    name: str
    role: str
    planes: Tensor
    scale: str = "scene"


@dataclass(frozen=True)
class _Scene:
    """Pictures of the same pixels, the mean first. ends: black and white of each scale. drawn: how
    many samples there are. level: of the interval, which is that of all of them."""

    name: str
    views: tuple[_View, ...]
    ends: dict[str, tuple[float, float]]
    drawn: int
    level: float | None
    notes: tuple[str, ...]

    @property
    def shown(self) -> int:
        return sum(view.role == "sample" for view in self.views)

    def of(self, scale: str) -> list[_View]:
        return [view for view in self.views if view.scale == scale]

    def fewer(self, samples: int) -> _Scene:
        """With so many of its samples."""
        left = {view.name for view in [v for v in self.views if v.role == "sample"][samples:]}
        return replace(self, views=tuple(v for v in self.views if v.name not in left))

    @property
    def numbers(self) -> int:
        return sum(view.planes.numel() for view in self.views)


def explorer(runs: Sequence[tuple[Run, dict[str, Any]]], room: int) -> str:
    """The explorer of runs of one problem, in at most ``room`` letters beside its script; empty
    where nothing is a picture, or nothing fits. As fine as fits: of 16 bits to 6, then of fewer
    samples."""
    found = list(_scenes(runs))
    while found:
        data = _fitting(found, room)
        if data is not None:
            return _section([about for about, _ in data], [text for _, text in data])
        most = max(scene.shown for scene in found)
        found = [scene.fewer(most * 3 // 4) for scene in found] if most > 1 else []
    return ""


def policy(scripted: bool) -> str:
    """The Content-Security-Policy of a page: no connection, and no script but ours, whatever a name
    in it may hold."""
    digest = base64.b64encode(hashlib.sha256(_web(".js").encode()).digest()).decode()
    ours = f"'sha256-{digest}'" if scripted else "'none'"
    return (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"img-src data:; style-src 'unsafe-inline'; script-src {ours}\">"
    )


def _scenes(runs: Sequence[tuple[Run, dict[str, Any]]]) -> Iterator[_Scene]:
    """The scenes of runs; of volumes every so many slices, that a page has room for."""
    run = runs[0][0]
    each = run.samples[0].numel() * (min(len(run.samples), 4) + 4) * len(runs)
    every = -(-each // _MOST) if run.samples.ndim == 5 else 1
    if each > _MOST * every:
        return
    for run, record in runs:
        label = f"{run.config['method']}: " if len(runs) > 1 else ""
        for name, one in _pictured_parts(run, every):
            for kind in ("magnitude", "phase") if magnitudes(one) else ("",):
                said = ", ".join(word for word in (name, kind) if word)
                named = f"{label}{said}".removesuffix(": ")
                yield _phases(one, named) if kind == "phase" else _scene(one, record, named)


def _pictured_parts(run: Run, every: int) -> Iterator[tuple[str, Run]]:
    """Images by their names: of several tensors those that are pictures, of a volume its slices.
    What was measured goes with the first."""
    if run.parts:
        parts = {k: part for k, part in run.parts.items() if pictured(part.mean) is not None}
        for number, (name, part) in enumerate(parts.items()):
            own = {k: v for k, v in part.extras.items() if not (number and k in _MEASURED)}
            yield name, replace(part, extras=own)
    elif run.samples.ndim == 5:
        depth = run.samples.shape[1]
        for k in range(depth // 2 % every, depth, every):
            if pictured(run.samples[0, k]) is not None:
                yield f"slice {k} of {depth}", slice_of(run, k)
    elif pictured(run.mean) is not None:
        yield "", run


def _phases(run: Run, name: str) -> _Scene:
    views = [_View("Mean", "mean", _phase(run.mean))]
    views += [_View(f"Sample {k}", "sample", _phase(x)) for k, x in enumerate(run.samples)]
    note = "Phases of the complex mean and samples, in radians. They go round: no interval is told."
    return _Scene(
        name, tuple(views), {"scene": (-math.pi, math.pi)}, len(run.samples), None, (note,)
    )


def _scene(run: Run, record: dict[str, Any], name: str) -> _Scene:
    planes = torch.stack([_planes(x) for x in run.samples])
    views, level = [_View("Mean", "mean", _planes(run.mean))], None
    ends = {"scene": picture_scale(run)}
    given, notes = _given(run, record, ends)
    if len(planes) > 1:
        spread = channel_rms(run.std)[None]
        views.append(_View("Standard deviation", "spread", spread, "spread"))
        ends["spread"] = (0.0, top(spread))
    views += [_View(f"Sample {k}", "sample", x) for k, x in enumerate(planes)]
    if run.ess > 1.01:
        level = min(_LEVEL, (run.ess - 1) / (run.ess + 1))
        said = f"{100 * level:.0f} % interval"
        low, high = replace(run, samples=planes).interval(level)
        views += [_View(f"{said}, low", "low", low), _View(f"{said}, high", "high", high)]
    return _Scene(name, (views[0], *given, *views[1:]), ends, len(planes), level, notes)


def _given(
    run: Run, record: dict[str, Any], ends: dict[str, tuple[float, float]]
) -> tuple[list[_View], tuple[str, ...]]:
    """What is known beside the samples and lies on their pixels; what does not is said."""
    views: list[_View] = []
    notes, extras = [], run.extras
    size = tuple(run.samples.shape[-2:])
    y = in_place(extras["measurement"], run) if "measurement" in extras else None
    if y is not None and same_scene(y, run):
        kind = "scene" if in_scale(y, ends["scene"]) else "measurement"
        views.append(_View("Measurement", "measurement", y, kind))
        if kind != "scene":
            ends[kind] = (top(y, 0.001), top(y, 0.999))
        if tuple(y.shape[-2:]) != size:
            notes.append(
                f"The measurement has {y.shape[-2]} x {y.shape[-1]} pixels: "
                "at a pixel of the image, that which covers it is told."
            )
    elif y is not None or "kspace" in extras:
        notes.append("The measurement does not lie on the pixels of the image: see it below.")
    usual = (record.get("baseline") or {}).get("name") or "Wiener filter"
    named = {"backprojection": "Back-projection", "reference": "Reference", "baseline": usual}
    for key, name in named.items():
        planes = pictured(extras[key]) if key in extras else None
        if planes is not None and tuple(planes.shape[-2:]) == size:
            kind = key if key == "backprojection" else "scene"
            views.append(_View(name, key, planes, kind))
            if kind != "scene":
                ends[kind] = (min(0.0, float(planes.min())), top(planes, 0.999))
    rest = extras.get("residual")
    if rest is not None and rest.ndim in (2, 3) and tuple(rest.shape[-2:]) == size:
        planes = channel_rms(rest)[None]
        views.append(_View("Residual of sample 0", "residual", planes, "residual"))
        ends["residual"] = (0.0, 3.0)
    return views, tuple(notes)


def _planes(x: Tensor) -> Tensor:
    planes = pictured(x)
    assert planes is not None  # as that of the mean
    return planes


def _phase(x: Tensor) -> Tensor:
    """Of complex numbers, or of two channels that are real and imaginary part: (1, H, W)."""
    if x.is_complex():
        return x.angle().reshape(1, *x.shape[-2:])
    return torch.atan2(x[1], x[0])[None]


def _fitting(scenes: Sequence[_Scene], room: int) -> list[tuple[dict[str, Any], str]] | None:
    """The scenes in as many bits as fit; None where the fewest do not. How many is first guessed
    from every eighth row, which are pressed a little better or worse than all."""
    thin = [
        replace(s, views=tuple(replace(v, planes=v.planes[..., ::8, :]) for v in s.views))
        for s in scenes
    ]
    numbers, bits = sum(scene.numbers for scene in scenes), BITS[0]
    for some, spare in ((thin, 1.1), (scenes, 1.0)):
        share = sum(scene.numbers for scene in some) / numbers
        while True:
            data = [_packed(scene, bits) for scene in some]
            over = sum(len(text) for _, text in data) / share - spare * room
            if over <= 0:
                break
            # A bit less of each number saves a sixth of a letter at most.
            bits -= max(1, int(6 * over / numbers))
            if bits < BITS[-1]:
                if some is scenes:
                    return None
                bits = BITS[-1]
                break
    return data


def _packed(scene: _Scene, bits: int) -> tuple[dict[str, Any], str]:
    """What the script is told of a scene, and its numbers."""
    of = {name: scene.of(name) for name in scene.ends}
    scales = {name: CodeScale.over([v.planes for v in views], bits) for name, views in of.items()}
    parts: list[bytes] = []
    told: list[dict[str, Any]] = []
    mean: Codes | None = None
    for view in scene.views:
        codes = scales[view.scale].codes(view.planes)
        beside = mean if view.scale == "scene" and _alike(mean, codes) else None
        content, left = folded(codes, beside)
        mean = codes if mean is None else mean
        parts.append(content)
        told.append(
            {
                "name": view.name,
                "role": view.role,
                "scale": view.scale,
                "shape": list(codes.shape),
                "mean": beside is not None,
                "left": left,
            }
        )
    about = {
        "name": scene.name,
        "size": list(scene.views[0].planes.shape[-2:]),
        "drawn": scene.drawn,
        "shown": scene.shown,
        "level": scene.level,
        # Where the mask begins: the least sure tenth.
        "threshold": top(scene.of("spread")[0].planes, 0.9) if scene.of("spread") else 0.0,
        "notes": list(scene.notes),
        "bits": bits,
        "scales": {
            name: {
                "low": s.low,
                "step": s.step,
                "decimals": s.decimals,
                "high": float(max(v.planes[v.planes.isfinite()].max() for v in of[name])),
                "error": _rounded_up(s.error),
                "ends": list(scene.ends[name]),
                "map": name in ("spread", "residual"),
            }
            for name, s in scales.items()
        },
        "views": told,
    }
    return about, packed(parts)


def _rounded_up(x: float) -> float:
    """To two digits, never down."""
    unit = 10.0 ** (math.floor(math.log10(x)) - 1)
    return float(f"{math.ceil(x / unit * (1 - 1e-12)) * unit:.2g}")


def _alike(mean: Codes | None, codes: Codes) -> bool:
    return mean is not None and mean.shape == codes.shape


def _section(about: list[dict[str, Any]], data: list[str]) -> str:
    """What a browser with a script makes the explorer of. Text is JSON without "<", so that nothing
    in it ends the element or begins another."""
    told = {
        "scenes": about,
        "colours": ANCHORS.tolist(),
        "empty": list(EMPTY_COLOUR),
        "nothing": NOTHING,
        "hounsfield": HOUNSFIELD,
    }
    text = json.dumps(told, allow_nan=False).replace("<", "\\u003c")
    blocks = "".join(
        f'<script type="text/plain" class="explorer-data">{one}</script>' for one in data
    )
    return (
        f'<section id="explorer" aria-label="Explorer" hidden><style>{_web(".css")}</style>'
        f'<script type="application/json" id="explorer-about">{text}</script>{blocks}</section>'
        f"<script>{_web('.js')}</script>"
    )


def _web(suffix: str) -> str:
    """The files of the explorer of a kind as one text, each script in a scope of its own page."""
    files = sorted(
        (one for one in (resources("posteriori.report") / "web").iterdir()
         if one.name.endswith(suffix)), key=lambda one: one.name,
    )  # fmt: skip
    text = "\n".join(one.read_text() for one in files)
    return "(() => {\n" + text + "})();" if suffix == ".js" else text
