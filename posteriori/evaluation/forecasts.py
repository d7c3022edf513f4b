"""One run as a forecast of the image that was there: what a table over many measurements is made
of."""

from __future__ import annotations

from typing import Any

from posteriori.evaluation.calibration import student
from posteriori.evaluation.distances import effective_size, resample
from posteriori.evaluation.ensembles import crps
from posteriori.evaluation.images import lpips
from posteriori.evaluation.summary import scored_part, summary
from posteriori.likelihood import Posterior, framed
from posteriori.methods.base import Method
from posteriori.run import Run

LEVELS = (50, 80, 95)


def forecast(
    run: Run, post: Posterior, reference: Any, method: Method[Any], *, perceptual: bool = False
) -> dict[str, Any]:
    """The ``summary`` of a run, with

    crps: of the samples, in the unit of the image; of magnitudes for complex images. It and the
    shares below count one sample of each antithetic pair.
    inside_50, inside_80, inside_95: share of the reference within mean +- t sqrt(1 + 1 / n) std,
    see ``calibration.student``; real images only. lpips: of one sample, averaged over samples;
    where ``perceptual`` and the image is a picture.
    network: passes through the network a sample, denoiser calls and vector-Jacobian products.

    reference: as for ``summary``; None where a number needs one. Raises ``MetricUnavailable``
    without the package of LPIPS, and as ``summary``.
    """
    record = summary(run, post, reference, method)
    record |= dict.fromkeys(("crps", "lpips", *(f"inside_{level}" for level in LEVELS)))
    record["network"] = run.counts["denoiser"] + run.counts["vjp"]
    if reference is None:
        return record
    shown, truth, range = scored_part(run.in_frame(), reference, post.given.range)
    truth = framed(truth, post.given.frame).to(shown.samples)
    shown = shown.independent()
    samples, size = shown.samples, effective_size(shown.log_w)
    if len(samples) > 1 and size > 1 + 1e-6:
        equal = samples if size > len(samples) - 1e-6 else resample(samples, shown.log_w)
        magnitudes = samples.is_complex()
        record["crps"] = crps(*((equal.abs(), truth.abs()) if magnitudes else (equal, truth)))
        if not magnitudes:
            record |= {
                f"inside_{level}": student(shown.mean, shown.std, size, truth, level / 100)
                for level in LEVELS
            }
    if perceptual and range is not None and not samples.is_complex() and truth.ndim == 3:
        whole = truth[None].expand_as(samples)
        record["lpips"] = float((shown.weights * lpips(samples, whole, range)).sum())
    return record
