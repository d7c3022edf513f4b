"""Studies: questions of the field, each answered by one command. A file of this folder that has a
``STUDY`` is one."""

import pkgutil
from importlib import import_module

from posteriori.extras import require_extra

require_extra("experiments", "a study", "matplotlib", "skimage")

from posteriori.experiments.studies.base import Study  # noqa: E402 (the modules of this room draw)


def _found() -> dict[str, Study]:
    names = [info.name for info in pkgutil.iter_modules(__path__, f"{__name__}.")]
    studies = [getattr(import_module(name), "STUDY", None) for name in names]
    return {study.name: study for study in studies if study is not None}


STUDIES: dict[str, Study] = _found()

__all__ = ["ALL", "Study"]
