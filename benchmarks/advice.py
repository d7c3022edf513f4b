"""Which method for which problem: the kinds that docs/results/images.md has not, compared by
``posteriori compare``.

    python benchmarks/advice.py [--folder advice] [--only counts clip jpeg transmission]

One photograph of 64 x 64 pixels (the astronaut of ``posteriori bench images``), prior "photos", 30
steps, one sample. The tables are printed as Markdown; those of docs/results/advice.md are this
program's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from posteriori.cli.compare import compare_methods as compare
from posteriori.measurements import write_image
from posteriori.tasks.photographs import photograph

METHODS = "DAPS,DCDP,DPS,MMPS,FreeDoM,PnPDM(prior_steps=4)"
PROBLEMS = {
    "counts": (
        "operator: {name: blur, std: 2, boundary: circular}\n"
        "noise: {law: poisson, peak: 200, range: [0, 1]}\n"
    ),
    "clip": (
        "operator: {name: clip, gain: 1.5}\nnoise: {law: gaussian, sigma: 0.02, range: [0, 1]}\n"
    ),
    "jpeg": (
        "operator: {name: jpeg, quality: 10}\nnoise: {law: gaussian, sigma: 0.29, range: [0, 1]}\n"
    ),
    "transmission": (
        "operator: {name: transmission, angles: 60, pixel_mm: 1}\n"
        "noise: {law: poisson, peak: 2e4, range: [0, 0.02]}\n"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("advice"))
    parser.add_argument("--only", nargs="*", choices=[*PROBLEMS], default=[*PROBLEMS])
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    write_image(args.folder / "clean.png", photograph("astronaut", 64), range=(0, 1))
    for name in args.only:
        file = args.folder / f"{name}.yaml"
        file.write_text(
            f"prior: photos\n{PROBLEMS[name]}measurement: {{image: clean.png}}\nn: 1\nsteps: 30\n"
        )
        print(f"\n**{name}**\n", flush=True)
        compare(file, [METHODS], args.folder / name, progress=True)


if __name__ == "__main__":
    main()
