"""What a person should look at before believing a run, as plain sentences.

``sample`` gives those of them as warnings that need no reference and are not said by then; ``evaluation.summary`` collects them all.
"""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.lineage import lineage, remarks
from posteriori.methods.courses import off_course
from posteriori.methods.evidence import GAP
from posteriori.run import Run

SPECKLE = 0.002
# chi-square of samples that meet y to rounding: no posterior's do.
EXACT = 1e-6
# A standard deviation that is off by more than this for want of steps is said.
KEPT = 0.1


class RunWarning(UserWarning):
    """A finished run that should be looked at before it is believed."""


def quiet() -> AbstractContextManager[Any]:
    """Within it ``sample`` tells nothing, for those who show the flags, or scores, themselves."""
    return warnings.catch_warnings(action="ignore", category=RunWarning)


def tell(run: Run, post: Posterior) -> Run:
    """The run itself, after a ``RunWarning`` for each sentence that looking at the samples gives.

    It costs an operator call for each sample, which is not counted. Lost rows and the evidence bound of a fit have been told by then.
    Whatever fails here is said and costs no sample.
    """
    try:
        with torch.no_grad():
            chi2 = chi_squares(run, post)
            record = facts(run, post) | {"diverged": 0, "evidence_gap": None, "coverage": None, "speckle": None}
            record["chi2_samples"] = None if chi2 is None else float((run.log_w.softmax(0).to(chi2) * chi2).sum())
        found = flags(record, post)
    except Exception as error:  # a run that is finished must not be lost to an operator that fails on its samples
        found = [f"The samples could not be compared with the measurement ({type(error).__name__}: {error})."]
    for sentence in found:
        warnings.warn(sentence, RunWarning, stacklevel=3)
    return run


def chi_squares(run: Run, post: Posterior) -> Tensor | None:
    """chi2 of each sample, (n,) float64 on the CPU; None for a noise level of 0."""
    if post.given.noise.std == 0:
        return None
    return torch.cat([post.given.chi2(part.to(post.given.y.device)) for part in run.samples.split(32)]).double().cpu()


def facts(run: Run, post: Posterior) -> dict[str, Any]:
    """What ``flags`` asks for and samples, weights and trace alone tell: the keys are explained at ``evaluation.summary``."""
    failed = [s for s in run.status if not s.ok]
    x, given = run.samples, post.given
    record: dict[str, Any] = {
        "n": len(run.status),
        "finished": len(x),
        "diverged": len(failed),
        "first_failure": str(failed[0]) if failed else None,
        "effective_samples": run.ess,
        "off_course": _left(run),
        "cloud": lineage(run, post),
        "evidence_gap": float(run.trace["gap"][-1].max()) if "gap" in run.trace else None,
        "range": list(given.range) if given.range else None,
        "scale": float(x.abs().max()),
        "spread": float(run.std.double().mean()) if len(x) > 1 else None,
        "constant": _constant(x, given.range) if x[0].numel() > 1 else None,
        "outside_range": None,
    }
    if given.range is not None and not x.is_complex():
        (low, high), room = given.range, 0.1 * (given.range[1] - given.range[0])
        record["outside_range"] = float(((x < low - room) | (x > high + room)).double().mean())
    return record


def _left(run: Run) -> str | None:
    """What is said where the run left the course of its published setting."""
    c = run.config
    return off_course(c.get("published"), len(c["levels"]) - 1, c["grid"]) if "levels" in c else None


def _constant(x: Tensor, range: tuple[float, float] | None) -> float:
    """Share of samples whose numbers are all the same, to a thousandth of the stated range or a millionth of the largest."""
    flat = x.flatten(1)
    width = 1e-3 * (range[1] - range[0]) if range is not None else 1e-6 * flat.abs().amax(1)
    return float(((flat - flat[:, :1]).abs().amax(1) <= width).double().mean())


def flags(record: dict[str, Any], post: Posterior) -> list[str]:
    """The sentences for a record of ``summary``, none when nothing stands out."""
    measured = post.given.y.numel() * (2 if post.given.y.is_complex() else 1)
    numbers = math.prod(post.shape) * (2 if post.prior.complex else 1)
    found: list[str | None] = [
        record.get("off_course"),
        *_ended(record),
        *remarks(record["cloud"]),
        *_lost(record),
        *_fit(record, measured, bool(post.given.y.any())),
        *_looks(record),
        *_kept(record),
        *_spread(record, numbers),
    ]
    return [sentence for sentence in found if sentence]


