"""What a preconditioner saves: operator calls and seconds of whole runs, with it and without it, in
one process.

    python benchmarks/solves.py             (a photograph of 96 x 100 pixels)
    python benchmarks/solves.py --full      (1440 x 1500)
    python benchmarks/solves.py --photo     (900 x 1200, the circular blur alone)

Every run is done twice, with the same operator, seeds and levels; the first time the operator says
that it knows no preconditioner. The prior is the closed form of white images, so that next to
nothing but the solves is measured.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import posteriori as po
from posteriori.counting import CountedLinearOperator, Counter
from posteriori.measurements.photos import COFFEE
from posteriori.priors.base import Prior


class White(Prior):
    """White images of variance 1/4."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, variance=0.25, sigma_max=20.0, sigma_min=0.02)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x * (0.25 / (0.25 + sigma**2))

    def linearize(self, x: Tensor, sigma: Tensor) -> Any:
        return self.denoise(x, sigma), lambda u: self.denoise(u, sigma)


class Unaided(CountedLinearOperator):
    """The operator, of which nothing is known but its products."""

    def preconditioner(self, r2: float, s2: float) -> None:
        return None

    def cosine_power(self) -> None:
        return None

    def fourier_power(self) -> None:
        return None


def run(
    kind: type[CountedLinearOperator],
    A: po.operators.LinearOperator,
    x: Tensor,
    sigma: float,
    method: Any,
    steps: int,
    prior: Prior | None,
) -> str:
    """Operator calls for one sample and seconds; where the run stops in between, those up to
    there."""
    counter, y = Counter(), A(x)[0]
    y = y + sigma * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    post = po.Posterior(
        prior or White(A.in_shape),
        po.Likelihood(
            y, kind(A, counter), po.noise.Gaussian(sigma), range=prior and prior.range, check=False
        ),
    )
    began, end = time.perf_counter(), ""
    try:
        po.sample(post, method, n=1, steps=steps)
    except po.operators.SolveError as error:
        end = " (stops: residual " + str(error).split("residual ")[1].split(" ")[0] + ")"
    return f"{counter.calls['operator']:6d} calls {time.perf_counter() - began:7.1f} s{end}"


def show(
    name: str,
    A: po.operators.LinearOperator,
    x: Tensor,
    sigma: float,
    method: Any,
    steps: int,
    prior: Prior | None = None,
) -> None:
    before, after = (
        run(kind, A, x, sigma, method, steps, prior) for kind in (Unaided, CountedLinearOperator)
    )
    print(f"{name:32s} {after}   without: {before}", flush=True)


def main() -> None:
    # Four steps with a white prior restore no photograph, and are not meant to.
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="a photograph of 1440 x 1500 pixels")
    parser.add_argument(
        "--photo", action="store_true", help="one row, a photograph of 900 x 1200 pixels"
    )
    asked = parser.parse_args()
    H, W = (1440, 1500) if asked.full else (900, 1200) if asked.photo else (96, 100)
    original, _ = po.measurements.read_image(COFFEE, channels=3)
    photo = 2 * interpolate(original[None], size=(H, W), mode="bicubic", antialias=True) - 1
    if asked.photo:
        rows_of_photos(photo, ("circular",))
        return
    slices = interpolate(photo.mean(1, keepdim=True), size=(64, 64), mode="bicubic", antialias=True)
    radon = po.operators.Radon((1, 64, 64), torch.linspace(0, 180, 91)[:-1], pixel_mm=1.0)
    show("Radon 64 x 64, 90 angles REDDiff", radon, slices, 0.5, po.methods.REDDiff(), 20)
    kernel = po.operators.gaussian_kernel(2.0)
    for boundary in ("reflect", "zero", "valid"):
        A = po.operators.Blur(kernel, (3, H, W), boundary=boundary)
        for method in (po.methods.PiGDM(), po.methods.DMPS(), po.methods.REDDiff()):
            show(f"{boundary} {H} x {W} {type(method).__name__}", A, photo, 0.02, method, 4)
    rows_of_photos(photo, ("circular", "reflect", "zero"))


def rows_of_photos(photo: Tensor, boundaries: tuple[str, ...]) -> None:
    """With the covariance of the shipped prior's error, by colour and frequency."""
    height, width = photo.shape[-2:]
    for boundary in boundaries:
        A = po.operators.Blur(
            po.operators.gaussian_kernel(2.0), (3, height, width), boundary=boundary
        )
        name = f"{boundary} {height} x {width} DiffPIR, photos"
        show(name, A, photo, 0.04, po.methods.DiffPIR(), 4, po.priors.photos())


if __name__ == "__main__":
    main()
