"""Named tasks: prior, operator, noise, measurement and method in one file."""

from posteriori.problems.file import Measurement, Problem, Task, load
from posteriori.problems.reading import simulate

__all__ = ["Measurement", "Problem", "Task", "load", "simulate"]
