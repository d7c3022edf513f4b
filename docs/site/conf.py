"""How the site is rendered. ``build.py`` gathers the pages first; nothing is fetched when the site
is built or read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docstrings import rest
from sphinx.application import Sphinx

import posteriori

project = "posteriori"
version = release = posteriori.__version__
copyright = "the authors of posteriori"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "**/README.txt",
    "gallery/*.ipynb",
    "sg_execution_times.rst",
    "**/sg_execution_times.rst",
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}

html_theme = "furo"
html_title = f"posteriori {version}"
html_show_sphinx = False
html_copy_source = False
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]

myst_heading_anchors = 4
# Pages of results start at the level that fits where they are read.
suppress_warnings = ["myst.header", "config.cache"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# A method without a docstring of its own shows none, rather than its base's or torch's.
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

HERE = Path(__file__).parent
sphinx_gallery_conf = {
    "examples_dirs": [str(HERE.parents[1] / "examples" / "gallery")],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "show_memory": False,
    "download_all_examples": False,
    "min_reported_time": 10**6,
    "capture_repr": (),
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
    "show_signature": False,
    "default_thumb_file": str(HERE.parent / "pictures" / "demo.png"),
}


def _rest(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = rest(lines)


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _rest)
