"""What the noise laws are worth: outliers on photographs, the level of the noise from y alone, and
intervals where it is not known.

    python benchmarks/noise.py outliers --data ../shared/data/bsds500     4x super-resolution with a
                                          tenth of y lost, under Gaussian, Huber's and other laws
    python benchmarks/noise.py level --data ../shared/data/bsds500        sigma: estimate on 20
                                          photographs at three levels
    python benchmarks/noise.py coverage                                   GMM-25, a level of an
                                          inverse gamma law

Prints a line for each measurement and the means; docs/results/noise.md is from these.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import posteriori as po
from posteriori import measurements, methods, noise, operators, tasks
from posteriori.evaluation.images import psnr
from posteriori.problem_file.noise_level import estimated
from posteriori.rng import Streams

LOST, PARTICLES = 0.1, 2000


def photographs(data: Path, count: int) -> list[Path]:
    """As many as asked for, at equal distances in the sorted list."""
    found = sorted(data.glob("**/val/*.jpg"))
    return found[:: len(found) // count][:count]


def crop(path: Path, side: int) -> Tensor:
    """The middle (3, side, side), in [0, 1]."""
    x, _ = measurements.read_image(path, channels=3)
    top, left = (x.shape[1] - side) // 2, (x.shape[2] - side) // 2
    return x[:, top : top + side, left : left + side]


def outliers(data: Path, count: int, side: int, steps: int, sigma: float) -> None:
    """PSNR of one sample of DiffPIR."""
    prior, inner = po.priors.photos(), methods.DiffPIR()
    robust = methods.Reweighted(inner, "expected")
    A = operators.Downsample((3, side, side), 4, "box")
    cases = {
        "sound y, Gaussian": (False, noise.Gaussian(sigma), inner),
        "outliers, Gaussian": (True, noise.Gaussian(sigma), inner),
        "outliers, Huber": (True, noise.Huber(sigma), robust),
        "outliers, Student's t": (True, noise.StudentT(sigma, 3), robust),
        "outliers, Outliers": (True, noise.Outliers(sigma, LOST, 0.0, 1.0), robust),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    for k, path in enumerate(photographs(data, count)):
        x = crop(path, side)
        sound = noise.Gaussian(sigma).sample(A(x[None]), Streams(1000 + k, [0]))
        u = Streams(2000 + k, [0]).uniform(2 * sound.numel()).view(2, *sound.shape).float()
        spoilt = torch.where(u[0] < LOST, u[1], sound)
        for name, (lost, law, method) in cases.items():
            y = (spoilt if lost else sound)[0]
            post = po.Posterior(prior, po.Likelihood(y, A, law, range=(0, 1)))
            run = po.sample(post, method, n=1, steps=steps, seed=k)
            found[name].append(float(psnr(run.samples, x[None], 1.0)))
            print(f"{path.stem} {name}: {found[name][-1]:.2f} dB", flush=True)
    for name, values in found.items():
        print(f"mean of {len(values)}, {name}: {statistics.mean(values):.2f} dB")


def level(data: Path, count: int) -> None:
    """The estimate over the truth."""
    for sigma in (0.02, 0.05, 0.1):
        ratios = []
        for k, path in enumerate(photographs(data, count)):
            x, _ = measurements.read_image(path, channels=3)
            y = noise.Gaussian(sigma).sample(x[None], Streams(3000 + k, [0]))[0]
            ratios.append(estimated(operators.Identity(tuple(x.shape)), y)[0] / sigma)
        print(
            f"sigma {sigma}: {min(ratios):.3f} to {max(ratios):.3f} of it, "
            f"mean {statistics.mean(ratios):.3f}, "
            f"within 5 %: {sum(abs(r - 1) <= 0.05 for r in ratios)} of {len(ratios)}",
            flush=True,
        )


def coverage(count: int, trust: int, d: int, measured: int) -> None:
    """The share of true numbers in equal-tailed intervals, for a particle method that takes the
    density of the law and for the Gibbs sampler, both also told that the level is known."""
    task = tasks.get("gmm25", d=d, measured=measured)
    prior, A, sigma = task.posterior.prior, task.posterior.given.linear, 0.3
    law, floor = noise.UnknownGaussian(sigma, trust), sigma / 3
    # Quickly to where the modes are decided, slowly from there: a Gibbs sampler that is tightened
    # faster than it mixes keeps the spread of a looser one.
    slow = torch.cat([po.grid.log(19, prior.sigma_max, 1.2)[:-1], po.grid.log(70, 1.0, floor)])
    gibbs = methods.Reweighted(methods.PnPDM(prior="exact", floor=floor))
    cloud = methods.Bootstrap(particles=PARTICLES)
    cases: dict[str, tuple[methods.Method[Any], noise.NoiseLaw, dict[str, Any]]] = {
        "Bootstrap, level unknown": (cloud, law, {"n": PARTICLES, "steps": 40}),
        "Bootstrap, level taken for known": (
            cloud,
            noise.Gaussian(sigma),
            {"n": PARTICLES, "steps": 40},
        ),
        "Gibbs, level unknown": (gibbs, law, {"n": 31, "grid": slow}),
    }
    for name, (method, told, how) in cases.items():
        places = []
        for k in range(count):
            x = prior.sample(1, 10_000 + k)
            y = law.sample(A(x), Streams(4000 + k, [0]))[0]
            run = po.sample(po.Posterior(prior, po.Likelihood(y, A, told)), method, seed=k, **how)
            w = run.log_w.softmax(0)
            # Half of what n draws of equal weight leave beyond them on either side.
            n = len(run.samples)
            below = ((run.samples < x).double() * w[:, None]).sum(0)
            places.append((below * n + 0.5) / (n + 1))
        place = torch.stack(places)
        for share in (0.5, 0.8, 0.95):
            inside = ((place - 0.5).abs() < share / 2).double()
            error = float(inside.mean(1).std()) / count**0.5
            print(f"{name}, {share:.0%}: {float(inside.mean()):.3f} +- {error:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["outliers", "level", "coverage"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--sigma", type=float, default=0.05)
    parser.add_argument("--trust", type=int, default=4)
    parser.add_argument("--d", type=int, default=8)
    parser.add_argument("--measured", type=int, default=4)
    given = parser.parse_args()
    if given.part == "coverage":
        coverage(given.count or 100, given.trust, given.d, given.measured)
    elif given.data is None:
        parser.error("state --data, a folder of photographs with val/*.jpg")
    elif given.part == "outliers":
        outliers(given.data, given.count or 4, given.side, given.steps, given.sigma)
    else:
        level(given.data, given.count or 20)


if __name__ == "__main__":
    main()
