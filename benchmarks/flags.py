"""How often each flag is raised on what is sound, and on a stated fault: docs/results/flags.md.

    python benchmarks/flags.py                        (packaged photographs, closed forms)
    python benchmarks/flags.py --photos FOLDER        (and every photograph in a folder)
    python benchmarks/flags.py --write                (and write the page)

Where the law is known the rates are its own; elsewhere they are counts over runs that are drawn
here with fixed seeds.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from scipy import stats
from squares import crops, draw, packaged, salted
from torch import Tensor

import posteriori as po
from posteriori import border, diagnostics
from posteriori import evaluation as ev
from posteriori.evaluation.calibration import members, room, student_room
from posteriori.evaluation.noise_level import noise_level
from posteriori.evaluation.spread import kept_of
from posteriori.genealogy import genealogy_of, remarks
from posteriori.methods import AFDPS, DDIM, DDSMC, TDS, MCGDiff, Midpoint
from posteriori.report.words import MISS
from posteriori.rng import Streams
from posteriori.run import Run, Status

F64 = torch.float64
PAGE = Path(__file__).parent.parent / "docs" / "results" / "flags.md"
Row = tuple[str, str, str, str, str]


def share(found: list[bool]) -> str:
    return f"{sum(found)} of {len(found)} ({100 * sum(found) / len(found):.1f} %)"


def looks(pictures: list[Tensor], source: str) -> list[Row]:
    """Flags about what a single picture looks like, on photographs."""
    clean = [float(ev.speckle(x[None])) > diagnostics.SPECKLE for x in pictures]
    seen = {
        text: [
            float(ev.speckle(salted(x, part, by, k)[None])) > diagnostics.SPECKLE
            for k, x in enumerate(pictures)
        ]
        for text, part, by in (
            ("1 % of the pixels wrong by 0.3", 0.01, 0.3),
            ("0.5 % by 0.3", 0.005, 0.3),
            ("0.2 % by 0.5", 0.002, 0.5),
        )
    }
    power = "; ".join(f"{text}: {share(found)}" for text, found in seen.items())

    def outside(x: Tensor) -> bool:
        return float(((x < -0.1) | (x > 1.1)).double().mean()) > 0.05

    def flat(x: Tensor) -> bool:
        return diagnostics._constant(x[None], (0.0, 1.0)) > 0

    return [
        ("speckle", source, share(clean), power.split(":")[0], power.split(":", 1)[1].strip()),
        (
            "values outside the range",
            source,
            share([outside(x) for x in pictures]),
            "images in [-1, 1] stated to lie in [0, 1]",
            share([outside(2 * x - 1) for x in pictures]),
        ),
        (
            "one value everywhere",
            source,
            share([flat(x) for x in pictures]),
            "a flat picture with noise of 0.0001",
            share([flat(0.5 + 1e-4 * draw(1, 16, 16, seed=k)) for k in range(50)]),
        ),
    ]


def misfit() -> list[Row]:
    """chi2, from the chi-square law: one sample, and at most 2.8 times as much for a mean of
    several."""
    out = []
    for m in (1, 5, 20, 100, 10000):
        low, high = (m * limit for limit in diagnostics.chi2_limits(m))
        law = stats.chi2(m)
        rate = 100 * float(law.sf(high) + law.cdf(low))
        out.append(
            (
                f"residual too large or too small, {m} number{'s' if m > 1 else ''}",
                "the chi-square law",
                f"{rate:.2g} %; of a mean of samples at most {2.8 * rate:.2g} %",
                "noise stated 3 times too small; too large",
                f"{100 * law.sf(high / 9):.0f} %; {100 * law.cdf(9 * low):.0f} %",
            )
        )
    return out


def borders() -> list[Row]:
    """The border of a picture, a kernel reaching 4 pixels: the ratio of two mean squares of noise
    has Fisher's law."""
    out = []
    for side, colours in ((16, 1), (40, 1), (97, 3)):
        band = colours * (side**2 - (side - 4) ** 2)
        inside = colours * side**2 - band
        limit = 1 + border.SHARE + border.DEVIATIONS * (2 / band + 2 / inside) ** 0.5
        law = stats.f(band, inside)
        name = f"border out of line, {side} x {side} x {colours}"
        fault = "squared residual at the border 2 times that inside"
        out.append(
            (
                name,
                "Fisher's law",
                f"{100 * law.sf(limit):.2g} %",
                fault,
                f"{100 * law.sf(limit / 2):.0f} %",
            )
        )
    return out


