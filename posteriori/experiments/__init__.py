"""Experiments: cells that are planned, kept where they are stored, measured one by one, saved and
published."""

from posteriori.experiments.runner import Cell, Experiment, Row, run_experiment

__all__ = ["Cell", "Experiment", "Row", "run_experiment"]
