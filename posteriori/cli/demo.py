"""``posteriori demo``: a real photograph, blurred and noised, and what several methods make of
it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from posteriori import grid, measurements, methods, noise, operators, priors, problem_file, report
from posteriori.diagnostics import quiet
from posteriori.driver import sample
from posteriori.evaluation import best_wiener, psnr
from posteriori.likelihood import Likelihood, Posterior
from posteriori.measurements.photos import COFFEE
from posteriori.priors.arithmetic import quickest

STD, SIGMA, N = 2.0, 0.02, 4
# Deblurring starts from a measurement that fixes everything coarse: levels above 4 in [-1, 1] would
# only cost steps. What lies below the lowest is lost from the spread of the samples, which is three
# times as wide.
TOP, BOTTOM = 4.0, 0.01
# Method, steps: what fits into two minutes on two cores.
DEMO_PLAN: tuple[tuple[methods.Method, int], ...] = (
    # The closed-form widths: at low noise on a blur they lose nothing to the measured covariance,
    # whose solves would take minutes here. Midpoint costs two calls a step: half as many steps as
    # ancestral ones would have, and 80 % intervals that hold more of the reference.
    (methods.DiffPIR(lam=0.25, width="matched", transition=methods.Midpoint()), 10),
    (methods.DAPS(width="matched"), 20),
    (methods.PiGDM(transition=methods.Midpoint()), 8),
    (methods.MMPS(), 8),
    (methods.DPS(transition=methods.Midpoint()), 8),
)


def run_demo(out: Path, quick: bool) -> None:
    """Write ``out/<method>/`` for each method and ``out/index.html``; print a table."""
    if out.exists() and any(out.iterdir()) and not (out / ".demo").exists():
        raise ValueError(f"{out} exists and is not a demo folder; choose another with --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / ".demo").touch()
    began = time.perf_counter()
    x, _ = measurements.read_image(COFFEE, channels=3)
    kernel = operators.gaussian_kernel(STD)
    A = operators.Blur(kernel, tuple(x.shape), boundary="circular")
    law = noise.Gaussian(SIGMA)
    y = problem_file.simulate(A, x, law, seed=0)
    precision = quickest()
    prior = priors.photos(autocast=None if precision == "float32" else precision)
    post = Posterior(prior, Likelihood(y, A, law, range=(0.0, 1.0)))
    wiener, _, base = best_wiener(y, kernel, SIGMA, x)
    print(
        f"A 256x256 photograph, Gaussian blur of std {STD:g} pixels, noise {SIGMA:g} of [0, 1]; "
        f"{precision} network arithmetic."
    )
    print(
        f"PSNR of the measurement {float(psnr(y[None], x[None], 1.0)):.2f} dB, "
        f"of the best Wiener filter {base:.2f} dB.\n"
    )
    records = []
    for method, steps in DEMO_PLAN:
        levels = grid.karras(steps // 2 if quick else steps, TOP, BOTTOM)
        with quiet():
            done = sample(
                post, method, n=2 if quick else N, grid=levels, seed=0, batch=1, progress=True
            )
        records.append(
            report.save(done, post, out / type(method).__name__.lower(), x, wiener, method)
        )
    print(report.table(records))
    best = max(records, key=lambda r: r["psnr_mean"])
    one = max(r["psnr_sample"] for r in records)
    gain = (
        f"{best['psnr_mean'] - base:+.2f} dB (mean of {best['n']}, {best['method']}), "
        f"{one - base:+.2f} dB (one sample)"
    )
    print(f"\nOver the Wiener filter: {gain}.")
    print(f"Page: {report.page(out)}   ({time.perf_counter() - began:.0f} s)")