def photons(pictures: list[Tensor]) -> list[Row]:
    """chi2 where the variance is estimated from counts: the truth itself as the sample."""
    out = []
    for peak in (1.0, 5.0, 30.0, 1000.0):
        alarms, seen = [], []
        for k, x in enumerate(pictures[::4]):
            x = x[:, ::2, ::2].clamp(0, 1)
            for stated, found in ((peak, alarms), (6 * peak, seen)):
                # Counts of ``peak`` photons, read with the peak that is stated.
                y = po.noise.Poisson(peak).sample(x[None], Streams(k, [0]))[0]
                prior = po.priors.Gaussian(torch.full(x.shape, 0.5, dtype=F64), 0.1, range=(0, 1))
                post = po.Posterior(
                    prior,
                    po.Likelihood(
                        y,
                        po.operators.Identity(tuple(x.shape)),
                        po.noise.Poisson(stated),
                        range=(0, 1),
                    ),
                )
                record = ev.summary(made(x[None]), post)
                found.append(any("stated noise" in text for text in record["flags"]))
        out.append(
            (
                f"residual, at most {peak:g} photon{'s' if peak > 1 else ''}",
                "photographs with drawn counts",
                share(alarms),
                "a peak stated 6 times too high",
                share(seen),
            )
        )
    return out


def made(x: Tensor, log_w: Tensor | None = None) -> Run:
    config = {
        "method": "exact",
        "settings": {},
        "levels": [1.0, 0.0],
        "grid": "karras",
        "range": None,
    }
    weights = torch.zeros(len(x), dtype=F64) if log_w is None else log_w
    return Run(x, weights, None, (Status(),) * len(x), {"denoiser": 0}, {}, 0.0, config, ())


def weights() -> list[Row]:
    def collapsed(n: int, std: float, seed: int) -> bool:
        w = (std * draw(n, seed=seed)).softmax(0)
        return float(1 / w.square().sum()) < diagnostics.few_draws(n)

    return [
        (
            f"collapsed weights, {n} samples",
            "log-weights of standard deviation 1",
            share([collapsed(n, 1.0, k) for k in range(2000)]),
            "of standard deviation 20",
            share([collapsed(n, 20.0, k) for k in range(2000)]),
        )
        for n in (2, 4, 8, 64)
    ]


def degenerate(runs: int) -> list[Row]:
    """Clouds of 64 particles on four numbers of correlation 0.8 of which one is measured, drawn by
    the model or far off it."""
    C = 0.8 * torch.ones(4, 4, dtype=F64) + 0.2 * torch.eye(4, dtype=F64)
    prior = po.priors.Gaussian(torch.zeros(4, dtype=F64), C)
    A = po.operators.Dense(torch.eye(1, 4, dtype=F64))
    out = []
    for name, methods in (
        ("TDS, DDSMC, MCGDiff", (TDS(64), DDSMC(64), MCGDiff(64))),
        ("AFDPS", (AFDPS(64),)),
    ):
        alarms, seen = [], []
        for k in range(runs):
            for method in methods:
                for y, found in (
                    (1.09**0.5 * draw(1, seed=k), alarms),
                    (torch.full((1,), 20.0, dtype=F64), seen),
                ):
                    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.3)))
                    found.append(
                        bool(
                            remarks(
                                genealogy_of(po.sample(post, method, n=64, steps=20, seed=k), post)
                            )
                        )
                    )
        out.append(
            (
                "degenerate cloud",
                f"{name}, 64 particles; y drawn by the model",
                share(alarms),
                "y at 20 deviations",
                share(seen),
            )
        )
    return out