def _ended(record: dict[str, Any]) -> list[str]:
    out = []
    if record["diverged"]:
        out.append(f"{record['diverged']} of {record['n']} rows diverged and are left out: {record['first_failure']}.")
    if record["finished"] > 1 and record["effective_samples"] < 2:
        out.append(
            f"The weights have collapsed: {record['finished']} samples count as {record['effective_samples']:.1f}; "
            "use more particles, or a larger noise level."
        )
    return out


def _lost(record: dict[str, Any]) -> list[str]:
    gap = record["evidence_gap"]
    if gap is None or gap <= GAP:
        return []
    return [
        f"The evidence bound of the fit lies {gap:.2f} below the evidence, as if modes of {100 * (1 - math.exp(-gap)):.0f} % of "
        "the posterior were lost: use more updates, annealing or a wider family; weights do not bring back what the fit has lost."
    ]


def _fit(record: dict[str, Any], measured: int, anything: bool) -> list[str]:
    """chi2 is 1 on average and scatters by sqrt(2 / m): few measurements are given more room than [0.5, 2]. A y of zeros alone, of which
    there is not ``anything``, may come from an A of zeros, which every image meets."""
    chi2 = record["chi2_samples"]
    if chi2 is None:
        return []
    room = 4 * math.sqrt(2 / measured)
    if chi2 > max(2.0, 1 + room):
        return [
            f"The residual is {math.sqrt(chi2):.1f} times the stated noise: is the noise level in the right unit, and is A the operator "
            "that made this measurement?"
        ]
    if chi2 < EXACT and anything:
        return ["The samples meet y exactly: they reproduce its noise, and have no spread in what is measured."]
    if chi2 < min(0.5, 1 - room):
        return [
            f"The residual is only {math.sqrt(chi2):.2f} times the stated noise: the samples reproduce the noise, or the noise level is "
            "stated too high."
        ]
    return []


def _looks(record: dict[str, Any]) -> list[str]:
    out = []
    if record["constant"]:
        out.append(
            f"{100 * record['constant']:.0f} % of the samples have the same value everywhere: the prior or the method has lost the image."
        )
    if record["speckle"] is not None and record["speckle"] > SPECKLE:
        out.append(
            f"{100 * record['speckle']:.1f} % of the pixels stick out of all their neighbours (salt-and-pepper speckle): look at a sample "
            "at full size, whatever its PSNR."
        )
    if record["outside_range"] is not None and record["outside_range"] > 0.05:
        low, high = record["range"]
        out.append(
            f"{100 * record['outside_range']:.0f} % of the values lie over a tenth of the range outside the stated [{low:g}, {high:g}]: "
            "is the range right?"
        )
    return out


def _kept(record: dict[str, Any]) -> list[str]:
    kept = record.get("kept")
    if kept is None or abs(kept - 1) <= KEPT:
        return []
    return [
        f"These noise levels and this transition give {100 * kept:.0f} % of the standard deviation of a Gaussian as wide as the samples: "
        "use more levels or a smaller last one, or the transition Midpoint."
    ]


def _spread(record: dict[str, Any], numbers: int) -> list[str]:
    if record["spread"] is not None and record["spread"] <= 1e-6 * record["scale"]:
        return ["All samples are the same: this run is a point estimate, its spread says nothing about uncertainty."]
    # A share over few numbers scatters by itself, and neighbouring pixels are not independent.
    if record["coverage"] is None or numbers < 50:
        return []
    widest = record["coverage"][-1]
    nominal, covered = widest["nominal"], widest["covered"]
    said = f"The {100 * nominal:.0f} % intervals hold {100 * covered:.0f} % of the reference"
    if covered < nominal - 0.15:
        return [f"{said}: the samples are under-dispersed, or biased."]
    if covered > nominal + 0.6 * (1 - nominal) and nominal < 0.97:
        return [f"{said}: the samples are over-dispersed."]
    return []
