"""Many measurements x methods as one YAML file: what ``posteriori run`` takes.

    prior: digits                                  the sections of a problem file, or
    operator: {name: mask, keep: 0.5, seed: 0}     problem: file.yaml in their place
    noise: {law: gaussian, sigma: 0.05, range: [0, 1]}
    measurements: {files: scans/*.npy, references: truths/*.png}
    methods: [MMPS, {name: DPS, scale: 0.5}]
    n: 8
    calls: 100                                     of the network a sample, or steps: 25

``measurements: {images: clean/*.png, seed: 0, repeats: 2}`` simulates them. Paths start at the
folder of the file that states them.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from posteriori.measurements.files import checked
from posteriori.problem_file.entries import Entry
from posteriori.problem_file.file import Entries, Problem, problem_of, read_mapping
from posteriori.problem_file.prior import Arithmetic
from posteriori.problem_file.reading import Reading
from posteriori.problem_file.types import Count, Part, Seed, suggestion, validation_sentences
from posteriori.problem_file.volume import is_series

# What a study states otherwise, of a problem file that it names or repeats.
ITS_OWN_KEYS = (
    "measurement",
    "reference",
    "method",
    "methods",
    "n",
    "steps",
    "write",
    "antithetic",
)
SECTIONS = tuple(key for key in Problem.model_fields if key not in ITS_OWN_KEYS)


def _listed(raw: Any, info: ValidationInfo) -> Any:
    """Every file that a pattern, or a list of them, names, in order."""
    patterns = raw if isinstance(raw, list) else [raw]
    if not patterns or not all(isinstance(p, str) and p for p in patterns):
        raise ValueError(f"expected a path such as scans/*.npy, or a list of them, got {raw!r}")
    folder, found = (info.context or {}).get("folder", Path()), []
    for pattern in patterns:
        # Path.glob takes no absolute pattern, and hidden files for any.
        here = sorted(glob.glob(str(folder / pattern), recursive=True))  # noqa: PTH207
        if not here:
            raise ValueError(f"{folder / pattern}: there is no such file")
        found += here
    return tuple(Path(place) for place in dict.fromkeys(found))


Files = Annotated[tuple[Path, ...], BeforeValidator(_listed)]


class Measurements(Reading):
    """``files``: what was measured. ``images``: clean images to simulate measurements from."""

    files: Files | None = None
    images: Files | None = None
    references: Files | None = None
    seed: Seed = 0
    repeats: Count = 1

    @model_validator(mode="after")
    def one_kind(self) -> Self:
        if (self.files is None) == (self.images is None):
            raise ValueError(
                "give either `files` (real measurements, used as they are) or `images` "
                "(clean images, to be degraded first)"
            )
        if self.images is not None and self.references is not None:
            raise ValueError("the clean images are the references; leave `references` out")
        simulated = {"seed", "repeats"} & self.model_fields_set
        if self.files is not None and simulated:
            raise ValueError(
                f"measured files have no {min(simulated)}: nothing is simulated from them. "
                "Did you mean `images`?"
            )
        return self


class Slurm(Part):
    """What a job of SLURM asks for. Each of its ``cores`` draws cells of its own."""

    partition: str | None = None
    cores: Count = 1
    memory: str = "4GB"
    walltime: str = "01:00:00"
    jobs: Count = 1


def _files_alone(raw: Any) -> Any:
    return {"files": raw} if isinstance(raw, str | list) else raw


class StudyFile(Part):
    """The content of a study file, beside the sections of its problem."""

    problem: str | None = None
    measurements: Annotated[Measurements, BeforeValidator(_files_alone)]
    methods: Entries
    n: Count = 4
    steps: Count | None = None
    calls: Annotated[int, Field(ge=2, strict=True)] | None = None
    lpips: bool = False
    slurm: Slurm | None = None

    @model_validator(mode="after")
    def one_budget(self) -> Self:
        if self.calls is None:
            return self
        if self.steps is not None:
            raise ValueError("give either steps or calls, which chooses the steps of each method")
        fixed = [entry.label for entry in self.methods if entry.steps is not None]
        if fixed:
            raise ValueError(
                f"calls chooses the steps of each method, and {fixed[0]} states its own; "
                "leave one of them out"
            )
        return self


@dataclass(frozen=True)
class StudyItem:
    """One measurement: its name in tables and folders, and the sections of a problem file that
    describe it."""

    name: str
    sections: dict[str, Any]

    @property
    def digests(self) -> dict[str, str]:
        """Of its files, by content."""
        return {
            part: _digest(Path(said.get("file") or said["image"]))
            for part, said in self.sections.items()
        }


@dataclass(frozen=True)
class ManyProblems:
    """A study that was read. methods: its entries as written. sections: of the problem, as written;
    folder: where its paths start."""

    path: Path
    stated: StudyFile
    methods: tuple[Any, ...]
    sections: dict[str, Any]
    folder: Path
    items: tuple[StudyItem, ...]
    code: dict[str, str]

    @property
    def entries(self) -> list[Entry]:
        return self.stated.methods

    def raw(self, item: int) -> dict[str, Any]:
        """The problem of one measurement. Its samples have a seed of their own, so that those of
        two measurements are independent."""
        seed = self.sections.get("seed", 0) + item
        return self.sections | self.items[item].sections | {"n": self.stated.n, "seed": seed}

    @property
    def record(self) -> dict[str, Any]:
        """What makes it this study: all but its methods, of which it may get more, and where it is
        run."""
        return {
            "problem": self.sections,
            "code": self.code,
            "measurements": {
                item.name: item.digests | {"seed": item.sections["measurement"].get("seed")}
                for item in self.items
            },
            **{key: getattr(self.stated, key) for key in ("n", "steps", "calls", "lpips")},
        }


def load_study(path: str | Path, auto: Arithmetic | None = None) -> ManyProblems:
    """Read and check a study file; every measurement that it names is there. auto: as of
    ``problem_file.load``.

    Raises ``FileNotFoundError``, and ``ValueError`` with one line for each bad field.
    """
    path = checked(path)
    known = [*StudyFile.model_fields, *SECTIONS]
    raw = read_mapping(path, known)
    unknown = [key for key in raw if key not in known]
    if unknown:
        hint = (
            "a study has measurements, methods and n"
            if unknown[0] in ITS_OWN_KEYS
            else suggestion(unknown[0], known)
        )
        raise ValueError(f"{path}\n  unknown setting {unknown[0]!r}; {hint}")
    sections, folder = _problem(path, raw)
    context = {"folder": path.parent, "code": {}}
    own_part = {key: raw[key] for key in raw if key in StudyFile.model_fields}
    try:
        stated = StudyFile.model_validate(own_part, context=context)
    except ValidationError as error:
        raise ValueError(
            f"{path}\n" + "\n".join(f"  {line}" for line in validation_sentences(error, raw))
        ) from None
    items = tuple(_items(stated.measurements, path))
    first = problem_of(
        sections | items[0].sections | {"n": stated.n},
        folder,
        f"{path}, measurement {items[0].name}",
        auto,
    )
    # One precision for all measurements, wherever they are drawn.
    sections = {key: value for key, value in sections.items() if key != "precision"}
    if "precision" in first.raw:
        sections["precision"] = first.raw["precision"]
    return ManyProblems(
        path,
        stated,
        tuple(raw["methods"]),
        sections,
        folder,
        items,
        first.record.get("code", {}),
    )


def _problem(path: Path, raw: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """The sections of the problem, and where their paths start."""
    sections = {key: raw[key] for key in raw if key in SECTIONS}
    if raw.get("problem") is None:
        return sections, path.parent
    if sections:
        raise ValueError(
            f"{path}\n  {min(sections)}: it belongs to the problem, which problem: "
            f"{raw['problem']} states; leave one of them out"
        )
    place = checked(path.parent / str(raw["problem"]))
    found = read_mapping(place, Problem.model_fields)
    return {key: value for key, value in found.items() if key not in ITS_OWN_KEYS}, place.parent


def _items(given: Measurements, path: Path) -> Iterator[StudyItem]:
    how = given.model_dump(include=set(Reading.model_fields), exclude_none=True)
    truths = _by_name(given.references or (), path, "references")
    named = _by_name(given.files or given.images or (), path, "measurements")
    for position, (name, place) in enumerate(named.items()):
        if given.images is not None:
            for again in range(given.repeats):
                seed = given.seed + position * given.repeats + again
                source = {"image": str(place.resolve()), "seed": seed} | how
                label = f"{name}-{again}" if given.repeats > 1 else name
                yield StudyItem(label, {"measurement": source})
            continue
        sections: dict[str, Any] = {"measurement": {"file": str(place.resolve())} | how}
        if truths:
            if name not in truths:
                raise ValueError(
                    f"{path}\n  measurements.references: none is called {name}, as the "
                    f"measurement {place} is"
                )
            sections["reference"] = {"file": str(truths[name].resolve())}
        yield StudyItem(name, sections)


def _by_name(places: tuple[Path, ...], path: Path, key: str) -> dict[str, Path]:
    """Files by their stems. A DICOM series is numbered: its folder often is called by a patient."""
    found: dict[str, Path] = {}
    for k, place in enumerate(places):
        name = f"series-{k}" if is_series(place) else place.name.split(".")[0] or place.name
        if name in found:
            raise ValueError(
                f"{path}\n  {key}: {found[name]} and {place} have one name, {name}; rename one"
            )
        found[name] = place
    return found


def _digest(place: Path) -> str:
    """Of a file, or of all files of a folder."""
    state = hashlib.sha256()
    inside = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    for file in inside:
        with file.open("rb") as handle:
            state.update(hashlib.file_digest(handle, "sha256").digest())
    return state.hexdigest()[:16]
