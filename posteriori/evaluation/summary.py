"""One run in numbers. Of one sample, of the mean of the samples and of their spread separately:
they answer different questions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from posteriori.diagnostics import chi_squares, dispersion, expected_chi2, facts, flags, speckled
from posteriori.evaluation.calibration import coverage, members, room, student, student_room
from posteriori.evaluation.distances import effective_size, normalised, resample
from posteriori.evaluation.images import psnr, speckle, ssim
from posteriori.evaluation.kernels import kernel_correlation, kernel_error
from posteriori.evaluation.parameters import told_parameters
from posteriori.evaluation.spread import kept_of
from posteriori.likelihood import Posterior, Range, framed
from posteriori.linalg import real_view
from posteriori.methods.base import Method
from posteriori.packing import unpack
from posteriori.run import Run

REFERENCED = (
    "psnr_sample",
    "psnr_sample_std",
    "psnr_mean",
    "ssim_sample",
    "ssim_mean",
    "rmse_sample",
    "rmse_mean",
    "rmse_expected",
    "inside_80",
    "inside_80_room",
)


def summary(
    run: Run, post: Posterior, reference: Tensor | None = None, method: Method[Any] | None = None
) -> dict[str, Any]:
    """What a run is worth, as plain JSON values; None where a number does not apply.

    reference: the true image, shape E or that of the frame, in the range of the likelihood; without
    it the misfit, the spread and the looks remain. Images are scored within the frame of the
    likelihood, where it has one; the misfit is that of the whole image. Of several parts the one
    called "image" is scored; the reference is that of all, packed, or of the image alone.
    method: that made the run; without it ``kept`` is None.

    chi2_samples, chi2_mean: mean squared residual over the noise variance, of the samples (about 1)
    and of their mean (below 1);
    chi2_expected: of right samples, 1 but for laws whose variance y itself has to tell.
    residual_rms: root mean square of y - A x in the units of y. spread: mean standard deviation, in
    the units of x; scale: the largest magnitude. constant: share of samples that have the same
    value everywhere. outside_range: share of values a tenth of the range outside.
    psnr_sample, ssim_sample, rmse_sample: of one sample, averaged over samples; *_mean: of the mean
    of the samples.
    rmse_expected: the error of the mean that the spread predicts, the root of the mean variance
    plus that of the mean of the samples, ``Run.standard_error``.
    kept: share of its standard deviation that a Gaussian as wide as these samples keeps in these
    steps, see ``evaluation.spread``; for methods with a transition. inside_80: share of the
    reference within the 80 % intervals of a Gaussian, see ``calibration.student``.
    coverage: of the intervals nearest to 50 % and 90 % that n samples can state. room,
    inside_80_room: what these shares may miss the level by as the samples scatter among themselves,
    see ``calibration.room``. Of antithetic samples all these shares count one of each pair.
    numbers: "real", or "magnitude" for complex images, which then have psnr_complex_sample and
    psnr_complex_mean as well. data_range, lowest, data_range_from: what PSNR and SSIM refer to.
    cloud: for methods with particles, how many of them the samples descend from, see ``genealogy``;
    else None.
    kernel: of a part of this name, the mass of its largest tap, its sum and drift, see
    ``kernel_doubts``; correlation and error: of the mean kernel with that of a reference of all
    parts, over shifts.
    parameters: of an instrument with unknown ones, see ``evaluation.parameters``.
    evidence_gap: of a fitted distribution, what its bound of log p(y) lacks (the worst of several
    fits), see ``methods.variational.score_prior.evidence``.
    flags: sentences for a person.

    Raises ``ValueError`` when samples or reference do not belong to the posterior.
    """
    if tuple(run.samples.shape[1:]) != post.shape:
        raise ValueError(
            f"the run has samples of shape {tuple(run.samples.shape[1:])}, "
            f"the posterior images of shape {post.shape}"
        )
    told, truth = told_parameters(run, post, reference), reference
    shown, reference, range = scored_part(run.in_frame(), reference, post.given.range)
    if reference is not None:
        reference = framed(reference, post.given.frame)
        _check(reference, tuple(shown.samples.shape[1:]), range)
    record: dict[str, Any] = {"method": run.config.get("method", "unknown"), **facts(run, post)}
    record |= {
        "effective_samples": effective_size(run.log_w),
        "counts": run.counts,
        "seconds": run.seconds,
    }
    record |= _misfit(run, post) | _texture(shown)
    record["kept"] = _kept(run, post, method, record["spread"])
    record |= (
        _compared(shown, range, reference)
        if reference is not None
        else dict.fromkeys((*REFERENCED, "coverage", "data_range", "data_range_from", "lowest"))
    )
    record["parameters"] = told
    if record["kernel"] is not None:
        record["kernel"] |= _true_kernel(run, truth)
    return record | {"flags": flags(record)}


def completed(run: Run, record: dict[str, Any], reference: Tensor | None = None) -> dict[str, Any]:
    """A record of ``sample(folder=)``, or none, with what the samples alone tell, and with
    ``reference`` when one is given.

    reference: shape E, in the range that the run states. Raises ``ValueError`` when it does not
    belong to the run.
    """
    out = {
        "method": run.config.get("method", "unknown"),
        "counts": run.counts,
        "seconds": run.seconds,
        "flags": [],
    } | record
    out.setdefault("finished", len(run.samples))
    out.setdefault("spread", float(run.std.double().mean()) if len(run.samples) > 1 else None)
    if out.get("speckle") is None:
        found = _texture(run)
        out |= found
        out["flags"] = [*out["flags"], *speckled(found)]
    if reference is not None:
        stated = tuple(run.config["range"]) if run.config["range"] else None
        shown, reference, range = scored_part(run, reference, stated)
        _check(reference, tuple(shown.samples.shape[1:]), range)
        compared = _compared(shown, range, reference)
        out["flags"] = [
            *out["flags"],
            *dispersion(out | {"scale": float(run.samples.abs().max())} | compared),
        ]
        out |= compared
    return out


def scored_part(
    run: Run, reference: Tensor | None, range: Range | None
) -> tuple[Run, Any, Range | None]:
    """The run whose samples are compared, its reference and range: of several parts that of the
    image."""
    image = run.parts.get("image")
    if image is None:
        return run, reference, range
    ends = image.config["range"]
    if reference is not None and reference.shape == run.samples.shape[1:]:
        shapes = {name: tuple(p["shape"]) for name, p in run.config["parts"].items()}
        reference = unpack(reference[None], shapes)["image"][0]
    return image, reference, (ends[0], ends[1]) if ends else None


def _true_kernel(run: Run, truth: Tensor | None) -> dict[str, float | None]:
    """How near the mean kernel is to that of a reference of all parts, over shifts."""
    if truth is None or truth.shape != run.samples.shape[1:]:
        return {"correlation": None, "error": None}
    shapes = {name: tuple(part["shape"]) for name, part in run.config["parts"].items()}
    true = unpack(truth[None].to(run.samples), shapes)["kernel"][0].double()
    mean = run.parts["kernel"].mean[None].double()
    return {
        "correlation": float(kernel_correlation(mean, true)),
        "error": float(kernel_error(mean, true)),
    }


def _kept(
    run: Run, post: Posterior, method: Method[Any] | None, spread: float | None
) -> float | None:
    transition = getattr(method, "transition", None)
    if transition is None or not spread:
        return None
    # A complex number has the variance of both its parts.
    a = (post.chart.straight or (None,))[0]
    if a is None:  # a chart that is curved
        return None
    inner = (
        float((run.std.flatten() / a.to(run.std)).mean())
        if isinstance(a, Tensor)
        else spread / abs(a)
    )
    inner /= 2**0.5 if run.samples.is_complex() else 1.0
    return kept_of(transition, torch.tensor(run.config["levels"], dtype=torch.float64), inner)


def _check(reference: Tensor, shape: tuple[int, ...], range: Range | None) -> None:
    if tuple(reference.shape) != shape:
        raise ValueError(
            f"the reference has shape {tuple(reference.shape)}, the images have shape {shape}"
        )
    if not bool(reference.abs().isfinite().all()):
        raise ValueError("the reference has values that are not finite")
    if range is not None and not reference.is_complex():
        (low, high), least, most = range, float(reference.min()), float(reference.max())
        if least < low - (high - low) or most > high + (high - low):
            raise ValueError(
                f"the reference spans [{least:.4g}, {most:.4g}], "
                f"but images are expressed in [{low:g}, {high:g}]; convert it first"
            )


def _misfit(run: Run, post: Posterior) -> dict[str, Any]:
    given, w = post.given, normalised(run.log_w, len(run.samples))
    with torch.no_grad():
        device = given.y.device
        mean = run.mean[None].to(device)
        parts = run.samples.split(32)
        squares = torch.cat([_mean_square(given.residual(part.to(device))) for part in parts])
        squares = squares.double().cpu()
        record: dict[str, Any] = {"residual_rms": float((w * squares).sum().sqrt())}
        keys = ("chi2_samples", "chi2_lowest", "chi2_highest", "chi2_mean", "chi2_expected")
        chi2 = chi_squares(run, post)
        if chi2 is None:
            return record | dict.fromkeys(keys)
        values = (
            float((w * chi2).sum()),
            float(chi2.min()),
            float(chi2.max()),
            float(given.chi2(mean)),
            expected_chi2(run, post),
        )
    return record | dict(zip(keys, values, strict=True))


def _mean_square(x: Tensor) -> Tensor:
    """Mean square of each row's real numbers."""
    return real_view(x).square().flatten(1).mean(1)


