"""posteriori: draw samples of what could have been there, given what was measured.

A measurement y, an operator A and a noise law make a ``Likelihood``; a denoiser makes a prior; the two make a ``Posterior``; a method
turns it into a ``Run``.
"""

from posteriori import evaluation, grid, measurements, methods, noise, operators, priors
from posteriori.likelihood import Likelihood, Posterior
from posteriori.run import Run, Status
from posteriori.sample import sample

__all__ = [
    "Likelihood",
    "Posterior",
    "Run",
    "Status",
    "evaluation",
    "grid",
    "measurements",
    "methods",
    "noise",
    "operators",
    "priors",
    "sample",
]
