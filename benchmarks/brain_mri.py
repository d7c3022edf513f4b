"""Accelerated magnetic resonance of brain slices that the brain MRI prior was not trained on,
against zero filling and total variation.

    python benchmarks/brain_mri.py brain_mri_128.npz --out docs/results/brain-mri.json
    python benchmarks/brain_mri.py ... --outside ch2.nii.gz T1.nii.gz   other heads, see ``outside``
    python benchmarks/brain_mri.py ... --samples 25 --speeds 8   a mean of more samples
    python benchmarks/brain_mri.py ... --samples 4 --antithetic  of antithetic samples
    python benchmarks/brain_mri.py ... --pattern points          scattered points, not columns

One coil; k-space of a real image (a magnitude without a phase), so that A maps real images of 128 x
128 to complex numbers. A quarter or an eighth of the columns is measured: those in the middle (8 %
or 4 % of 128), and others at random places of each slice. With ``--pattern points``, as a scan of a
volume has them, whose two phase encodings a slice lies across: the middle 16 x 16 points of k-space
and others at random, with a density that falls from the middle like a Gaussian of a fifth of the
side. Noise of 0.01 of white in the real and in the imaginary part. PSNR and SSIM are over [0, 1].
The weight of total variation is the best of nine for six slices of ``train``. Every number that is
measured is kept in --out at once; a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from chest_ct import total_variation
from scipy.ndimage import affine_transform
from scipy.stats import t as student
from torch import Tensor

import posteriori as po
from posteriori.evaluation import psnr, ssim
from posteriori.linalg import dot

SIDE, NOISE = 128, 0.01
LEVELS = (0.5, 0.8, 0.95)
CENTRE = {4: 10, 8: 5}  # columns in the middle, by acceleration
BLOCK = 16  # the side of the block of points in the middle
WEIGHTS = [1e-3 * 2**k for k in range(-3, 6)]
METHODS = {
    "DDS": po.methods.DDS(iterations=10),
    "DiffPIR": po.methods.DiffPIR(),
    "MMPS": po.methods.MMPS(iterations=3),
    "DAPS": po.methods.DAPS(),
}


def columns(acceleration: int, seed: int) -> Tensor:
    """The mask (1, 128), true where a column of k-space is measured."""
    middle = CENTRE[acceleration]
    first = SIDE // 2 - middle // 2
    inside = np.arange(first, first + middle)
    others = np.setdiff1d(np.arange(SIDE), inside)
    rng = np.random.default_rng([acceleration, seed])
    chosen = rng.choice(others, SIDE // acceleration - middle, replace=False)
    mask = torch.zeros(1, SIDE, dtype=torch.bool)
    mask[0, torch.from_numpy(np.concatenate([inside, chosen]))] = True
    return mask


def points(acceleration: int, seed: int) -> Tensor:
    """The mask (128, 128), true where a point of k-space is measured."""
    off = np.arange(SIDE) - SIDE // 2
    inside = (off >= -BLOCK // 2) & (off < BLOCK // 2)
    middle = np.outer(inside, inside).ravel()
    density = np.exp(-np.add.outer(off**2, off**2).ravel() / (2 * (SIDE / 5) ** 2)) * ~middle
    rng = np.random.default_rng([acceleration, seed, 1])
    count = SIDE**2 // acceleration - BLOCK**2
    chosen = rng.choice(SIDE**2, count, replace=False, p=density / density.sum())
    mask = torch.from_numpy(middle.copy())
    mask[torch.from_numpy(chosen)] = True
    return mask.view(SIDE, SIDE)


def measured(x: Tensor, acceleration: int, seed: int, pattern: str = "columns") -> po.Likelihood:
    """k-space of one image (1, 128, 128), noise included."""
    real = po.operators.PhaseMap(torch.ones(SIDE, SIDE, dtype=torch.complex64))
    mask = (columns if pattern == "columns" else points)(acceleration, seed)
    fourier = po.operators.MaskedFourier(mask, (SIDE, SIDE))
    A, law = fourier @ real, po.noise.ComplexGaussian(sigma_per_channel=NOISE)
    y = law.sample(A(x[None]), po.rng.Streams(11, [seed]))
    return po.Likelihood(y[0], A, law, range=(0, 1))


def outside(file: Path, field: float = 256.0) -> Tensor:
    """Six slices (6, 1, 128, 128) of a head, two of each plane, in a field of view of so many mm: a
    pixel is the average of the volume's under it. White is the volume's 99.9 % quantile.

    Heads are upright, as those of the training are: the front of axial slices and the top of the
    others is up, where the volume's axes run to the front and to the top. They are in the middle,
    but where a volume cuts off a head, below, is the edge of the image.
    """
    read, info = po.measurements.read_volume(file)
    axes = np.zeros((3, 3)) if info.affine is None else info.affine[:3, :3].numpy()
    size = axes[2, 2]
    if size <= 0 or not np.array_equal(np.abs(axes[0]), [size, 0, 0]) or axes[1, 1] != size:
        raise SystemExit(f"{file}: wanted cubes whose axes run to a side, the front and the top")
    volume = read.double().numpy()
    volume = np.clip(volume / np.quantile(volume, 0.999), 0, 1)
    step, parts, found = field / SIDE / size, 4, []
    first = (step / parts - 1) / 2  # the middle of the first of so many parts of a pixel
    how = {"order": 1} if step % 1 else {"order": 0, "mode": "grid-constant"}
    for axis in range(3):
        for share in (0.4, 0.55):
            slice = np.flipud(np.take(volume, round(share * volume.shape[axis]), axis))
            over = np.array(slice.shape) - SIDE * step
            place = first + np.trunc(over / [1 if axis else 2, 2])
            whole = affine_transform(
                slice,
                np.full(2, step / parts),
                place,
                (parts * SIDE, parts * SIDE),
                **how,
            )
            found.append(whole.reshape(SIDE, parts, SIDE, parts).mean((1, 3)))
    return torch.from_numpy(np.stack(found)).float()[:, None]


def loaded(folder: Path | None) -> po.priors.Network:
    """The prior in a folder, or the one that ships."""
    how = {"autocast": "bfloat16"}
    return po.priors.from_pretrained(folder, **how) if folder else po.priors.brain_mri(**how)


def scores(found: Tensor, truth: Tensor) -> dict[str, float]:
    found = found.clamp(0, 1).float()[None]
    return {
        "psnr": round(float(psnr(found, truth[None], 1.0)[0]), 2),
        "ssim": round(float(ssim(found, truth[None], (0, 1))[0]), 4),
    }


def covered(run: po.Run, truth: Tensor, inside: Tensor) -> dict[str, float]:
    """By level, the share of the pixels ``inside`` where Student's prediction interval around the
    mean of the samples holds the truth: for normal samples it does as often as it says."""
    error, freedom = run.predictive()
    off = (run.mean - truth).abs() / error
    ends = {level: student.ppf((1 + level) / 2, freedom) for level in LEVELS}
    return {
        f"{100 * level:.0f} %": round(float((off[inside] <= end).float().mean()), 3)
        for level, end in ends.items()
    }


def solved(
    like: po.Likelihood, truth: Tensor, prior, method, steps: int, n: int, pairs: bool
) -> dict[str, float]:
    """Scores of the mean of n samples, which begin with those of a smaller n."""
    began, post = time.process_time(), po.Posterior(prior, like)
    run = po.sample(post, method, n=n, steps=steps, seed=0, batch=5, antithetic=pairs)
    seconds = time.process_time() - began
    x, head = run.samples, truth > 0.05
    rest = like.y - like.A(x)
    chi2 = dot(rest, rest) / (2 * NOISE**2 * like.y.numel())
    one = torch.stack([psnr(s.clamp(0, 1)[None], truth[None], 1.0)[0] for s in x])
    return {
        **scores(x.mean(0), truth),
        **{f"psnr of the mean of {k}": scores(x[:k].mean(0), truth)["psnr"] for k in (5,) if k < n},
        "psnr of one sample": round(float(one.mean()), 2),
        "chi2": round(float(chi2.mean()), 3),
        "coverage": covered(run, truth, head),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("slices", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--outside", type=Path, nargs="*", default=[], help="volumes of heads")
    parser.add_argument("--field", type=float, default=256.0, help="of view of those, mm")
    parser.add_argument("--prior", type=Path, help="a folder; the one that ships when left out")
    parser.add_argument("--methods", nargs="*", default=["MMPS"], choices=list(METHODS))
    parser.add_argument("--count", type=int, default=10, help="held-out slices (default: 10)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=5, help="of each slice (default: 5)")
    parser.add_argument("--antithetic", action="store_true", help="samples in antithetic pairs")
    parser.add_argument("--speeds", type=int, nargs="*", default=list(CENTRE), choices=list(CENTRE))
    parser.add_argument("--pattern", default="columns", choices=("columns", "points"))
    parser.add_argument("--rows", type=int, help="solve the first so many slices of each source")
    asked = parser.parse_args()
    prior = loaded(asked.prior) if asked.methods else None
    record = json.loads(asked.out.read_text()) if asked.out.exists() else {}

    def keep(place: str, number: int, make) -> None:
        """One entry of the list at a place, unless it is there."""
        rows = record.setdefault(place, [])
        if number >= len(rows):
            rows.append(make())
            print(place, number, rows[-1], flush=True)
            asked.out.write_text(json.dumps(record, indent=1) + "\n")

    with np.load(asked.slices, allow_pickle=False) as data:
        trained = torch.from_numpy(data["train"][300::900]).float()[:, None] / 255
        test = data["test"]
        held = torch.from_numpy(test[:: len(test) // asked.count][: asked.count])
    sources = {"held out": held.float()[:, None] / 255}
    for file in asked.outside:
        of = "" if asked.field == 256 else f" at {asked.field:g} mm"
        sources[file.name.split(".")[0] + of] = outside(file, asked.field)
    scattered = ", points" if asked.pattern == "points" else ""
    for speed in asked.speeds:
        of_train = [measured(x, speed, 1000 + k, asked.pattern) for k, x in enumerate(trained)]
        for k, weight in enumerate(WEIGHTS):
            keep(
                f"weight of TV, {speed}x{scattered}",
                k,
                lambda w=weight, ls=of_train: {
                    "weight": w,
                    "psnr": sum(
                        scores(total_variation(like.A, like.y[None], w)[0], x)["psnr"]
                        for like, x in zip(ls, trained, strict=True)
                    )
                    / len(trained),
                },
            )
        best = max(record[f"weight of TV, {speed}x{scattered}"], key=lambda row: row["psnr"])[
            "weight"
        ]
        for source, truths in sources.items():
            for k, x in enumerate(truths):
                like = measured(x, speed, k, asked.pattern)
                name = f"{source}, {speed}x{scattered}"
                keep(
                    f"{name}, zero filling",
                    k,
                    lambda a=like, x=x: scores(a.A.adjoint(a.y[None])[0], x),
                )
                keep(
                    f"{name}, TV",
                    k,
                    lambda a=like, x=x, w=best: scores(total_variation(a.A, a.y[None], w)[0], x),
                )
            for method in asked.methods:
                for k, x in enumerate(truths[: asked.rows]):
                    kind = "antithetic samples" if asked.antithetic else "samples"
                    usual = asked.samples == 5 and not asked.antithetic
                    more = "" if usual else f", {asked.samples} {kind}"
                    place = f"{name}, {method} of {asked.steps} steps{more}"
                    like = measured(x, speed, k, asked.pattern)
                    keep(
                        place,
                        k,
                        lambda a=like, x=x, m=method: solved(
                            a, x, prior, METHODS[m], asked.steps, asked.samples, asked.antithetic
                        ),
                    )
    summary(record)


def summary(record: dict[str, list[dict]]) -> None:
    """Means over slices."""
    for place, rows in record.items():
        if "ssim" not in rows[0]:
            continue
        mean = {
            name: np.mean([row[name] for row in rows]) for name in rows[0] if name != "coverage"
        }
        inside = {
            level: round(float(np.mean([row["coverage"][level] for row in rows])), 3)
            for level in rows[0].get("coverage", {})
        }
        print(f"{place}: {len(rows)} slices, {mean} {inside}")


if __name__ == "__main__":
    main()
