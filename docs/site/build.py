"""The site: ``python docs/site/build.py [folder]``, or ``make site``.

Gathers the pages in ``folder``/source and renders them into ``folder``/html. A warning is an error.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from assembly import REPOSITORY, assemble


def build(folder: Path) -> int:
    """Gather and render; returns Sphinx's exit status."""
    from sphinx.cmd.build import build_main

    source = folder / "source"
    assemble(source)
    os.environ.setdefault("MPLBACKEND", "Agg")
    here = str(Path(__file__).parent)
    arguments = ["-b", "html", "-c", here, "-W", "--keep-going", "-q"]
    return build_main([*arguments, "-d", str(folder / "trees"), str(source), str(folder / "html")])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "build" / "site"
    status = build(place)
    print(f"{place / 'html' / 'index.html'}" if status == 0 else "the site has warnings, see above")
    sys.exit(status)
