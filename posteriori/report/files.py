"""Samples, mean and standard deviation as picture files beside a run, in the depth and the unit of
the measurement's own file."""

from __future__ import annotations

from pathlib import Path

from posteriori.measurements import Depth, write_image
from posteriori.measurements.pictures import barred, channel_rms, pictured, top
from posteriori.report.figures import picture_scale
from posteriori.run import Run
from posteriori.storage import write_bytes


def write(run: Run, out: Path, depth: Depth | None = None) -> list[str]:
    """Write sample-000, ..., mean and std into the folder ``out``; sentences about them.

    depth: how the measurement is stored; numbers in the files then mean what they mean there. 8
    bits from black to white by default. Values that the files cannot hold are cut off there and
    counted in the sentences. Images that are no pictures are not written; of several parts the one
    called "image" is.
    """
    run = run.parts.get("image", run)
    whole, run = run.samples.shape[-2:], run.in_frame()
    mean = pictured(run.mean)
    if mean is None:
        return [
            f"no pictures: samples of shape {tuple(run.samples.shape[1:])} are not grey or RGB; "
            "they are in samples.safetensors"
        ]
    depth = depth or Depth()
    low, high = depth.ends(*picture_scale(run))
    shown = [planes for row in run.samples if (planes := pictured(row)) is not None]
    clipped = 0
    for name, planes in [
        *((f"sample-{k:03d}", planes) for k, planes in enumerate(shown)),
        ("mean", mean),
    ]:
        outside = write_image(out / f"{name}.png", planes, range=(low, high), bits=depth.bits)
        clipped += outside if name != "mean" else 0
    said = []
    if "frame" in run.config:
        height, width = run.samples.shape[-2:]
        said.append(
            f"frame: pictures, scores and page show the {height} x {width} pixels "
            f"that were measured, of {whole[0]} x {whole[1]}; "
            "samples.safetensors holds them all (Run.load(...).in_frame() is cut)"
        )
    if depth.bits == 16:
        said.append(f"pictures: 16 bits as the measurement, {depth.said(*picture_scale(run))}")
    if clipped:
        total = sum(planes.numel() for planes in shown)
        said.append(
            f"pictures: {clipped} of {total} values lie outside [{low:g}, {high:g}]; "
            "clipped in the files, not in the samples"
        )
    if len(run.samples) > 1:
        spread = channel_rms(run.std)
        end = max(top(spread), 1e-12)
        write_bytes(out / "std.png", barred(spread, 0.0, end, ("0", f"{end:.3g}")))
        said.append(
            f"std.png: the scale ends at {end:.3g}, above which 0.5 % of the pixels lie, "
            f"at most {float(spread.max()):.3g}"
        )
    return said
