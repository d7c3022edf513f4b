"""Packages that only some commands need: what asks for one says in one sentence how to install
it."""

from __future__ import annotations

from importlib.util import find_spec

# Where the name of the package is not that of its import.
_DISTRIBUTIONS = {"skimage": "scikit-image"}


def require_extra(extra: str, what: str, *modules: str) -> None:
    """Do nothing when all ``modules`` can be imported.

    Otherwise raise ``ImportError``: ``what`` needs the missing ones, and the ``extra`` of this
    package installs them.
    """
    missing = [_DISTRIBUTIONS.get(name, name) for name in modules if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{what} needs {' and '.join(missing)}: pip install 'posteriori[{extra}]'"
        )
