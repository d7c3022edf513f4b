"""What a study is: a question, cells that can be measured one by one, a figure, and sentences whose
figures come from the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from posteriori.experiments import Cell, Row


@dataclass(frozen=True)
class Study:
    """One question, answered by rows of numbers.

    name: what ``posteriori study`` calls it. question: one sentence, with its question mark.
    columns: every column of the data file, with its meaning and unit; rows have exactly these keys,
    None where there is no value.
    plan: the cells to measure, smaller when its argument (quick) is true. A cell is a dict of JSON
    values that are columns too, and is the unit of resuming: rows of a cell are kept or measured
    together, so that a cell should take seconds to a minute.
    measure: the rows of one cell, a function of the cell alone (seeds are in it).
    draw: the figure of all rows. shows: the columns that the figure is drawn from. caption: what is
    on its axes and how to read it.
    findings: exactly three plain sentences (or short groups of sentences); every number in them is
    computed from the rows.
    setting: how it was done (prior, problem, noise, methods and their settings, seeds, what is
    scored and how), for a reader who knows the field but not this code. limits: what the study
    cannot say.
    """

    name: str
    question: str
    setting: str
    columns: dict[str, str]
    plan: Callable[[bool], list[Cell]]
    measure: Callable[[Cell], list[Row]]
    draw: Callable[[list[Row]], Figure]
    shows: tuple[str, ...]
    caption: str
    findings: Callable[[list[Row]], tuple[str, str, str]]
    limits: tuple[str, ...]