def _texture(run: Run) -> dict[str, Any]:
    x, shape = run.samples, run.samples.shape[1:]
    record: dict[str, Any] = {"numbers": "magnitude" if x.is_complex() else "real", "speckle": None}
    if len(shape) >= 2 and min(shape[-2:]) >= 8:
        record["speckle"] = float(torch.cat([speckle(part) for part in x[:8].split(1)]).mean())
    return record


def _compared(run: Run, range: Range | None, reference: Tensor) -> dict[str, Any]:
    x, mean, truth = run.samples, run.mean[None], reference.to(run.samples)
    w, n = normalised(run.log_w, len(run.samples)), len(run.samples)
    record: dict[str, Any] = dict.fromkeys(REFERENCED) | {"coverage": None}
    record |= _range(range, truth)
    record["rmse_sample"] = float((w * (_mean_square(x - truth).double().cpu())).sum().sqrt())
    record["rmse_mean"] = float(_mean_square(mean - truth).sqrt())
    if n > 1:
        channels = 2 if x.is_complex() else 1
        record["rmse_expected"] = float(
            (
                (run.std.double().square() + run.standard_error.double().square()).mean() / channels
            ).sqrt()
        )
        record |= _held(run.independent(), truth)
    width = record["data_range"]
    if width is None:
        return record
    if x.is_complex():
        record["psnr_complex_sample"] = float((w * psnr(x, truth, width)).sum())
        record["psnr_complex_mean"] = float(psnr(mean, truth, width))
        x, mean, truth = x.abs(), mean.abs(), truth.abs()
    scores = psnr(x, truth, width)
    record |= {
        "psnr_sample": float((w * scores).sum()),
        "psnr_mean": float(psnr(mean, truth, width)),
    }
    if n > 1:
        record["psnr_sample_std"] = float(scores.std())
    if truth.ndim == 3 and min(truth.shape[1:]) >= 11:
        span = (record["lowest"], record["lowest"] + width)
        record |= {
            "ssim_sample": float((w * ssim(x, truth, span)).sum()),
            "ssim_mean": float(ssim(mean, truth, span)),
        }
    return record


