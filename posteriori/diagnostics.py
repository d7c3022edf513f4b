"""What a person should look at before believing a run, as plain sentences.

``sample`` gives those of them as warnings that need no reference and are not said by then;
``evaluation.summary`` collects them all. A flag that chance can raise is raised on at most 2 % of
sound runs, but for that of an unlikely blur kernel, see docs/results/blind.md. What each sees, and
how often, is in docs/results/flags.md, which benchmarks/flags.py measures.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posteriori.border import excess, remark
from posteriori.genealogy import genealogy_of, remarks
from posteriori.kernel_doubts import kernel_facts, kernel_remarks
from posteriori.likelihood import Posterior
from posteriori.methods.courses import off_course
from posteriori.methods.variational.score_prior.evidence import GAP
from posteriori.rng import Streams
from posteriori.run import Run, read_json, write_json

# Share of speckled pixels: 1 % of photographs at half their size have more, none at full size.
SPECKLE = 0.0005
# chi-square of one sound sample lies beyond each limit with this probability, and of a mean of
# samples with 2.8 times as much at most.
ALPHA = 0.003
# Fewer numbers than these are nearly equal now and then by themselves.
FEWEST_SAMPLES = 4
# chi-square of samples that meet y to rounding: no posterior's do.
EXACT = 1e-6
# A standard deviation that is off by more than this for want of steps is said.
KEPT = 0.1


class RunWarning(UserWarning):
    """A finished run that should be looked at before it is believed."""


def quiet() -> AbstractContextManager[Any]:
    """Within it ``sample`` tells nothing, for those who show the flags, or scores, themselves."""
    return warnings.catch_warnings(action="ignore", category=RunWarning)


def tell(run: Run, post: Posterior, folder: str | Path | None = None) -> Run:
    """The run itself, after a ``RunWarning`` for each sentence that looking at the samples gives.

    It costs an operator call for each sample, which is not counted. Lost rows and the evidence
    bound of a fit have been told by then. Whatever fails here is said and costs no sample.
    folder: that of the run. What was found is written to its summary.json, for the tables of
    ``posteriori.report``, unless a summary of this run is there already.
    """
    try:
        with torch.no_grad():
            chi2 = chi_squares(run, post)
            record = facts(run, post) | {"coverage": None, "speckle": None}
            record["chi2_samples"] = (
                None if chi2 is None else float((run.log_w.softmax(0).to(chi2) * chi2).sum())
            )
            record["chi2_expected"] = None if chi2 is None else expected_chi2(run, post)
        found = flags(record | {"diverged": 0, "evidence_gap": None})
        if folder is not None:
            _note(run, record | {"flags": flags(record)}, Path(folder) / "summary.json")
    except Exception as error:
        # A run that is finished must not be lost to an operator that fails on its samples
        found = [
            "The samples could not be compared with the measurement "
            f"({type(error).__name__}: {error})."
        ]
    for sentence in found:
        warnings.warn(sentence, RunWarning, stacklevel=3)
    return run


def _note(run: Run, record: dict[str, Any], place: Path) -> None:
    """What ``tell`` has found as the summary of the run, which has no seconds of another one."""
    if place.exists() and read_json(place).get("seconds") == run.seconds:
        return
    write_json(
        place,
        {
            "method": run.config.get("method", "unknown"),
            "counts": run.counts,
            "seconds": run.seconds,
        }
        | record,
    )


def chi_squares(run: Run, post: Posterior) -> Tensor | None:
    """chi2 of each sample, (n,) float64 on the CPU; None for a noise level of 0."""
    if post.given.noise.std == 0:
        return None
    device = post.given.y.device
    found = torch.cat([post.given.chi2(part.to(device)) for part in run.samples.split(32)])
    return found.double().cpu()


def expected_chi2(run: Run, post: Posterior) -> float:
    """The mean of chi2 when the samples are right: 1 for a Gaussian law, for any other that of one
    measurement drawn from each sample.

    Of right samples x and the y they are given, (x, y) has the law of (x, y') with y' drawn from x.
    A law whose variance is estimated from y itself has means far from 1 where counts are few: 1.6
    at five photons, 0.3 at half a photon.
    """
    law, given, total = post.given.noise, post.given, 0.0
    if law.std is not None:
        return 1.0
    for k, part in enumerate(run.samples.split(32)):
        clean = given.A(part.to(given.y.device))
        clean = clean if clean.is_complex() else clean.clamp(*law.support)
        y = law.sample(clean, Streams(0, range(32 * k, 32 * k + len(part))))
        w = run.log_w.softmax(0)[32 * k : 32 * k + len(part)]
        square = (y - clean).abs().square() / (2 if y.is_complex() else 1)  # of each real number
        total += float((w * (square / law.variance(y)).double().cpu().flatten(1).mean(1)).sum())
    return total


def facts(run: Run, post: Posterior) -> dict[str, Any]:
    """What ``flags`` asks for and samples, weights and trace alone tell: the keys are explained at
    ``evaluation.summary``."""
    failed = [s for s in run.status if not s.ok]
    shown, given = run.in_frame(), post.given
    x = shown.samples
    record: dict[str, Any] = {
        "n": len(run.status),
        "finished": len(x),
        "diverged": len(failed),
        "first_failure": str(failed[0]) if failed else None,
        "effective_samples": run.ess,
        "off_course": _left(run),
        "cloud": genealogy_of(run, post),
        "evidence_gap": float(run.trace["gap"][-1].max()) if "gap" in run.trace else None,
        "range": list(given.range) if given.range else None,
        "measured": given.y.numel() * (2 if given.y.is_complex() else 1),
        "blank": not bool(given.y.any()),
        "border": excess(run, post),
        "kernel": kernel_facts(run, post),
        "scale": float(x.abs().max()),
        "spread": float(shown.std.double().mean()) if len(x) > 1 else None,
        "constant": _constant(x, given.range) if x[0].numel() >= FEWEST_SAMPLES else None,
        "outside_range": None,
    }
    if not x.is_complex():
        stated = [(part.samples, part.config["range"]) for part in run.parts.values()]
        shares = [
            (_outside(v, ends), list(ends)) for v, ends in (*stated, (x, given.range)) if ends
        ]
        if shares:  # of several parts that which lies farthest out
            record["outside_range"], record["range"] = max(shares, key=lambda pair: pair[0])
    return record


def _outside(x: Tensor, range: Sequence[float]) -> float:
    """Share of values a tenth of the range outside."""
    (low, high), room = range, 0.1 * (range[1] - range[0])
    return float(((x < low - room) | (x > high + room)).double().mean())


def _left(run: Run) -> str | None:
    """What is said where the run left the course of its published setting."""
    c = run.config
    return (
        off_course(c.get("published"), len(c["levels"]) - 1, c["grid"]) if "levels" in c else None
    )


def _constant(x: Tensor, range: tuple[float, float] | None) -> float:
    """Share of samples whose numbers are all the same, to a thousandth of the stated range or a
    millionth of the largest."""
    flat = x.flatten(1)
    width = 1e-3 * (range[1] - range[0]) if range is not None else 1e-6 * flat.abs().amax(1)
    return float(((flat - flat[:, :1]).abs().amax(1) <= width).double().mean())


def flags(record: dict[str, Any]) -> list[str]:
    """The sentences for a record of ``summary``, none when nothing stands out."""
    found: list[str | None] = [
        record.get("off_course"),
        *_ended(record),
        *remarks(record["cloud"]),
        *_lost(record),
        *_fit(record),
        remark(record.get("border")),
        *kernel_remarks(record.get("kernel")),
        *_looks(record),
        *_kept(record),
        *_spread(record),
        *dispersion(record),
    ]
    return [sentence for sentence in found if sentence]


def _ended(record: dict[str, Any]) -> list[str]:
    out = []
    if record["diverged"]:
        out.append(
            f"{record['diverged']} of {record['n']} rows diverged and are left out: "
            f"{record['first_failure']}."
        )
    if record["finished"] > 1 and record["effective_samples"] < few_draws(record["finished"]):
        out.append(
            f"The weights have collapsed: {record['finished']} samples count "
            f"as {record['effective_samples']:.1f}; use more particles, or a larger noise level."
        )
    return out


def few_draws(samples: int) -> float:
    """Weights have collapsed below so many effective samples: 2, and less of fewer than eight,
    whose weights differ by chance."""
    return min(2.0, max(1.05, samples / 4))


def _lost(record: dict[str, Any]) -> list[str]:
    gap = record["evidence_gap"]
    if gap is None or gap <= GAP:
        return []
    return [
        f"The evidence bound of the fit lies {gap:.2f} below the evidence, as if modes "
        f"of {100 * (1 - math.exp(-gap)):.0f} % of the posterior were lost: use more updates, "
        "annealing or a wider family; weights do not bring back what the fit has lost."
    ]


def chi2_limits(measured: int) -> tuple[float, float]:
    """Between which the chi2 of sound samples lies: 0.5 and 2, and further apart where
    m = ``measured`` numbers scatter beyond these.

    Samples that are right are exchangeable with the truth, so that m chi2 of one of them has the
    chi-square law of m degrees of freedom over all y, and passes a quantile with probability ALPHA.
    A mean of samples that share one y is smaller in convex order, and passes it with at most 2.8
    ALPHA. Wider than the law asks for many numbers: methods approximate.
    """
    from scipy.special import chdtri

    return min(0.5, float(chdtri(measured, 1 - ALPHA)) / measured), max(
        2.0, float(chdtri(measured, ALPHA)) / measured
    )


def _fit(record: dict[str, Any]) -> list[str]:
    """A y of zeros alone ("blank") may come from an A of zeros, which every image meets."""
    chi2 = record["chi2_samples"]
    if chi2 is None:
        return []
    if chi2 < EXACT:
        found = (
            "The samples meet y exactly: "
            "they reproduce its noise, and have no spread in what is measured."
        )
        return [] if record["blank"] else [found]
    chi2 /= record["chi2_expected"] or 1.0
    lowest, highest = chi2_limits(record["measured"])
    if chi2 > highest:
        return [
            f"The residual is {math.sqrt(chi2):.1f} times the stated noise: is the noise level "
            "in the right unit, and is A the operator that made this measurement?"
        ]
    if chi2 < lowest:
        return [
            f"The residual is only {math.sqrt(chi2):.2f} times the stated noise: "
            "the samples reproduce the noise, or the noise level is stated too high."
        ]
    return []


def _looks(record: dict[str, Any]) -> list[str]:
    out = []
    if record["constant"]:
        out.append(
            f"{100 * record['constant']:.0f} % of the samples have the same value everywhere: "
            "the prior or the method has lost the image."
        )
    out += speckled(record)
    if record["outside_range"] is not None and record["outside_range"] > 0.05:
        low, high = record["range"]
        out.append(
            f"{100 * record['outside_range']:.0f} % of the values lie over a tenth "
            f"of the range outside the stated [{low:g}, {high:g}]: is the range right?"
        )
    return out


def speckled(record: dict[str, Any]) -> list[str]:
    if record["speckle"] is None or record["speckle"] <= SPECKLE:
        return []
    return [
        f"{100 * record['speckle']:.2g} % of the pixels stick out of all their neighbours "
        "(salt-and-pepper speckle): look at a sample at full size, whatever its PSNR."
    ]


def _kept(record: dict[str, Any]) -> list[str]:
    kept = record.get("kept")
    if kept is None or abs(kept - 1) <= KEPT:
        return []
    return [
        f"These noise levels and this transition give {100 * kept:.0f} % "
        "of the standard deviation of a Gaussian as wide as the samples: "
        "use more levels or a smaller last one, or the transition Midpoint."
    ]


def _spread(record: dict[str, Any]) -> list[str]:
    if record["spread"] is not None and record["spread"] <= 1e-6 * record["scale"]:
        return [
            "All samples are the same: this run is a point estimate, "
            "its spread says nothing about uncertainty."
        ]
    return []


def dispersion(record: dict[str, Any]) -> list[str]:
    """Whether the widest interval that the samples can state holds too few, or too many, of the
    reference's numbers.

    Its share must miss the level by as much as matters, and by more than the shares of the samples
    in one another's intervals do, see ``calibration.room``: numbers that depend on each other are
    missed together.
    """
    if (
        record["coverage"] is None
        or not record["spread"]
        or record["spread"] <= 1e-6 * record["scale"]
    ):
        return []
    widest = record["coverage"][-1]
    nominal, covered, room = widest["nominal"], widest["covered"], widest["room"]
    said = f"The {100 * nominal:.0f} % intervals hold {100 * covered:.0f} % of the reference"
    if covered < nominal - max(0.15, room):
        return [f"{said}: the samples are under-dispersed, or biased."]
    if covered > nominal + max(0.6 * (1 - nominal), room) and nominal < 0.97:
        return [f"{said}: the samples are over-dispersed."]
    return []
