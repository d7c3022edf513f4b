"""Benchmark problems by name: ``get("gmm25", d=8, measured=2)`` is a prior, an operator, a noise
law and a measurement.

Where the posterior is known in closed form, or by rejection, a task draws from it exactly.
"""

from posteriori.tasks.registry import TASKS, BenchmarkTask, get

__all__ = ["TASKS", "BenchmarkTask", "get"]
