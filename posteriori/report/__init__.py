"""Saved runs to something a person can read. Nothing here calls a network.

A run folder holds run.json, summary.json and samples.safetensors, with the arrays of
``posteriori.views`` beside the samples. ``save`` adds to the summary what needs the method or a
reference (``posteriori.evaluation.summary``), and ``extra.reference`` and ``extra.baseline`` where
they are given. ``page`` takes one such folder, or a folder of them for runs of one problem.
"""

from posteriori.report.live import LivePage
from posteriori.report.page import page
from posteriori.report.save import save
from posteriori.report.table import table

__all__ = ["LivePage", "page", "save", "table"]
