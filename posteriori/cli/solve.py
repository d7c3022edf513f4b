"""``posteriori solve``: a problem file to a run folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from posteriori import problems, report
from posteriori.measurements import write_image
from posteriori.run import Run
from posteriori.sample import sample


def run(problem: Path, out: Path, *, resume: bool, progress: bool, checkpoint_seconds: float) -> None:
    """Solve, save, print. A folder that holds another run is refused before anything is computed."""
    task = problems.load(problem).build()
    for note in task.notes:
        print(note, file=sys.stderr)
    done = sample(
        task.posterior,
        task.method,
        **task.settings,
        progress=progress,
        folder=out,
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
    )
    record = report.save(done, task.posterior, out, task.reference)
    pictures(done, out)
    page = report.page(out)
    print("\n".join(lines(done, record)))
    print(f"page: {page}")


def lines(done: Run, record: dict[str, Any]) -> list[str]:
    """What a person wants to know at once."""
    c = done.config
    level = ", ".join(f"{name} {value}" for name, value in c["noise"].items())
    inner = c["noise_std_in_prior_range"]
    out = [f"noise: {level} in {c['range']}" + (f"; {inner:g} in the prior's {c['prior_range']}" if inner is not None else "")]
    out.append(f"samples: {record['finished']} of {record['n']}; calls per sample: {done.counts}; {done.seconds:.1f} s")
    if record["chi2_samples"] is not None:
        out.append(f"chi-square: {record['chi2_samples']:.3f} (samples), {record['chi2_mean']:.3f} (mean)")
    if record["psnr_mean"] is not None:
        out.append(f"PSNR: {record['psnr_sample']:.2f} dB (one sample), {record['psnr_mean']:.2f} dB (mean)")
    if record["ssim_mean"] is not None:
        out.append(f"SSIM: {record['ssim_sample']:.3f} (one sample), {record['ssim_mean']:.3f} (mean)")
    return out + [f"note: {flag}" for flag in record["flags"]]


def pictures(done: Run, out: Path) -> None:
    """Samples, mean and standard deviation as PNG files, when they are pictures."""
    x = done.samples.abs() if done.samples.is_complex() else done.samples
    x = x[:, None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        return
    low, high = done.config["range"] or (0.0, 1.0)
    for k, image in enumerate(x):
        write_image(out / f"sample-{k:03d}.png", image, range=(low, high))
    mean = done.mean.abs() if done.mean.is_complex() else done.mean
    write_image(out / "mean.png", mean.view(x.shape[1:]), range=(low, high))
    if len(x) > 1:
        spread = done.std.view(x.shape[1:])
        write_image(out / "std.png", spread, range=(0.0, max(float(torch.max(spread)), 1e-12)))
