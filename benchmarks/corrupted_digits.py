"""Digits learned from corrupted digits alone, beside digits learned from clean ones: what each
prior makes of unseen digits of which half is missing.

    python benchmarks/corrupted_digits.py mnist.npz [--steps 1000] [--images 4000]
                                          [--measurements 512] [--objectives ambient gsure]
                                          [--table digits.md]

mnist.npz: the arrays ``train`` and ``test``, (N, 28, 28) uint8. Every second pixel of each training
image is missing, at places of its own; GSURE and EM also get noise 0.02 of [0, 1], which Ambient
Diffusion does not take. One network of the same size each, as many steps, seeds alike. Tested on 16
digits of ``test``, half of the pixels measured with noise 0.02, by MMPS: PSNR in dB of the mean of
four samples, the coverage of their 60 % intervals over hidden pixels, training seconds of the
processor and denoiser calls of the E-steps.

The ambient network is asked in four ways: through one mask like those of its data (the sampler of
the paper), through two pairs of complementary masks, without a mask (all pixels seen, which it was
not trained for), and in one step, as E[x0 | the measured pixels].
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import posteriori as po
from posteriori.rng import Streams
from posteriori.training import trainer
from posteriori.training.config import TrainingConfig
from posteriori.training.export import export

SIDE, SIGMA, TESTED, SAMPLES = 28, 0.02, 16, 4
OBJECTIVES = ("score-matching", "ambient", "gsure", "em")


def masks(count: int, seed: int) -> np.ndarray:
    """(count, 28, 28), true at half of the pixels of each."""
    ranks = np.random.default_rng(seed).random((count, SIDE * SIDE)).argsort(1).argsort(1)
    return (ranks < SIDE * SIDE // 2).reshape(count, SIDE, SIDE)


def data_of(objective: str, clean: np.ndarray, folder: Path) -> dict[str, object]:
    """The entry ``data`` of a configuration, whose file is written to ``folder``."""
    file = folder / f"{objective}.npz"
    if objective == "score-matching":
        np.savez(file, train=(255 * clean).round().astype(np.uint8))
        return {"kind": "npz", "file": file, "key": "train", "crop": SIDE}
    noise = 0.0 if objective == "ambient" else SIGMA
    seen = masks(len(clean), 1)
    y = clean + noise * np.random.default_rng(2).standard_normal(clean.shape)
    np.savez(file, y=np.where(seen, y, 0).astype(np.float32), seen=seen)
    return {
        "kind": "masked",
        "file": file,
        "key": "y",
        "masks": "seen",
        "window": (0, 1),
        "noise": noise,
        "crop": SIDE,
        "turns": False,
    }


def configured(
    objective: str, data: dict[str, object], steps: int, sigma_min: float
) -> TrainingConfig:
    settings: dict[str, object] = {"name": objective}
    if objective == "em":
        settings |= {"lap": -(-steps // 3), "sampling": 16, "iterations": 1, "start_iterations": 5}
    return TrainingConfig.model_validate(
        {
            "name": objective,
            "objective": settings,
            "network": {
                "channels": 1,
                "widths": (24, 40),
                "blocks": (1, 1),
                "unshuffle": 2,
                "embedding": 64,
            },
            "data": data,
            "noise": {"log_mean": -0.8, "log_std": 1.4},
            "optimizer": {"name": "muon", "rate": 2e-3, "warmup": 50, "decay": steps // 2},
            "card": {
                "description": "digits",
                "training_data": "MNIST",
                "licence": "BSD-3-Clause",
                "sigma_max": 20.0,
                "sigma_min": sigma_min,
            },
            "steps": steps,
            "batch": 32,
            "ema": 0.99,
            "autocast": "none",
            "threads": 1,
            "checkpoint_every": steps,
            "held_out": {"share": 0.0},
        }
    )


def tested(prior: po.Prior, truths: Tensor, seen: np.ndarray) -> tuple[float, float]:
    """PSNR of the mean, and the coverage of 60 % intervals over hidden pixels."""
    law = po.noise.Gaussian(SIGMA)
    likes = []
    for k, x in enumerate(truths):
        A = po.operators.Mask(torch.from_numpy(seen[k]), (1, SIDE, SIDE))
        y = law.sample(A(x[None]), Streams(100 + k, [0]))[0]
        likes.append(po.Likelihood(y, A, law, range=(0, 1)))
    method = po.methods.MMPS(iterations=3)
    runs = po.sample_each(prior, likes, method, n=SAMPLES, steps=24, seed=7)
    means = torch.stack([run.mean for run in runs]).clamp(0, 1)
    inside = []
    for run, x, mask in zip(runs, truths, seen, strict=True):
        low, high = run.interval(0.6)
        hidden = torch.from_numpy(~mask)[None] & (x > 0.02)
        inside.append(((low <= x) & (x <= high))[hidden].float().mean())
    return psnr(means, truths), float(torch.stack(inside).mean())


def psnr(found: Tensor, truths: Tensor) -> float:
    errors = (found - truths).square().flatten(1).mean(1)
    return float((-10 * errors.log10()).mean())


def one_step(prior: po.priors.Network, truths: Tensor, seen: np.ndarray) -> float:
    """PSNR of E[x0 | the measured pixels, with noise] by an ambient network."""
    noisy = truths + SIGMA * Streams(50, range(len(truths))).normal(truths)
    found = [
        po.priors.Ambient(prior, torch.from_numpy(mask)).denoise(
            2 * y[None] - 1, torch.tensor(2 * SIGMA)
        )
        for mask, y in zip(seen, noisy, strict=True)
    ]
    return psnr(((torch.cat(found) + 1) / 2).clamp(0, 1), truths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("digits", type=Path)
    parser.add_argument("--steps", type=int, default=1000, help="of training (default: 1000)")
    parser.add_argument("--images", type=int, default=4000, help="trained on (default: 4000)")
    parser.add_argument("--measurements", type=int, default=512, help="of em (default: 512)")
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES, choices=OBJECTIVES)
    parser.add_argument("--table", type=Path, help="a file to write the table to")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    with np.load(asked.digits) as stored:
        clean = stored["train"][: asked.images] / 255.0
        truths = torch.from_numpy(stored["test"][:TESTED] / 255.0).float()[:, None]
    seen = masks(TESTED, 9)
    lines = [
        "| Trained on | Asked | PSNR | Coverage of 60 % | Training, s |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)

    def row(*cells: object) -> None:
        lines.append(f"| {' | '.join(map(str, cells))} |")
        print(lines[-1], flush=True)

    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        for objective in asked.objectives:
            some = clean[: asked.measurements] if objective == "em" else clean
            data = data_of(objective, some, Path(place))
            low = 2 * SIGMA if objective == "gsure" else 0.01
            config, run = configured(objective, data, asked.steps, low), Path(place) / objective
            began = time.process_time()
            with torch.enable_grad():
                trainer.train(config, run, progress=False)
            seconds = f"{time.process_time() - began:.0f}"
            prior = export(config, run, run / "prior", storage="float32", samples=0)
            ways: dict[str, po.Prior] = {"as it is": prior}
            if objective == "ambient":
                one = torch.from_numpy(masks(1, 1)[0])
                four = po.priors.complementary_masks(SIDE, SIDE, pairs=2, seed=3)
                ways = {
                    "through one mask": po.priors.Ambient(prior, one),
                    "through two pairs of masks": po.priors.Ambient(prior, four),
                    "without a mask": prior,
                }
                row(objective, "in one step", f"{one_step(prior, truths, seen):.2f}", "-", seconds)
            for way, asked_prior in ways.items():
                value, coverage = tested(asked_prior, truths, seen)
                row(objective, way, f"{value:.2f}", f"{100 * coverage:.0f} %", seconds)
    if asked.table is not None:
        asked.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
