"""Named tasks: prior, operator, noise, measurement and method in one file."""

from posteriori.problem_file.file import Measurement, Problem, Task, load, settled_in, unlike
from posteriori.problem_file.reading import simulate

__all__ = ["Measurement", "Problem", "Task", "load", "settled_in", "simulate", "unlike"]
