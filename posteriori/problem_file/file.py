"""A problem as one YAML file: what was measured, with which instrument, what is believed, which
method is to be used.

    prior: photos
    operator: {name: blur, std: 2}
    noise: {law: gaussian, sigma: 0.02, range: [0, 1]}
    measurement: {file: y.png}              or   {image: clean.png, seed: 0} to simulate one
    method: MMPS
    n: 4
    steps: 25

Pictures with whole numbers of 8 or 16 bits are put into ``range``: black is its lower, white its
upper end. Arrays of floating point numbers are taken as they are. What a file does not say is
stated beside it: ``{file: y.tif, white: 4095}`` for 12 bits, ``{file: y.png, scale: 0.001}`` for
whole numbers that are no picture (``posteriori.problem_file.reading.Reading``). Relative paths
start at the folder of the file.

``unknown`` names a number of the operator that nobody knows: image and number are then sampled
together, ``posteriori.problem_file.unknown``.

A blur of a measured file assumes nothing beyond the border of y (``boundary: valid``): the image is
larger than y by the kernel, the frame of the likelihood is y's own, and a reference has the shape
of either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from torch import Tensor

from posteriori.asked import check_pairs
from posteriori.likelihood import Frame, Likelihood, Posterior, Range, framed
from posteriori.measurements import FileKind
from posteriori.measurements.files import checked
from posteriori.methods import Method
from posteriori.methods.courses import steps_of
from posteriori.noise import NoiseLaw
from posteriori.operators.base import Operator
from posteriori.priors import Prior, Slices
from posteriori.priors.latent import image_sides
from posteriori.problem_file import noise, operator
from posteriori.problem_file import volume as volumes
from posteriori.problem_file.advice import Choice, choose
from posteriori.problem_file.entries import Entry, entries
from posteriori.problem_file.method import Solver
from posteriori.problem_file.mri import MRI
from posteriori.problem_file.noise_level import estimated
from posteriori.problem_file.prior import Arithmetic, Belief
from posteriori.problem_file.reading import Measurement, Reference, as_image, degrade, measured_file
from posteriori.problem_file.section import Instrument, Notes
from posteriori.problem_file.types import Count, Part, Seed, validation_sentences
from posteriori.problem_file.unknown import UnknownSection
from posteriori.run import read_json
from posteriori.yaml_file import read_yaml

# Noise levels where neither the file nor a paper says how many.
USUAL_STEPS = 32


def _file_alone(raw: Any) -> Any:
    return {"file": raw} if isinstance(raw, str) else raw


class Compared(NamedTuple):
    """What the field makes of y without a learned prior: a name and an image in the range of the
    likelihood."""

    name: str
    image: Tensor


def _entries(raw: Any, info: ValidationInfo) -> list[Entry]:
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"expected a list of methods, such as [MMPS, DiffPIR], got {raw!r}")
    return list(entries(raw, info.context))


Entries = Annotated[list[Any], BeforeValidator(_entries)]


class Task(NamedTuple):
    """What ``Problem.build`` makes. ``settings`` are keywords of ``posteriori.sample``; ``notes``
    are sentences to show to the user; ``choice`` says why this method, where the file names
    none; ``volume`` is what is known of volumes, None for images; ``written`` is how
    images are written beside their pictures, None for pictures alone."""

    posterior: Posterior
    method: Method[Any]
    reference: Tensor | None
    settings: dict[str, Any]
    notes: tuple[str, ...]
    baseline: Compared | None = None
    choice: Choice | None = None
    volume: volumes.Volume | None = None
    written: volumes.Written | None = None

    @property
    def usual(self) -> dict[str, Any]:
        """The baseline as keywords of ``report.save``."""
        return (
            {}
            if self.baseline is None
            else {"baseline": self.baseline.image, "baseline_name": self.baseline.name}
        )


class Problem(Part):
    """The content of a problem file.

    reference: the true image, if it is known, for comparison only.
    image_shape: (C, H, W) of the image, where the measurement has another shape.
    precision: of a network's inner arithmetic; "auto" is settled by ``problem_of``.
    batch: rows worked on together; sample k does not depend on it.
    antithetic: samples in pairs of mirrored noise, see ``posteriori.sample``.
    method: without one it is chosen by the kind of problem, see ``posteriori.problem_file.advice``.
    methods: those that ``compare`` takes.
    steps: noise levels visited; 32 by default, and those of its paper for the preset "published".
    write: the kind of file in which volumes are written, and images beside their pictures; by
    default that of the measurement, of images where it is no picture.
    grid: where they lie; without it, or with null, the method's own choice or its paper's, and
    "karras" for a method that has none.
    """

    prior: Belief
    operator: operator.OperatorSection
    unknown: UnknownSection | None = None
    noise: noise.NoiseSection
    measurement: Measurement
    reference: Annotated[Reference | None, BeforeValidator(_file_alone)] = None
    image_shape: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    method: Solver | None = None
    methods: Entries | None = None
    n: Count = 4
    steps: Count | None = None
    seed: Seed = 0
    grid: Literal["karras", "log", "ddpm"] | None = None
    batch: Count | None = None
    antithetic: Annotated[bool, Field(strict=True)] = False
    precision: Arithmetic | Literal["auto"] = "auto"
    device: str = "cpu"
    write: FileKind | None = None
    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)
    _code: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def consistent(self) -> Problem:
        if self.measurement.image is not None and self.reference is not None:
            raise ValueError(
                "with measurement.image the clean image is the reference; leave `reference` out"
            )
        if not self.operator.calibrates:
            noise.complete(self.noise, self.operator.positive)
        if self.unknown is not None:
            self.unknown.check(self.operator)
            if isinstance(self.noise, noise.GaussianEntry) and self.noise.unknown:
                raise ValueError(
                    "noise.sigma: estimate takes the operator for known; with `unknown` give a "
                    "number"
                )
        self._check_volumes()
        check_pairs(self.antithetic, self.n, method=self.method)
        if (
            self.measurement.image is not None
            and isinstance(self.noise, noise.GaussianEntry)
            and self.noise.unknown
        ):
            raise ValueError(
                "noise.sigma: a measurement that is simulated from an image has the noise "
                "that the file states: give a number"
            )
        return self

    def _check_volumes(self) -> None:
        if self.prior.slices is None:
            if volumes.works_along(self.operator) and self.prior.maker is None:
                raise ValueError(
                    "the operator works along the slices of volumes: "
                    "prior: {slices: ...} makes a prior of them"
                )
            return
        if self.prior.slices.slices is not None:
            raise ValueError("prior: slices are images, not volumes again")
        if self.unknown is not None:
            raise ValueError("unknown belongs to images; with prior: {slices: ...} leave it out")
        if self.operator.calibrates or isinstance(self.operator, MRI):
            raise ValueError(
                f"operator {self.operator.name} takes settings from the measurement of one image; "
                "measure volumes slice by slice with radon, or solve its slices one by one"
            )
        if isinstance(self.noise, noise.GaussianEntry) and self.noise.unknown:
            raise ValueError("noise.sigma: of a volume it is not estimated: give a number")

    @property
    def arithmetic(self) -> Arithmetic:
        """``precision``, settled."""
        return self.prior.quickest(self.device) if self.precision == "auto" else self.precision

    @property
    def raw(self) -> dict[str, Any]:
        """The file as it was written."""
        return self._raw

    @property
    def record(self) -> dict[str, Any]:
        """The file as it was written and, where it names classes by their import path, the digests
        of the files that they stand in."""
        return volumes.nameless(self._raw, self.measurement, self.reference) | (
            {"code": self._code} if self._code else {}
        )

    def build(self, prior: Prior | None = None) -> Task:
        """Read the files, load the prior, and put everything together.

        prior: what this file's section describes, where it has been loaded before.
        Raises ``FileNotFoundError`` and ``ValueError`` naming the file or the setting; a file that
        looks like the clean image in the place of the measurement, or the other way round, is named
        as such.
        """
        section, law, range, prior, learnt = self.operator.ready(
            self.measurement, self.noise, prior or self.prior.build(self.arithmetic)
        )
        if isinstance(prior, Slices):
            return self._of_volumes(section, law, range, prior, learnt)
        A, y, frame, law, reference, notes = self._files(section, law, range, prior)
        notes = (*section.notes(), *learnt, *notes)
        device, baseline = _device(self.device), None
        if self.unknown is not None:
            opened = self.unknown.opened(section, A)
            if reference is not None and self.measurement.image is not None:
                reference = opened.packed(reference)
            prior, A, frame = opened.joint(prior, range), opened.family, None
            posterior = Posterior(prior.to(device), Likelihood(y.to(device), A.to(device), law))
        else:
            with torch.no_grad():
                usual = section.baseline(A)
                baseline = None if usual is None else Compared(usual.name, usual.image(y))
            given = Likelihood(y.to(device), A.to(device), law, range=range, frame=frame)
            posterior = Posterior(prior.to(device), given)
        written = volumes.images_written(
            section, self.write, self.measurement, posterior.given.A.in_shape, A.complex_in
        )
        return self._task(posterior, posterior, reference, notes, baseline)._replace(
            written=None if self.unknown else written
        )

    def _of_volumes(
        self, section: Instrument, law: NoiseLaw, range: Range, prior: Slices, learnt: Notes
    ) -> Task:
        wanted = self.image_shape or prior.shape
        found = volumes.opened(section, prior, self.measurement, self.reference, law, range, wanted)
        device = _device(self.device)
        whole = Likelihood(found.y.to(device), found.A.to(device), law, range=range)
        posterior, parts = Posterior(prior.to(device), whole), found.volume.parts
        judged = posterior
        if parts is not None:
            parts = parts._replace(prior=parts.prior.to(device), A=parts.A.to(device))
            judged = Posterior(parts.prior, parts.likelihood(whole, 0))
        kind = self.write or found.volume.kind
        volumes.check_kind(kind, found.volume.info, found.A.in_shape)
        known = found.volume._replace(parts=parts, kind=kind)
        notes = (*section.notes(), *learnt, *found.notes)
        usual = None if found.usual is None else Compared(*found.usual)
        return self._task(posterior, judged, found.reference, notes, usual, known)

    def _task(
        self,
        posterior: Posterior,
        judged: Posterior,
        reference: Tensor | None,
        notes: Notes,
        baseline: Compared | None,
        volume: volumes.Volume | None = None,
    ) -> Task:
        """judged: what a method is chosen for, where the file names none."""
        choice = (
            None
            if self.method or self.methods
            else choose(judged, self.steps, alone=self.antithetic)
        )
        listed = self.methods[0].method if self.methods else None
        method = self.method or (choice.method if choice else listed)
        assert method is not None  # without either, one was chosen
        settings: dict[str, Any] = {
            name: getattr(self, name) for name in ("n", "seed", "grid", "batch", "antithetic")
        }
        settings["steps"] = steps_of(
            method, self.steps or (choice.steps if choice else None), USUAL_STEPS
        )
        if choice and self.grid is None:
            settings["grid"] = choice.levels
        return Task(posterior, method, reference, settings, notes, baseline, choice, volume)

    def _files(
        self, section: Instrument, law: NoiseLaw, range: Range, prior: Prior
    ) -> tuple[Operator, Tensor, Frame | None, NoiseLaw, Tensor | None, Notes]:
        """Operator, y, frame, noise, reference and sentences of a problem of images."""
        wanted = self.image_shape or image_sides(prior)
        if self.measurement.image is not None:
            reference, notes = as_image(self.measurement.image, range, self.measurement)
            (A, y), frame = degrade(section, reference, law, self.measurement, wanted), None
            name = self.measurement.image.name
            notes += (
                f"{name} is taken as the clean image: y was simulated from it. "
                f"If it is the measurement, write `file: {name}`",
            )
        else:
            assert self.measurement.file is not None  # one of the two is given
            A, y, frame, notes = measured_file(
                section, self.measurement.file, self.measurement, law, range, wanted
            )
            if isinstance(self.noise, noise.GaussianEntry) and self.noise.unknown:
                level, said = estimated(A, y)
                law, notes = self.noise.at(level), (*notes, said)
            reference = None
            if self.reference is not None:
                reference, more = as_image(self.reference.file, range, self.reference)
                notes += more
        if (
            reference is not None
            and A.complex_in
            and reference.ndim == len(A.in_shape) + 1
            and len(reference) == 1
        ):
            # A magnitude in a file is a picture of one channel
            reference = reference[0].to(torch.complex64)
        reference = None if reference is None else framed(reference, frame)
        if reference is not None and tuple(reference.shape) != tuple(
            framed(torch.empty(A.in_shape), frame).shape
        ):
            place = self.reference.file if self.reference else self.measurement.image
            raise ValueError(
                f"the reference {place} has shape {tuple(reference.shape)}, "
                f"images here have shape {A.in_shape}"
            )
        return A, y, frame, law, reference, notes


def load(path: str | Path, auto: Arithmetic | None = None) -> Problem:
    """Read and check a problem file; no data that it names are opened yet. Classes that it names by
    their import path are imported.

    auto: what ``precision: auto`` stands for, where an earlier run has settled it.

    Raises ``FileNotFoundError``, and ``ValueError`` with one line for each bad field: unknown names
    come with the nearest known one.
    """
    path = checked(path)
    raw = read_mapping(path, Problem.model_fields)
    if "optimizer" in raw and "prior" not in raw:
        raise ValueError(
            f"{path} describes a training, not a problem: posteriori train {path} --out FOLDER"
        )
    if "measurements" in raw:
        raise ValueError(f"{path} describes many measurements: posteriori run {path} --out FOLDER")
    return problem_of(raw, path.parent, str(path), auto)


def read_mapping(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    """The content of a YAML file. Raises ``ValueError`` for one that is no mapping, naming the
    ``keys`` that it may have; otherwise as ``read_yaml``."""
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ValueError(
            f"{path}: expected a mapping with {', '.join(keys)}, got {type(raw).__name__}"
        )
    return raw


def problem_of(
    raw: dict[str, Any], folder: Path, name: str, auto: Arithmetic | None = None
) -> Problem:
    """A problem of what its file says. folder: where its paths start. name: of the file, for
    errors. auto and what is raised: as of ``load``.

    A precision that the file leaves open is settled here, by this machine, and stands in ``raw``
    and ``record`` from here on where it is not float32.
    """
    code: dict[str, str] = {}
    try:
        problem = Problem.model_validate(raw, context={"folder": folder, "code": code})
    except ValidationError as error:
        raise ValueError(
            f"{name}\n" + "\n".join(f"  {line}" for line in validation_sentences(error, raw))
        ) from None
    problem._raw.update(raw)
    problem._code.update(code)
    if problem.precision != "auto":
        return problem
    settled = auto or problem.arithmetic
    problem._raw.pop("precision", None)
    if settled != "float32":
        problem._raw["precision"] = settled
    return problem.model_copy(update={"precision": settled})


def unlike(then: dict[str, Any], now: dict[str, Any]) -> str:
    """How two records of problems differ, for a person; "" where they do not. A precision of
    float32 is none."""
    kept, new = (
        {key: value for key, value in record.items() if (key, value) != ("precision", "float32")}
        for record in (then, now)
    )
    changed = [key for key in {**kept, **new} if kept.get(key) != new.get(key)]
    return "; ".join(f"{key}: {kept.get(key)!r} then, {new.get(key)!r} now" for key in changed)


def settled_in(record: Path, problem: Path) -> Arithmetic | None:
    """The precision of the runs of which ``record`` is the ``record``; None where there is no file,
    and where the prior of a problem file is another."""
    if not record.exists() or not problem.is_file():
        return None
    kept, raw = read_json(record), read_yaml(problem)
    stated = raw.get("prior") if isinstance(raw, dict) else None
    if json.loads(json.dumps(stated, default=str)) != kept.get("prior"):
        return None
    return kept.get("precision", "float32")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the second
        raise ValueError(
            f"device {name!r} is not available here: {str(error).splitlines()[0]}"
        ) from None
    return device
