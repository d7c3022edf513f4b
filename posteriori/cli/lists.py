"""Lists of values as people type them, and the words that shells complete.

A list is ``DPS,MMPS``, ``DPS MMPS``, ``DPS, MMPS`` or the option repeated; whole numbers are also
``10-12``. The words of a ``Literal`` are completed, not compared: what an option means is judged
where it is used, which knows more and can suggest.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token

LONGEST_RANGE = 1000  # numbers that a range may stand for


def words(given: Iterable[str]) -> tuple[str, ...]:
    """The words of a list, however it was cut into arguments."""
    return tuple(word for part in given for piece in part.split(",") if (word := piece.strip()))


def whole_numbers(given: Iterable[str]) -> tuple[int, ...]:
    """Whole numbers; ``10-12`` is 10, 11, 12. Raises ``ValueError`` naming what is none."""
    out: list[int] = []
    for word in words(given):
        first, dash, last = word.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(
                f"expected whole numbers such as 20,100 or a range such as 10-12, got {word!r}"
            )
        span = range(int(first), int(last or first) + 1)
        if not 0 < len(span) <= LONGEST_RANGE:
            raise ValueError(
                f"the range {word!r} holds {len(span)} numbers; "
                f"it runs from its smallest to its largest, at most {LONGEST_RANGE} of them"
            )
        out += span
    return tuple(out)


def parted(given: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """The words of a list of names that may hold a comma, such as the cell ``8,1``. What cannot be
    parted into known ones stays whole."""
    out: list[str] = []
    for part in given:
        pieces, found = words([part]), []
        while pieces:
            end = next(
                (end for end in range(len(pieces), 0, -1) if ",".join(pieces[:end]) in known), 0
            )
            if not end:
                found = [part.strip()]
                break
            found, pieces = [*found, ",".join(pieces[:end])], pieces[end:]
        out += found
    return tuple(out)


def method_names() -> tuple[str, ...]:
    """The names of ``posteriori.methods.METHODS``, read from its source: importing the methods
    takes seconds."""
    tree = ast.parse((Path(__file__).parents[1] / "methods" / "__init__.py").read_text())
    for node in tree.body:
        if (
            isinstance(node, ast.AnnAssign)
            and ast.unparse(node.target) == "METHODS"
            and node.value is not None
        ):
            return tuple(name.id for name in ast.walk(node.value) if isinstance(name, ast.Name))
    return ()


def study_names() -> tuple[str, ...]:
    """The names of ``posteriori.experiments.studies.STUDIES``: its files with a ``STUDY``, for the
    same reason."""
    files = sorted((Path(__file__).parents[1] / "experiments" / "studies").glob("*.py"))
    return tuple(file.stem.replace("_", "-") for file in files if "\nSTUDY = " in file.read_text())


def _words(kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    return words(token.value for token in tokens)


def _numbers(kind: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    return whole_numbers(token.value for token in tokens)


def _word(kind: Any, tokens: Sequence[Token]) -> str:
    return tokens[0].value


def _raw(kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    return tuple(token.value for token in tokens)


LIST_OPTION = Parameter(
    converter=_words, consume_multiple=True, show_default=False, show_choices=False
)
Words = Annotated[tuple[str, ...], LIST_OPTION]
UNPARTED = Parameter(converter=_raw, consume_multiple=True, show_default=False, show_choices=False)
Unparted = Annotated[tuple[str, ...], UNPARTED]
WholeNumbers = Annotated[
    tuple[int, ...], Parameter(converter=_numbers, consume_multiple=True, show_default=False)
]
# As ``posteriori.measurements.FileKind``, which would import what reads them.
WrittenKind = Literal[
    "nifti", "npy", "dicom", "npz", "mat", "hdf5", "mrc", "fits", "tiff", "zarr", "cfl"
]

if TYPE_CHECKING:
    Methods = Words
    Entries = Words
    StudyName = str
else:
    StudyName = Annotated[
        Literal[study_names()] | str, Parameter(converter=_word, show_choices=False)
    ]
    Methods = Annotated[tuple[Literal[method_names()] | str, ...], LIST_OPTION]
    Entries = Annotated[tuple[Literal[method_names()] | str, ...], UNPARTED]
