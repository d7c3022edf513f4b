"""A run: samples, what they cost, how each of them ended; and the folder that holds it.

    run.json                 state (and the reason of a failure), configuration, seed, versions,
                             units, counts, status of every row
    samples.safetensors      the arrays
    checkpoint.safetensors   only while a run is under way

Every file is written beside its place and renamed, so that a kill leaves the old one or the new
one, never half of one.
"""

from __future__ import annotations

import fcntl
import html
import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from posteriori import citations
from posteriori.conformal import Conformal
from posteriori.linalg import real_view
from posteriori.measurements.pictures import glimpse, picture_limits
from posteriori.packing import unpack
from posteriori.settings import Fraction, Setting
from posteriori.storage import write_text, written_whole


@dataclass(frozen=True)
class Status:
    """How one row ended. ``step`` and ``reason`` say where and why it diverged, and what to try."""

    kind: Literal["finished", "diverged"] = "finished"
    step: int | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.kind == "finished"

    def __str__(self) -> str:
        return "finished" if self.ok else f"diverged at step {self.step}: {self.reason}"


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """The result of ``posteriori.sample``.

    samples: (n_ok, *E) in the range the likelihood states: the rows that finished, in order. A
    diverged row is not among them.
    log_w: (n_ok,) float64 log-weights, 0 for unweighted methods.
    log_evidence: estimate of log p(y), or None for methods that make none: the log of the mean over
    clouds, one that has lost all its weight being an estimate of 0; clouds whose numbers broke are
    left out.
    status: one for each of the n rows.
    counts: denoiser, vjp, operator and adjoint calls per sample.
    trace: name -> (steps, n) numbers that the method reported at each step.
    clouds: how many independent clouds log_evidence is made of.
    seconds: wall-clock time. config: everything needed to repeat the run. references: BibTeX keys.
    """

    samples: Tensor
    log_w: Tensor
    log_evidence: float | None
    status: tuple[Status, ...]
    counts: dict[str, float]
    trace: dict[str, Tensor]
    seconds: float
    config: dict[str, Any]
    references: tuple[str, ...]
    extras: dict[str, Tensor] = field(default_factory=dict)
    clouds: int = 0

    def __repr__(self) -> str:
        lost = len(self.status) - len(self.samples)
        kind = str(self.samples.dtype).removeprefix("torch.")
        calls = ", ".join(f"{count:g} {name}" for name, count in self.counts.items() if count)
        paired = " in antithetic pairs" if self.antithetic else ""
        gone = f", {lost} diverged" if lost else ""
        return (
            f"Run({self.config.get('method', 'unknown')}: {len(self.samples)} samples{paired} "
            f"of shape {list(self.samples.shape[1:])} {kind}{gone}; "
            f"{calls or 'no'} calls a sample; {self.seconds:.1f} s)"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the line of ``repr`` and, where the samples are pictures, mean,
        standard deviation and samples, small."""
        shown = "".join(part._glimpse() for part in self.parts.values()) or self._glimpse()
        return f"<div>{html.escape(repr(self))}</div>{shown}"

    def _glimpse(self) -> str:
        shown, range = self.in_frame(), self.config.get("range")
        stated = picture_limits(range, self.samples.is_complex()) if range else None
        return glimpse(shown.samples, shown.mean, shown.std, stated)

    @property
    def antithetic(self) -> bool:
        """Whether samples came in antithetic pairs, see ``sample``."""
        return bool(self.config.get("antithetic"))

    def independent(self) -> Run:
        """The run of the first samples of antithetic pairs: independent draws, which scores, ranks
        and shares ask for, and the samples that a run of half as many has without pairs. The run
        itself where it has no pairs."""
        if not self.antithetic:
            return self
        finished = [k for k, status in enumerate(self.status) if status.ok]
        rows = [row for row, k in enumerate(finished) if k % 2 == 0]
        config = {key: value for key, value in self.config.items() if key != "antithetic"}
        config |= {"n": len(self.status[::2]), "first": config.get("first", 0) // 2}
        return replace(
            self,
            samples=self.samples[rows],
            log_w=self.log_w[rows],
            status=self.status[::2],
            trace={name: values[:, ::2] for name, values in self.trace.items()},
            config=config,
        )

    def _paired(self) -> tuple[Tensor, Tensor] | None:
        """Of the antithetic pairs that are whole, K of them, half the difference and the mean, (K,
        *E) each; None without any."""
        if not self.antithetic or bool(self.log_w.any()):
            return None
        numbers = [k for k, status in enumerate(self.status) if status.ok]
        rows = [r for r, k in enumerate(numbers[:-1]) if k % 2 == 0 and numbers[r + 1] == k + 1]
        if not rows:
            return None
        a, b = self.samples[rows], self.samples[[r + 1 for r in rows]]
        return (a - b) / 2, (a + b) / 2

    def in_frame(self) -> Run:
        """The run with its samples cut to the ``frame`` of the likelihood, to which mean, std and
        intervals then belong; itself without."""
        frame, sides = self.config.get("frame"), list(self.samples.shape[-2:])
        # There is no frame, or it has been cut.
        if frame is None or sides != list(self.config["image_shape"][-2:]):
            return self
        (top, bottom), (left, right) = frame
        return replace(self, samples=self.samples[..., top:bottom, left:right])

    @property
    def parts(self) -> dict[str, Run]:
        """Of samples that are several tensors packed into one vector: a run of each by its name,
        with samples (n_ok, *shape) in its range and the weights of this one. Empty for one
        tensor."""
        told = self.config.get("parts")
        if told is None:
            return {}
        shapes = {name: tuple(part["shape"]) for name, part in told.items()}
        samples = unpack(self.samples, shapes)
        plain = {k: v for k, v in self.config.items() if k != "parts"}
        extras = {
            k: unpack(v[None], shapes)
            for k, v in self.extras.items()
            if v.shape == self.samples.shape[1:]
        }
        return {
            name: replace(
                self,
                samples=samples[name],
                config=plain | {"image_shape": list(shapes[name]), "range": part["range"]},
                extras=self.extras | {k: v[name][0] for k, v in extras.items()},
            )
            for name, part in told.items()
        }

    @property
    def weights(self) -> Tensor:
        """Of the samples, (n_ok,) float64, which sum to 1. Raises ``ValueError`` for a run without
        samples."""
        if not len(self.log_w):
            raise ValueError(
                f"every row of this run diverged, it has no samples: row 0 {self.status[0]}"
            )
        return self.log_w.softmax(0)

    @property
    def mean(self) -> Tensor:
        """Weighted mean of the samples, shape E."""
        w = self.weights.to(self.samples.real.dtype)
        return torch.tensordot(w.to(self.samples.dtype), self.samples, 1)

    @property
    def std(self) -> Tensor:
        """Weighted standard deviation over samples, shape E; real. NaN-free: 0 when there is one
        sample.

        Of antithetic pairs (a, b) that are whole its square is the mean of |a - b|^2 / 4 plus the
        variance of (a + b) / 2 over pairs, whose expectation is the variance whatever ties a to b;
        of one pair the first alone, which lacks what the second would add.
        """
        paired = self._paired()
        if paired is not None:
            return (paired[0].abs().square().mean(0) + _variance(paired[1])).sqrt()
        w = self.weights.to(self.samples.real.dtype)
        squares = torch.tensordot(w, (self.samples - self.mean).abs().square(), 1)
        return squares.div((1 - w.square().sum()).clamp(min=1e-12)).sqrt()

    @property
    def standard_error(self) -> Tensor:
        """Of ``mean``: the standard deviation that it has about the mean of infinitely many
        samples, shape E; real. 0 where it cannot be told, of one sample or of one antithetic pair.
        Particles of one cloud are taken for independent, which they are not."""
        paired = self._paired()
        if paired is not None:
            pairs, n = len(paired[1]), len(self.samples)
            rest = (n - 2 * pairs) * self.std.square()  # samples that lost the other one
            return ((4 * pairs * _variance(paired[1]) + rest) / n**2).sqrt()
        return self.std * float(self.weights.square().sum()) ** 0.5

    def predictive(self) -> tuple[Tensor, float]:
        """sqrt(std^2 + standard_error^2), shape E, the standard deviation of a further draw about
        ``mean``, and its degrees of freedom, by which Student's law gives intervals: of n samples
        n - 1, of K antithetic pairs K, half of whose differences are draws about a known mean."""
        paired = self._paired()
        freedom = float(len(paired[0])) if paired is not None else self.ess - 1
        return (self.std.square() + self.standard_error.square()).sqrt(), freedom

    @property
    def ess(self) -> float:
        """Effective number of samples, (sum w)^2 / sum w^2 of the weights: their number where all
        count alike.

        Particles of one cloud descend from common ancestors, which the weights do not tell:
        ``evaluation.summary`` counts those.
        """
        w = self.weights
        return float(1 / w.square().sum())

    def bibtex(self) -> str:
        """BibTeX entries of the papers that the run stands on, one a line."""
        return citations.bibtex(self.references)

    def quantile(self, q: float) -> Tensor:
        """The value below which a draw of the posterior lies with probability q, for each number of
        an image: shape E.

        Between the k-th and the next smallest of n samples q runs from k / (n + 1) on, so that the
        interval between two quantiles holds an exchangeable truth exactly as often as it says; a
        weighted sample counts by its weight, n being ``ess``. Beyond the smallest or largest sample
        it is that sample. Raises ``ValueError`` for q outside [0, 1], and for complex samples,
        which have no order.

        Antithetic samples are counted as if they were independent. Where pairs mirror each other an
        interval then holds more than it says, the smallest and the largest of n samples n / (n + 2)
        instead of (n - 1) / (n + 1).
        """
        q = Setting(Fraction).valid(q, "q")
        if self.samples.is_complex():
            raise ValueError(
                "complex numbers have no quantiles; "
                "take those of the magnitude, real or imaginary part of run.samples"
            )
        x, order = self.samples.double().sort(0)
        w = self.weights.to(x)[order]
        n = self.ess
        p = 0.5 + (w.cumsum(0) - 0.5 * w - 0.5) * n / (n + 1)
        after = (p <= q).sum(0, keepdim=True)
        low, high = (after - 1).clamp(min=0), after.clamp(max=len(x) - 1)
        left, right = p.gather(0, low), p.gather(0, high)
        share = torch.where(right > left, (q - left) / (right - left).clamp(min=1e-300), 0.0).clamp(
            0, 1
        )
        return torch.lerp(x.gather(0, low), x.gather(0, high), share)[0].to(self.samples.dtype)

    def interval(
        self,
        level: float,
        *,
        calibrated: Conformal | str | Path | None = None,
        images: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The central interval that holds each number with probability ``level``: its two ends,
        shape E.

        Without ``calibrated`` it is as right as the samples are. It warns when n samples cannot
        state it: the widest interval of n samples has the level (n - 1) / (n + 1).

        calibrated: what ``posteriori.calibrate`` found, or the folder in which it, or
        ``posteriori calibrate``, keeps it. The interval is then the mean and a multiple of the
        standard deviation, and holds at least ``level`` of an image's numbers on average over
        images that are exchangeable with those of the calibration; with ``images`` that much of the
        image in at least this share of images. See ``posteriori.conformal``.
        Raises as ``quantile``, and ``ValueError`` for a calibration of other runs, or of too few
        images.
        """
        level = Setting(Fraction).valid(level, "level")
        if calibrated is not None:
            found = calibrated if isinstance(calibrated, Conformal) else Conformal.load(calibrated)
            found.check(self.config)
            return found.interval(self.mean, self.std, level, images)
        if images is not None:
            raise ValueError("images= belongs to calibrated intervals: give calibrated= as well")
        most = (self.ess - 1) / (self.ess + 1)
        if level > most + 1e-9:
            warnings.warn(
                f"{self.ess:.3g} samples can state intervals of up to {100 * most:.0f} %, "
                f"not of {100 * level:g} %: these ends are the smallest and the largest sample; "
                f"{math.ceil((1 + level) / (1 - level) - 1e-6) if level < 1 else 'no'} samples can",
                stacklevel=2,
            )
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    @classmethod
    def merge(cls, runs: Sequence[Run]) -> Run:
        """One run made of several that drew its samples in parts, see ``first`` of ``sample``: the
        same numbers as drawn at once.

        Raises ``ValueError`` naming what differs when they are not parts of one run, and naming the
        samples that are missing.
        """
        from posteriori.merging import merged

        return merged(runs)

    def save(self, folder: str | Path) -> None:
        """Write the run to a folder, arrays first, so that a complete run.json means a complete
        run."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"samples": self.samples, "log_w": self.log_w}
        arrays |= {f"trace.{k}": v for k, v in self.trace.items()} | {
            f"extra.{k}": v for k, v in self.extras.items()
        }
        write_arrays(folder / "samples.safetensors", arrays)
        record = {
            "state": "complete",
            "config": self.config,
            "counts": self.counts,
            "seconds": self.seconds,
            "log_evidence": self.log_evidence,
            "references": list(self.references),
            "clouds": self.clouds,
            "status": [asdict(s) for s in self.status],
        }
        write_json(folder / "run.json", record)

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a run folder. Raises ``FileNotFoundError``, or ``RuntimeError`` when the run in it
        is not complete."""
        folder = Path(folder)
        record = read_json(folder / "run.json")
        if record.get("state") != "complete":
            why = f" ({record['reason']})" if "reason" in record else ""
            raise RuntimeError(
                f"the run in {folder} is {record.get('state')}{why}, not complete; "
                "finish it with --resume"
            )
        arrays, _ = read_arrays(folder / "samples.safetensors")
        return cls(
            samples=arrays["samples"],
            log_w=arrays["log_w"],
            log_evidence=record["log_evidence"],
            status=tuple(Status(**s) for s in record["status"]),
            counts=record["counts"],
            trace={
                k.removeprefix("trace."): v for k, v in arrays.items() if k.startswith("trace.")
            },
            seconds=record["seconds"],
            config=record["config"],
            references=tuple(record["references"]),
            clouds=record.get("clouds", 0),
            extras={
                k.removeprefix("extra."): v for k, v in arrays.items() if k.startswith("extra.")
            },
        )


def _variance(x: Tensor) -> Tensor:
    """Over the rows of x (K, *E), unbiased; 0 for one row."""
    return (x - x.mean(0)).abs().square().sum(0) / max(1, len(x) - 1)


def write_json(place: Path, record: dict[str, Any]) -> None:
    write_text(place, json.dumps(record, indent=1))


def read_json(place: Path) -> dict[str, Any]:
    if not place.exists():
        raise FileNotFoundError(f"no run in {place.parent}: {place.name} is missing")
    return json.loads(place.read_text())


def write_arrays(
    place: Path, arrays: dict[str, Tensor], notes: dict[str, str] | None = None
) -> None:
    """Tensors and text in one safetensors file; complex tensors are stored as pairs under the name
    ``NAME!complex``.

    Raises ``FullDiskError``.
    """
    flat = {}
    for name, tensor in arrays.items():
        tensor = tensor.detach().cpu()
        # Files hold what is in memory, where a lazily conjugated or negated tensor has the wrong
        # sign.
        flat[f"{name}!complex" if tensor.is_complex() else name] = (
            real_view(tensor).contiguous().clone()
        )
    with written_whole(place, sum(tensor.nbytes for tensor in flat.values())) as beside:
        save_file(flat, str(beside), metadata=notes)


def read_arrays(place: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    arrays = {}
    with safe_open(str(place), framework="pt") as file:
        notes = file.metadata() or {}
        for key in file.keys():  # noqa: SIM118 (not a dict)
            tensor = file.get_tensor(key)
            name, is_complex = key.removesuffix("!complex"), key.endswith("!complex")
            arrays[name] = torch.view_as_complex(tensor) if is_complex else tensor
    return arrays, notes


@contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold a folder, or in it what ``name`` stands for, for this process. Raises ``RuntimeError``
    naming the owner when another does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise RuntimeError(
                f"another process ({handle.read().strip() or 'unknown'}) is writing to {folder}; "
                "use another folder"
            ) from None
        handle.truncate(0)
        handle.write(f"pid {os.getpid()}")
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)
