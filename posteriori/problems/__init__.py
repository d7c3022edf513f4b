"""Named tasks: prior, operator, noise, measurement and method in one file."""

from posteriori.problems.file import Measurement, Problem, Task, load

__all__ = ["Measurement", "Problem", "Task", "load"]
