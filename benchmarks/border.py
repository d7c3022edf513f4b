"""A photograph of 301 x 217 with a real border, at the defaults of a problem file: decibels gained,
and what that takes.

    python benchmarks/border.py [--picture FILE] [--boundary valid|circular] [--steps N]

A piece is cut out of a larger photograph after the blur (Gaussian, std 1.6) and before the noise
(0.03 of [0, 1]): what lies around it has entered it. Without ``--picture`` the photograph is
scikit-image's coffee cup. Seconds are those of the processor, one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

import posteriori as po
from posteriori import problem_file
from posteriori.evaluation.images import psnr

HEIGHT, WIDTH, STD, NOISE = 217, 301, 1.6, 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--picture",
        type=Path,
        help="a photograph of at least 321 x 237 (default: scikit-image's coffee cup)",
    )
    parser.add_argument(
        "--boundary", help="of the blur in the problem file (default: none is stated)"
    )
    parser.add_argument("--method", default="DiffPIR", help="(default: DiffPIR)")
    parser.add_argument("--steps", type=int, help="(default: those of a problem file)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    scene = photograph(asked.picture)
    blurred = po.operators.Blur(
        po.operators.gaussian_kernel(STD), tuple(scene.shape), boundary="reflect"
    )(scene[None])[0]
    top, left = (scene.shape[1] - HEIGHT) // 2, (scene.shape[2] - WIDTH) // 2
    truth, clean = (t[:, top : top + HEIGHT, left : left + WIDTH] for t in (scene, blurred))
    y = clean + NOISE * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "y.npy", y.numpy())
        operator = {"name": "blur", "std": STD} | (
            {"boundary": asked.boundary} if asked.boundary else {}
        )
        record = {
            "prior": "photos",
            "operator": operator,
            "noise": {"law": "gaussian", "sigma": NOISE, "range": [0, 1]},
            "measurement": {"file": "y.npy"},
            "method": asked.method,
        } | ({"steps": asked.steps} if asked.steps else {})
        (Path(folder) / "problem.yaml").write_text(yaml.safe_dump(record))
        task = problem_file.load(Path(folder) / "problem.yaml").build()
        began = time.process_time()
        run = po.sample(task.posterior, task.method, **task.settings).in_frame()
        spent = time.process_time() - began
    before, after = (float(psnr(x[None], truth, 1.0)[0]) for x in (y, run.mean))
    kind = getattr(task.posterior.given.A, "boundary", "")
    print(
        f"{asked.method}, {kind}: {before:.2f} dB before, "
        f"{after:.2f} dB after ({after - before:+.2f}); {spent:.0f} s; {run.counts}"
    )


def photograph(place: Path | None) -> torch.Tensor:
    if place is not None:
        return po.measurements.read_image(place, channels=3)[0]
    from skimage import data

    return torch.from_numpy(data.coffee()).movedim(-1, 0).float() / 255


if __name__ == "__main__":
    main()
