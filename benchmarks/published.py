"""Published settings along their papers' noise levels beside our defaults, on one photograph.

    python benchmarks/published.py [--methods DAPS DPS ...] [--out docs/results/published.md]

A crop of 64 x 64 pixels (the astronaut of ``posteriori bench images``), blurred by a Gaussian of
two pixels with a circular border; prior "photos", one sample, seed 0. The noise is 0.025 of [0, 1],
which is the 0.05 of [-1, 1] of most of the papers, and for two methods twice that. Rows that the
JSON file beside the page holds already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import posteriori as po
from posteriori.diagnostics import quiet
from posteriori.evaluation import psnr, ssim
from posteriori.methods import courses
from posteriori.problem_file import simulate
from posteriori.tasks.photographs import photograph

SIDE, DEFAULT_STEPS = 64, 100
SIGMAS = (0.025, 0.05)
# The two whose published setting once fell short are measured at the higher level too.
BOTH = ("DAPS", "PiGDM")
# Other numbers of steps that the paper reports.
MORE = {"PiGDM": (100,)}
# Cheap enough for one page.
NAMES = (
    "DAPS",
    "PiGDM",
    "DPS",
    "DiffPIR",
    "DDRM",
    "DDNM",
    "DDS",
    "DSG",
    "DCDP",
    "MMPS",
    "Peng",
    "DMPS",
    "REDDiff",
    "SITCOM",
)


def cells(names):
    """(method, setting, steps, sigma) in order."""
    for name in names:
        published = po.methods.ALL[name].published()
        course = courses.course_of(published)
        for sigma in SIGMAS if name in BOTH else SIGMAS[:1]:
            for steps in sorted({course.fewest, course.steps, *MORE.get(name, ())}):
                yield name, "published", steps, sigma
            yield name, "default", DEFAULT_STEPS, sigma


def measure(name, setting, steps, sigma):
    x = photograph("astronaut", SIDE)
    A = po.operators.Blur(po.operators.gaussian_kernel(2.0), tuple(x.shape), boundary="circular")
    law = po.noise.Gaussian(sigma)
    y = simulate(A, x, law, seed=0)
    post = po.Posterior(po.priors.photos(), po.Likelihood(y, A, law, range=(0, 1)))
    method = po.methods.ALL[name].published() if setting == "published" else po.methods.ALL[name]()
    began = time.perf_counter()
    with quiet():
        run = po.sample(post, method, n=1, steps=steps, seed=0)
    return {
        "method": name,
        "setting": setting,
        "steps": steps,
        "sigma": sigma,
        "psnr": float(psnr(run.samples, x[None], 1.0)),
        "ssim": float(ssim(run.samples, x[None], (0, 1))),
        "chi2": float(post.given.chi2(run.samples)),
        "denoiser": run.counts["denoiser"],
        "vjp": run.counts["vjp"],
        "operator": run.counts["operator"],
        "seconds": time.perf_counter() - began,
    }


def table(rows, sigma):
    lines = [
        "| method | setting | steps | PSNR | SSIM | chi2 | denoiser | VJP | operator | s |",
        "|---|---|---:" + "|---:" * 7 + "|",
    ]
    for r in rows:
        if r["sigma"] == sigma:
            counts = f"{r['denoiser']:g} | {r['vjp']:g} | {r['operator']:g} | {r['seconds']:.0f}"
            lines.append(
                f"| {r['method']} | {r['setting']} | {r['steps']} | {r['psnr']:.2f} | "
                f"{r['ssim']:.3f} | {r['chi2']:.3g} | {counts} |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="*", default=NAMES)
    parser.add_argument("--out", type=Path, default=Path("docs/results/published.md"))
    args = parser.parse_args()
    place = args.out.with_suffix(".json")
    rows = json.loads(place.read_text()) if place.exists() else []
    keys = ("method", "setting", "steps", "sigma")
    for cell in cells(args.methods):
        if cell not in [tuple(r[k] for k in keys) for r in rows]:
            rows.append(measure(*cell))
            place.write_text(json.dumps(rows, indent=1) + "\n")
            print({k: rows[-1][k] for k in (*keys, "psnr", "chi2", "seconds")}, flush=True)
    order = {cell: k for k, cell in enumerate(cells(NAMES))}
    rows.sort(key=lambda r: order.get(tuple(r[k] for k in keys), len(order)))
    place.write_text(json.dumps(rows, indent=1) + "\n")
    parts = [f"Noise {sigma:g} of [0, 1]:\n\n{table(rows, sigma)}\n" for sigma in SIGMAS]
    text = (
        args.out.read_text()
        if args.out.exists()
        else "# Published settings\n\n<!-- rows -->\n<!-- end -->\n"
    )
    head, _, rest = text.partition("<!-- rows -->")
    args.out.write_text(
        head
        + "<!-- rows -->\n\n"
        + "\n".join(parts)
        + "\n<!-- end -->"
        + rest.partition("<!-- end -->")[2]
    )


if __name__ == "__main__":
    main()
