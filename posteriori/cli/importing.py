"""``posteriori import``: other people's networks as priors of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posteriori import places, priors
from posteriori.examination import prior_findings
from posteriori.priors.foreign.found import Stated


def import_prior(
    source: Path, out: Path | None, *, half: bool, description: str, licence: str, **stated: Any
) -> None:
    """Print what ``source`` was recognised as and what the doctor says of it as a prior, and save
    it in ``out`` when one is given.

    Raises as ``priors.load``, and ``ValueError`` for a folder that is in use by something else.
    """
    other = None if out is None else places.occupied(out)
    if other is not None:
        raise ValueError(f"{out} is {other}; give another folder for the prior")
    found = priors.recognise(source, Stated(**stated))
    for title, text in found.lines():
        print(f"{title:16}{text}")
    for line in prior_findings(found.prior):
        wanted = f"; expected {line.expected}" if line.expected else ""
        cause = f" ({line.remedy})" if line.verdict != "pass" else ""
        print(f"{line.name:16}{line.verdict}: {line.value}{wanted}{cause}")
    if out is None:
        print("nothing is written; `--out FOLDER` saves it as a prior")
        return
    priors.save_pretrained(
        found.prior,
        out,
        storage="float16" if half else "float32",
        description=description or f"{found.architecture}; from {source.name}",
        licence=licence,
    )
    print(f"{'saved':16}{out}; a problem file takes it by prior: {{path: {out}}}")
