"""Intervals that hold: a standard-deviation map scaled until it has held enough on known images.

Of N images x_i, each measured and sampled in the same way, with mean m_i and spread s_i > 0,

    r_ij = |x_ij - m_ij| / s_ij           for each number j of image i
    inside_i(f) = share of the numbers of image i with r_ij <= f

and the interval of a further image is m +- f s. Let the N images and the further one, each with its
measurement and samples, be exchangeable. Then for 0 < level < 1

    numbers   f = the ceil(level (N + 1) K)-th smallest of all N K ratios, K of each image:
              E inside(f) >= level, and at most level + (1 + 1 / K) / (N + 1) without ties
    images    f = the ceil(share (N + 1))-th smallest of min {f : inside_i(f) >= level}:
              P(inside(f) >= level) >= share, and at most share + 1 / (N + 1) without ties

Both are finite-sample statements, whatever the sampler, the prior and the law of the images. Both
are about an image, averaged over images, measurements, samples and the N images: neither is about
one number of one image, and neither is given y. Numbers of one image depend on each other, so that
it is images that count: N >= level / (1 - level) are needed for the first, share / (1 - share) for
the second.

Proof of the first. Let f' be the smallest f at which the N + 1 images miss no more than
(1 - level) (N + 1) in sum. Since the further image misses at most 1, f >= f', and E of what it
misses at f' is the mean over the N + 1, by exchangeability. It is conformal risk control with the
share of numbers outside as the loss.

Source: Angelopoulos, Bates, Fisch, Lei, Schuster, Conformal risk control, 2024, theorem 1; Vovk,
Gammerman, Shafer, Algorithmic learning in a random world, 2005.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posteriori.storage import write_text

# Ratios kept of an image: of more numbers, the quantiles, rounded so that an interval is wider.
KEPT_RATIOS = 500
# What a spread is never below, as a part of the root mean square of the map: a number on which all
# samples agree is not known for certain.
LEAST_SPREAD = 0.01
RECORD = "calibration.json"
# What a run must share with those that were calibrated.
_SHARED = (
    *("method", "settings", "n", "steps", "prior", "prior_range", "operator", "image_shape"),
    *("range", "noise", "antithetic"),
)


def spread_of(std: Tensor) -> Tensor:
    """sqrt(std^2 + (0.01 rms)^2), rms that of the map: > 0 for each number. Raises ``ValueError``
    where all samples are the same."""
    level = std.double().square().mean().sqrt()
    if not bool(level > 0):
        raise ValueError(
            "the samples are all the same image: there is no spread to scale; draw more samples, "
            "or by a method whose samples differ"
        )
    return (std.double().square() + (LEAST_SPREAD * level).square()).sqrt()


def ratios_of(mean: Tensor, std: Tensor, truth: Tensor) -> Tensor:
    """|x - m| / s of an image, ascending, float64: all of them, or of more than 500 numbers 500
    quantiles, each the smallest ratio that at least so many reach.

    Raises ``ValueError`` for complex images and as ``spread_of``.
    """
    if truth.is_complex() or mean.is_complex():
        raise ValueError("complex numbers have no intervals; calibrate magnitudes or parts of them")
    all_of = ((truth.double() - mean.double()).abs() / spread_of(std)).flatten().sort().values
    count = len(all_of)
    if count <= KEPT_RATIOS:
        return all_of
    places = torch.arange(1, KEPT_RATIOS + 1) * count
    return all_of[(places + KEPT_RATIOS - 1) // KEPT_RATIOS - 1]


@dataclass(frozen=True, eq=False)
class Conformal:
    """The ratios of N images (N, K), ascending in each row; ``about`` says of which runs they
    are, by the keys of ``Run.config``."""

    ratios: Tensor
    about: dict[str, Any]

    def factor(self, level: float, images: float | None = None) -> float:
        """f of the interval m +- f s.

        level: share of an image's numbers inside, on average over images; with ``images`` in at
        least that share of images. Raises ``ValueError`` for numbers outside (0, 1), and where the
        images are too few to state them.
        """
        for name, value in (("level", level), ("images", images)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} must lie strictly between 0 and 1, got {value!r}")
        count, kept = self.ratios.shape
        if images is None:
            place, pool = _ceil(level * (count + 1) * kept), self.ratios.flatten()
            self._enough(place <= count * kept, level, "level")
        else:
            place, pool = _ceil(images * (count + 1)), self.ratios[:, _ceil(level * kept) - 1]
            self._enough(place <= count, images, "images")
        return float(pool.sort().values[place - 1])

    def _enough(self, enough: bool, share: float, name: str) -> None:
        if not enough:
            raise ValueError(
                f"{len(self.ratios)} images cannot state {name}={share:g}: "
                f"{_ceil(share / (1 - share))} can; calibrate on more of them"
            )

    def bound(self, images: bool = False) -> float:
        """By how much the expected share may exceed what was asked for, where no two ratios are
        equal."""
        count, kept = self.ratios.shape
        return 1 / (count + 1) if images else (1 + 1 / kept) / (count + 1)

    def interval(
        self, mean: Tensor, std: Tensor, level: float, images: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """m - f s and m + f s, of the shape and type of ``mean``."""
        room = (self.factor(level, images) * spread_of(std)).to(mean)
        return mean - room, mean + room

    def inside(self, factor: float) -> Tensor:
        """The share of each image's numbers within m +- factor s, (N,)."""
        return (self.ratios <= factor).double().mean(1)

    def check(self, config: dict[str, Any]) -> None:
        """Raise ``ValueError`` naming what differs where a run of another kind is to be scaled."""
        asked = json.loads(json.dumps({key: config.get(key) for key in _SHARED}))
        other = [
            f"{key}: {self.about.get(key)!r} calibrated, {value!r} here"
            for key, value in asked.items()
            if self.about.get(key) != value
        ]
        if other:
            raise ValueError(
                "these intervals were calibrated on runs of another kind "
                f"({'; '.join(other)[:600]}); calibrate this one by posteriori calibrate"
            )

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return {"about": self.about, "ratios": self.ratios.tolist()}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Conformal:
        return cls(torch.tensor(record["ratios"], dtype=torch.float64), record["about"])

    @classmethod
    def load(cls, folder: str | Path) -> Conformal:
        """What ``posteriori calibrate`` wrote into a folder. Raises ``FileNotFoundError``, and
        ``ValueError`` where a calibration there is not complete or has no intervals."""
        place = Path(folder) / RECORD
        if not place.exists():
            raise FileNotFoundError(
                f"no calibration in {folder}: {RECORD} is missing; posteriori calibrate writes it"
            )
        record = json.loads(place.read_text())
        if record.get("conformal") is None:
            why = record.get("no_intervals") or "it is not complete; run posteriori calibrate again"
            raise ValueError(f"the calibration in {folder} has no intervals: {why}")
        return cls.of_record(record["conformal"])

    def save(self, folder: str | Path) -> None:
        """Write what ``load`` reads."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / RECORD, json.dumps({"conformal": self.record()}))


def about_run(config: dict[str, Any], n: int) -> dict[str, Any]:
    """What ``Conformal.check`` compares, as JSON values; n: samples of which mean and spread
    are."""
    told = {key: config[key] for key in _SHARED if key in config} | {"n": n}
    shared: dict[str, Any] = json.loads(json.dumps(told))
    return shared


def _ceil(value: float) -> int:
    # 0.9 x 20 x 500 is 9000, not a rounding error more
    return max(1, math.ceil(value - 1e-9 * max(1.0, value)))