def _held(run: Run, truth: Tensor) -> dict[str, Any]:
    """Of independent samples: the shares of the truth in their intervals."""
    n, size, x = len(run.samples), effective_size(run.log_w), run.samples
    if n < 2:
        return {}
    record: dict[str, Any] = {}
    equal = x if size > n - 1e-6 else resample(x, run.log_w)
    if not x.is_complex():
        record["inside_80"] = student(run.mean, run.std, size, truth) if size > 1 + 1e-6 else None
        record["inside_80_room"] = student_room(equal, truth, size)
    record["coverage"] = [
        asdict(c) | {"room": room(members(equal, truth, c.asked), size)}
        for c in coverage(equal, truth, (0.5, 0.9))
    ]
    return record


def _range(range: Range | None, truth: Tensor) -> dict[str, Any]:
    """What PSNR and SSIM are relative to: the stated range, else what the reference spans (for
    complex images its magnitudes from 0)."""
    if range is not None and not truth.is_complex():
        (low, high), source = range, "stated range"
    elif truth.is_complex():
        low, high, source = 0.0, float(truth.abs().max()), "largest magnitude of the reference"
    else:
        low, high, source = float(truth.min()), float(truth.max()), "span of the reference"
    return {
        "data_range": float(high - low) or None,
        "data_range_from": source,
        "lowest": float(low),
    }