def evidence(runs: int) -> list[Row]:
    """A fit of two Gaussian numbers, and of two modes of which a Gaussian family keeps one."""
    alarms, seen = [], []
    means = torch.tensor([[-4.0, 0.0], [4.0, 0.0]], dtype=F64)
    one = po.priors.Gaussian(torch.zeros(2, dtype=F64), 1.0)
    two = po.priors.GaussianMixture(torch.ones(2, dtype=F64) / 2, means, 0.5)
    A = po.operators.Dense(torch.tensor([[0.0, 1.0]], dtype=F64))
    for k in range(runs):
        for prior, found in ((one, alarms), (two, seen)):
            post = po.Posterior(
                prior, po.Likelihood(0.5 * draw(1, seed=k), A, po.noise.Gaussian(0.5))
            )
            run = po.sample(
                post,
                po.methods.ScorePriorVI("diagonal", draws=64, updates=20),
                n=64,
                steps=20,
                seed=k,
            )
            found.append(float(run.trace["gap"][-1].max()) > diagnostics.GAP)
    return [
        (
            "modes lost by a fit",
            "a Gaussian, fitted by ScorePriorVI",
            share(alarms),
            "two equal modes, 8 deviations apart",
            share(seen),
        )
    ]


def level(runs: int) -> list[Row]:
    """The noise level that the residual tells, from exact samples of smooth images of which half of
    the numbers are noise."""
    out = []
    for m in (40, 400):
        place = torch.linspace(0, 1, m, dtype=F64)
        C = torch.exp(-0.5 * ((place[:, None] - place) / 0.1) ** 2) + 1e-6 * torch.eye(m, dtype=F64)
        prior, A = po.priors.Gaussian(torch.zeros(m, dtype=F64), C), po.operators.Identity((m,))
        x, alarms, seen = prior.sample(runs, 0), [], []
        for k in range(runs):
            y = x[k] + 0.3 * draw(m, seed=k)
            for sigma, found in ((0.3, alarms), (0.15, seen)):
                post = po.Posterior(
                    prior, po.Likelihood(y, A, po.noise.Gaussian(sigma), check=False)
                )
                told = noise_level(made(ev.exact_posterior(post).sample(4, k)), post)
                found.append(told is not None and told.differs)
        out.append(
            (
                f"another noise level, {m} numbers",
                "exact samples of smooth signals",
                share(alarms),
                "half the level stated",
                share(seen),
            )
        )
    return out


def spread(runs: int) -> list[Row]:
    """The spread that steps keep: seen by the samples' spread, of 4 samples of 300 numbers that all
    have the standard deviation 0.2."""

    def told(transition: po.methods.Transition, steps: int, seed: int) -> bool:
        levels = po.grid.karras(steps, 4.0, 0.01).double()
        seen = float((0.2 * draw(4, 300, seed=seed)).std(0).mean())
        return abs(kept_of(transition, levels, seen) - 1) > diagnostics.KEPT

    return [
        (
            "spread lost by the steps",
            "Midpoint, 16 steps, spread 0.2",
            share([told(Midpoint(), 16, k) for k in range(runs)]),
            "ancestral, 6 steps",
            share([told(DDIM(1.0), 6, k) for k in range(runs)]),
        )
    ]


def together(n: int, rank: int, seed: int, factor: float = 1.0) -> tuple[bool, bool]:
    """A reference and n samples of one law whose 400 numbers are moved by ``rank``: are their
    intervals called wrong, or off by points?"""
    z = draw(n + 1, rank, seed=seed) @ draw(rank, 400, seed=rank)
    truth, x = z[0], factor * z[1:]
    (found,) = ev.coverage(x, truth, (0.9,))
    record = {
        "nominal": found.nominal,
        "covered": found.covered,
        "room": room(members(x, truth, 0.9), n),
    }
    called = bool(diagnostics.dispersion({"coverage": [record], "spread": 1.0, "scale": 1.0}))
    inside = ev.student(x.mean(0), x.std(0), n, truth)
    return called, abs(100 * inside - 80) > max(MISS, 100 * student_room(x, truth, n))


