"""Evaluation: a run, and a reference where there is one, to numbers.

Exact posteriors and the oracle; distances with their floor; the affine probe; calibration; image
metrics; the summary of one run.
"""

from posteriori.evaluation.baselines import best_linear, best_wiener, wiener
from posteriori.evaluation.calibration import Coverage, coverage, rank_counts, ranks, student
from posteriori.evaluation.distances import (
    effective_size,
    floor,
    gaussian_kl,
    mean_error,
    moments,
    resample,
    sliced_wasserstein,
    variance_ratio,
)
from posteriori.evaluation.exact import ExactPosterior, exact_posterior, oracle
from posteriori.evaluation.images import MetricUnavailable, lpips, psnr, speckle, ssim
from posteriori.evaluation.probe import NotAffineError, affine_probe
from posteriori.evaluation.spread import share_kept
from posteriori.evaluation.summary import summary

__all__ = [
    "Coverage",
    "ExactPosterior",
    "MetricUnavailable",
    "NotAffineError",
    "affine_probe",
    "best_linear",
    "best_wiener",
    "coverage",
    "effective_size",
    "exact_posterior",
    "floor",
    "gaussian_kl",
    "lpips",
    "mean_error",
    "moments",
    "oracle",
    "psnr",
    "rank_counts",
    "ranks",
    "resample",
    "share_kept",
    "sliced_wasserstein",
    "speckle",
    "ssim",
    "student",
    "summary",
    "variance_ratio",
    "wiener",
]
