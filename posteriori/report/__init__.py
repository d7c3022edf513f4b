"""Saved runs to something a person can read. Nothing here calls a network.

A run folder holds run.json and samples.safetensors (``posteriori.run``) and, written by ``save``, summary.json
(``posteriori.evaluation.summary``) and, among the arrays, ``extra.measurement`` (a picture), ``extra.residual``, and where given
``extra.reference`` and ``extra.baseline``. ``page`` takes one such folder, or a folder of them for runs of one problem.
"""

from posteriori.report.page import page
from posteriori.report.save import save
from posteriori.report.table import table

__all__ = ["page", "save", "table"]
