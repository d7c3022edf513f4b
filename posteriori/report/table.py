"""The table of methods: one row per run, from its summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEADINGS = (
    "Method",
    "PSNR mean, dB",
    "PSNR one, dB",
    "SSIM mean",
    "SSIM one",
    "chi2",
    "Spread",
    "In 80 %",
    "Denoiser",
    "VJP",
    "Seconds",
)


def cells(record: dict[str, Any]) -> list[str]:
    """The cells of one summary, as text; a dash where a number does not apply."""
    counts = record.get("counts", {})
    numbers = (
        (record.get("psnr_mean"), ".2f"),
        (record.get("psnr_sample"), ".2f"),
        (record.get("ssim_mean"), ".3f"),
        (record.get("ssim_sample"), ".3f"),
        (record.get("chi2_samples"), ".2f"),
        (record.get("spread"), ".3g"),
        (record.get("inside_80"), ".0%"),
        (counts.get("denoiser"), "g"),
        (counts.get("vjp"), "g"),
        (record.get("seconds"), ".1f"),
    )
    return [
        str(record.get("method", "?")),
        *("-" if value is None else format(value, spec) for value, spec in numbers),
    ]


def table(records: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, its columns padded so that it reads as plain text too."""
    rows = [list(HEADINGS), *[cells(r) for r in records]]
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEADINGS))]
    lines = []
    for row in rows:
        (name, *numbers), (first, *others) = row, widths
        right = [cell.rjust(w) for cell, w in zip(numbers, others, strict=True)]
        lines.append(f"| {' | '.join([name.ljust(first), *right])} |")
    rule = (
        "|"
        + "|".join("-" * (w + 2) if k == 0 else "-" * (w + 1) + ":" for k, w in enumerate(widths))
        + "|"
    )
    return "\n".join([lines[0], rule, *lines[1:]])
