"""A prior of digits on letters: DDS with the prior as it is, and DDIP and SCD, which adapt it to
each measurement.

    python benchmarks/adaptation.py [--letters ABEFHKRSWX] [--steps 20] [--iterations 10]
                                    [--rate 0.003] [--dark 0.3] [--light 0.7] [--sigma 0.05]
                                    [--table adaptation.md]

Letters are drawn grey on grey, where the digits are white on black; every fifth pixel is measured,
with noise sigma of [0, 1]. One sample of each method: its PSNR in dB, the chi-square of its
residual, and seconds of the processor. "no stop" is DDIP with discrepancy 0.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import posteriori as po
from posteriori.methods import DDIP, DDS, SCD
from posteriori.rng import Streams

SIDE = 32


def letter(name: str, dark: float, light: float) -> torch.Tensor:
    """(1, 1, 32, 32) in [0, 1]."""
    picture = Image.new("L", (4 * SIDE, 4 * SIDE))
    font = ImageFont.load_default(size=3 * SIDE)
    ImageDraw.Draw(picture).text((2 * SIDE, 2 * SIDE), name, fill=255, font=font, anchor="mm")
    small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)[None, None]
    return dark + (light - dark) * grey


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--letters", default="ABEFHKRSWX", help="(default: ABEFHKRSWX)")
    parser.add_argument("--steps", type=int, default=20, help="noise levels (default: 20)")
    parser.add_argument("--iterations", type=int, default=10, help="at each (default: 10)")
    parser.add_argument("--rate", type=float, default=3e-3, help="of Adam (default: 0.003)")
    parser.add_argument("--keep", type=float, default=0.2, help="share measured (default: 0.2)")
    parser.add_argument("--dark", type=float, default=0.3, help="background (default: 0.3)")
    parser.add_argument("--light", type=float, default=0.7, help="of letters (default: 0.7)")
    parser.add_argument("--sigma", type=float, default=0.05, help="of the noise (default: 0.05)")
    parser.add_argument("--table", type=Path, help="a file to write the table to")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    how = {"iterations": asked.iterations, "rate": asked.rate}
    methods = {
        "DDS": DDS(),
        "DDIP": DDIP(**how),
        "SCD": SCD(**how, eta=1.0),
        "DDIP, no stop": DDIP(**how, discrepancy=0.0),
    }
    prior, law = po.priors.digits(), po.noise.Gaussian(asked.sigma)
    lines = [
        f"| Letter | {' | '.join(f'{name}: PSNR | chi2 | s' for name in methods)} |",
        f"|---|{'---|' * (3 * len(methods))}",
    ]
    print("\n".join(lines), flush=True)
    for k, name in enumerate(asked.letters):
        x = letter(name, asked.dark, asked.light)
        A = po.operators.Mask(
            po.operators.random_mask((SIDE, SIDE), asked.keep, k), (1, SIDE, SIDE)
        )
        y = law.sample(A(x), Streams(100 + k, [0]))[0]
        post, cells = po.Posterior(prior, po.Likelihood(y, A, law, range=(0, 1))), []
        for method in methods.values():
            began = time.process_time()
            run = po.sample(post, method, n=1, steps=asked.steps, seed=k)
            error = float((run.samples - x).square().mean())
            chi2 = float((y - A(run.samples)[0]).square().mean()) / asked.sigma**2
            psnr = -10 * torch.tensor(error).log10().item()
            cells.append(f"{psnr:.1f} | {chi2:.2f} | {time.process_time() - began:.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if asked.table is not None:
        asked.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
