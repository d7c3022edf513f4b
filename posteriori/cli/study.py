"""``posteriori study``: a question of the field, answered by one command."""

from __future__ import annotations

from pathlib import Path

from posteriori.cli.machine import machine_text as machine
from posteriori.experiments.studies import STUDIES, record
from posteriori.settings import suggestion


def listing() -> str:
    """Name and question of every study, one per line."""
    return "\n".join(f"{name}: {STUDIES[name].question}" for name in sorted(STUDIES))


def study_question(name: str | None, out: Path, quick: bool, progress: bool) -> None:
    """Run a study and print what it found. Raises ``ValueError`` for a name that is none of the
    known ones."""
    if name not in STUDIES:
        known = sorted(STUDIES)
        raise ValueError(
            f"give the name of a study; known: {', '.join(known)}"
            if name is None
            else f"unknown study {name!r}; {suggestion(name, known)}"
        )
    study = STUDIES[name]
    found = record.run_study(study, out, quick=quick, machine=machine(), progress=progress)
    print(study.question, *(f"{k}. {text}" for k, text in enumerate(found, 1)), sep="\n")
    print(f"Written: {', '.join(str(out / f'{name}.{suffix}') for suffix in record.STUDY_FILES)}")