def intervals(runs: int) -> list[Row]:
    out = []
    for n in (3, 4, 8, 16, 64):
        sound = {
            rank: [together(n, rank, 7 * k + 1) for k in range(runs)]
            for rank in (1, 2, 3, 5, 10, 40, 400)
        }
        narrow = [together(n, 400, 7 * k + 2, 0.3) for k in range(100)]
        for which, name in (
            (0, "intervals too narrow or too wide"),
            (1, "points that 80 % intervals miss"),
        ):
            rates = {
                rank: 100 * sum(pair[which] for pair in found) / runs
                for rank, found in sound.items()
            }
            worst = max(rates, key=rates.__getitem__)
            text = f"at most {rates[worst]:.1f} % (moved by {worst}; {runs} each)"
            out.append(
                (
                    f"{name}, {n} samples",
                    "400 numbers moved by 1 to 400",
                    text,
                    "spread 0.3 of the right one",
                    share([p[which] for p in narrow]),
                )
            )
    return out


def table(rows: list[Row]) -> str:
    heads = ("Flag", "Sound data", "Raised", "Fault", "Raised")
    return "\n".join(
        [
            "| " + " | ".join(heads) + " |",
            "|---" * 5 + "|",
            *("| " + " | ".join(row) + " |" for row in rows),
        ]
    )


TEXT = """# Flags: how often they are wrong, and what they see

`python benchmarks/flags.py --write`. A flag is a sentence about a finished run
(`posteriori.diagnostics`, and `RunWarning` of `sample`). Each is raised on at most 2 % of sound
runs, but for the count of ancestors, see below; where a row is a count, 0 of n means less than 3 /
n with 95 % confidence. Not in the table, because nothing is estimated: rows that diverged, equal
samples, samples that meet y exactly, published settings that were left.

{table}

Photographs are squares of 128 pixels, at full and at half size, of the packaged photograph and of
scikit-image's astronaut, camera, chelsea, coins, rocket, moon, grass, gravel and brick. {bsds}

The limits of chi2 are quantiles of the chi-square law (`flags.limits`): samples that are right are
exchangeable with the truth, so that their residual has the law of the noise. Where the variance of
y is estimated from y, chi2 is compared with that of measurements drawn from the samples. The limits
of intervals are those of the samples among themselves (`calibration.room`): numbers that depend on
each other are missed together, and a fixed limit of 15 points is passed by up to 90 % of sound
runs. With three samples an interval is missed by too much only where it is missed by nearly all.

Ancestors are counted, not estimated: AFDPS's clouds of 64 do descend from so few, and the sentence
says what their samples count as.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, default=None)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--runs", type=int, default=300)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pictures = [crop for x in packaged() for crop in crops(x)]
    steps: list[Callable[[], list[Row]]] = [
        lambda: looks(pictures, f"{len(pictures)} squares of photographs"),
        misfit,
        borders,
        lambda: photons(pictures),
        weights,
        lambda: spread(50),
        lambda: intervals(chosen.runs),
        lambda: degenerate(60),
        lambda: evidence(40),
        lambda: level(100),
    ]
    rows: list[Row] = []
    for step in steps:
        rows += step()
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    bsds = ""
    if chosen.photos is not None:
        files = sorted(p for p in chosen.photos.iterdir() if p.suffix in (".jpg", ".png"))
        mine = [
            float(ev.speckle(po.measurements.read_image(p, channels=3)[0][None]))
            > diagnostics.SPECKLE
            for p in files
        ]
        bsds = (
            f"Of the photographs in {chosen.photos.parent.name}/{chosen.photos.name}, each whole, "
            f"speckle is found on {share(mine)}."
        )
    text = TEXT.format(table=table(rows), bsds=bsds)
    print(text)
    if chosen.write:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
