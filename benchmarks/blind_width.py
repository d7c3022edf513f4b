"""A blur whose width is not known, on Gaussian images: the width against quadrature, and how often
its intervals hold the truth.

    python benchmarks/blind_width.py [--problems 200] [--methods GibbsDiffusion BlindPnPDM]
        [--images '6 x 6']

Images of 24 pixels in a row, and of 6 x 6, smooth and Gaussian, are drawn from their prior; widths
from the log-normal law that is believed of them, 1 pixel within a factor of 1.35; noise of 0.2
where an image has a standard deviation of 1. Each method draws 19 samples of each problem, whose
smallest and largest width are a 90 % interval; the mean of 200 samples of 8 other problems is held
against quadrature over 161 widths (``evaluation.blind.parameter_probabilities``).
"""

from __future__ import annotations

import argparse
import time

import torch

import posteriori as po
from posteriori import methods
from posteriori.diagnostics import quiet
from posteriori.evaluation.blind import parameter_probabilities
from posteriori.priors import Gaussian, Joint

F64 = torch.float64
SIGMA, SPREAD, SAMPLES, STEPS = 0.2, 0.3, 19, 25
TOP, FLOOR = 1.0, 0.05
SHAPES = {"24 in a row": (1, 1, 24), "6 x 6": (1, 6, 6)}
# Gibbs samplers of a split posterior stop where the spring is below the noise.
PLAN = {
    "GibbsDiffusion": methods.GibbsDiffusion(prior="exact", floor=FLOOR, sweeps=4, moves=1),
    "BlindPnPDM": methods.BlindPnPDM(prior="exact", floor=FLOOR),
    "GibbsDDRM": methods.GibbsDDRM(),
}


def model(shape: tuple[int, int, int]) -> tuple[Joint, po.operators.BlindGaussianBlur]:
    """The prior of image and logarithm of the width, and the blur."""
    _, h, w = shape
    place = torch.cartesian_prod(torch.arange(h, dtype=F64), torch.arange(w, dtype=F64))
    C = torch.exp(-0.5 * torch.cdist(place, place).square() / 1.2**2)
    image = Gaussian(torch.zeros(shape, dtype=F64), C + 1e-3 * torch.eye(h * w, dtype=F64))
    belief = Gaussian(torch.zeros(1, dtype=F64), SPREAD**2)
    return (
        Joint({"image": image, "log_width": belief}),
        po.operators.BlindGaussianBlur(shape, 5),
    )


def drawn(prior: Joint, A: po.operators.Parametric, count: int, seed: int):
    """Widths (count,), and the likelihood of each."""
    image, phi = (part.sample(count, seed + (k << 33)) for k, part in enumerate(prior.priors))
    clean = A.apply(image, phi)
    y = clean + SIGMA * po.rng.Streams(seed + 1, range(count)).normal(clean)
    noise = po.noise.Gaussian(SIGMA)
    return phi.exp()[:, 0], [po.Likelihood(row, A, noise, check=False) for row in y]


def widths(prior, likes, method, n: int, seed: int) -> torch.Tensor:
    """Samples (problems, n) of the width."""
    grid = torch.cat([po.grid.log(STEPS, TOP, FLOOR)[:-1], torch.zeros(1, dtype=F64)])
    if isinstance(method, methods.GibbsDDRM):
        grid = None
    with quiet():
        runs = po.sample_each(prior, likes, method, n=n, steps=STEPS, grid=grid, seed=seed)
    return torch.stack([run.parts["log_width"].samples[:, 0].exp() for run in runs])


def by_quadrature(prior, like) -> tuple[float, float]:
    """Mean and standard deviation of the width given y."""
    grid = torch.linspace(-6 * SPREAD, 4 * SPREAD, 161, dtype=F64)[:, None]
    p, w = parameter_probabilities(po.Posterior(prior, like), grid), grid[:, 0].exp()
    mean = float(p @ w)
    return mean, float(p @ (w - mean).square()) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--methods", nargs="+", choices=PLAN, default=list(PLAN))
    parser.add_argument("--images", nargs="+", choices=SHAPES, default=list(SHAPES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'images':14}{'method':16}{'error of mean':>15}{'below 5 %':>11}"
        f"{'spread':>8}{'held':>8}{'s':>6}"
    )
    for words in args.images:
        prior, A = model(SHAPES[words])
        truth, likes = drawn(prior, A, args.problems, 0)
        _, few = drawn(prior, A, 8, 100)
        exact = torch.tensor([by_quadrature(prior, like) for like in few], dtype=F64)
        for name in args.methods:
            began = time.perf_counter()
            w = widths(prior, likes, PLAN[name], SAMPLES, 1)
            held = ((w.amin(1) <= truth) & (truth <= w.amax(1))).double().mean()
            many = widths(prior, few, PLAN[name], 200, 2)
            off = (many.mean(1) / exact[:, 0] - 1).abs()
            near = f"{int((off < 0.05).sum())} of {len(off)}"
            spread = (many.std(1) / exact[:, 1]).mean()
            print(
                f"{words:14}{name:16}{100 * float(off.max()):13.1f} %{near:>11}{float(spread):8.2f}"
                f"{100 * float(held):6.1f} %{time.perf_counter() - began:6.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
