"""The shipped photo prior on photographs that it was not trained on.

    python benchmarks/photos.py FOLDER [--count 12] [--n 4] [--methods MMPS PiGDM ...]

FOLDER holds photographs (the figures in the docs are for the first 12 files of BSDS500's ``val`` by
name). Of each, the central 256x256 is used. Printed are: the PSNR of denoising at 25/255 and
50/255, and for Gaussian blur (std 2, circular) with noise 0.02, per method (with the settings and
steps of ``posteriori demo``), the PSNR of one sample and of the mean of n, chi-square, calls and
seconds, beside the Wiener filter with the true kernel, a 1/f^2 spectrum and the strength that suits
each photograph best.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import posteriori as po
from posteriori.cli.demo import BOTTOM, DEMO_PLAN, TOP
from posteriori.evaluation import best_wiener, psnr
from posteriori.rng import Streams


def centre(file: Path) -> torch.Tensor:
    image, _ = po.measurements.read_image(file, channels=3)
    top, left = ((n - 256) // 2 for n in image.shape[1:])
    return image[:, top : top + 256, left : left + 256]


def denoising(prior, images, level) -> float:
    sigma = torch.tensor(2 * level / 255)
    scores = []
    for k, image in enumerate(images):
        x = 2 * image[None] - 1
        with torch.no_grad():
            out = prior.denoise(x + sigma * Streams(0, [k]).normal(x), sigma)
        scores.append(float(psnr((out + 1) / 2, image[None], 1.0)))
    return sum(scores) / len(scores)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prior", type=Path, help="a saved prior; the shipped one by default")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument(
        "--methods", nargs="*", default=[type(method).__name__ for method, _ in DEMO_PLAN]
    )
    args = parser.parse_args()
    files = sorted(f for f in args.folder.iterdir() if f.suffix.lower() in (".jpg", ".png"))[
        : args.count
    ]
    images = [centre(f) for f in files]
    prior = (
        po.priors.from_pretrained(args.prior, autocast="bfloat16")
        if args.prior
        else po.priors.photos(autocast="bfloat16")
    )
    print(f"{len(images)} photographs, 256x256")
    for level in (25, 50):
        print(f"denoising at sigma {level}/255: {denoising(prior, images, level):.2f} dB")
    kernel = po.operators.gaussian_kernel(2.0)
    A = po.operators.Blur(kernel, (3, 256, 256), boundary="circular")
    noise = po.noise.Gaussian(0.02)
    ys = [noise.sample(A(image[None]), Streams(1, [k]))[0] for k, image in enumerate(images)]
    wiener = [best_wiener(y, kernel, 0.02, image)[2] for y, image in zip(ys, images, strict=True)]
    base = sum(wiener) / len(wiener)
    print(f"\nblur std 2, noise 0.02, mean of {args.n}; best Wiener {base:.2f} dB")
    print(
        f"{'method':10} {'one':>7} {'mean':>7} {'gain one':>9} {'gain mean':>10} {'chi2':>6} "
        f"{'D':>5} {'VJP':>5} {'s/sample':>9}"
    )
    for method, steps in DEMO_PLAN:
        if type(method).__name__ not in args.methods:
            continue
        label, rows = type(method).__name__, []
        for y, image in zip(ys, images, strict=True):
            post = po.Posterior(prior, po.Likelihood(y, A, noise, range=(0, 1)))
            began = time.perf_counter()
            run = po.sample(
                post, method, n=args.n, grid=po.grid.karras(steps, TOP, BOTTOM), batch=1
            )
            seconds = (time.perf_counter() - began) / args.n
            one = float(psnr(run.samples, image[None], 1.0).mean())
            mean = float(psnr(run.mean[None], image[None], 1.0))
            rows.append(
                (
                    one,
                    mean,
                    float(post.given.chi2(run.samples).mean()),
                    run.counts["denoiser"],
                    run.counts["vjp"],
                    seconds,
                )
            )
        one, mean, chi2, denoiser, vjp, seconds = (
            sum(column) / len(column) for column in zip(*rows, strict=True)
        )
        print(
            f"{label:10} {one:7.2f} {mean:7.2f} {one - base:9.2f} {mean - base:10.2f} {chi2:6.2f} "
            f"{denoiser:5.0f} {vjp:5.0f} {seconds:9.2f}"
        )


if __name__ == "__main__":
    main()
