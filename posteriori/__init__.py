"""posteriori: draw samples of what could have been there, given what was measured.

A measurement y, an operator A and a noise law make a ``Likelihood``; a denoiser makes a prior; the
two make a ``Posterior``; a method turns it into a ``Run``.

Names are imported when they are first used: the command line answers ``--help`` without waiting for
torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posteriori import (
        evaluation,
        examination,
        grid,
        measurements,
        methods,
        noise,
        operators,
        priors,
        problem_file,
        report,
        rng,
        shards,
        testing,
        trials,
        tuning,
    )
    from posteriori.conformal import Conformal
    from posteriori.diagnostics import RunWarning
    from posteriori.likelihood import Likelihood, Posterior
    from posteriori.run import Run, Status

    __version__: str
    from posteriori.diffusion_em import fit_instrument
    from posteriori.driver import sample
    from posteriori.each import sample_each
    from posteriori.examination import doctor
    from posteriori.trials import calibrate
    from posteriori.tuning import tune

ROOMS = (
    "evaluation",
    "examination",
    "grid",
    "measurements",
    "methods",
    "noise",
    "operators",
    "priors",
    "problem_file",
    "report",
    "rng",
    "shards",
    "testing",
    "trials",
    "tuning",
)
HOMES = {
    "Conformal": "conformal",
    "Likelihood": "likelihood",
    "Posterior": "likelihood",
    "Run": "run",
    "RunWarning": "diagnostics",
    "Status": "run",
    "calibrate": "trials",
    "doctor": "examination",
    "fit_instrument": "diffusion_em",
    "sample": "driver",
    "sample_each": "each",
    "tune": "tuning",
}

# Where names live that people look for at the top.
_ELSEWHERE = {
    "Gaussian": "posteriori.noise.Gaussian (the noise) or posteriori.priors.Gaussian (the prior)",
    "Poisson": "posteriori.noise.Poisson",
    "Prior": "posteriori.priors.Prior",
    "Operator": "posteriori.operators.Operator",
    "Method": "posteriori.methods.Method",
    "load": "posteriori.Run.load(folder)",
    "solve": (
        "posteriori.sample(posterior, method), "
        "or `posteriori solve problem.yaml` on the command line"
    ),
}

__all__ = [
    "Conformal",
    "Likelihood",
    "Posterior",
    "Run",
    "RunWarning",
    "Status",
    "calibrate",
    "doctor",
    "evaluation",
    "examination",
    "fit_instrument",
    "grid",
    "measurements",
    "methods",
    "noise",
    "operators",
    "priors",
    "problem_file",
    "report",
    "rng",
    "sample",
    "sample_each",
    "shards",
    "testing",
    "trials",
    "tune",
    "tuning",
]


def __getattr__(name: str) -> Any:
    if name in ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in HOMES:
        value = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name == "__version__":
        return version("posteriori")
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise import_module(f"{__name__}.settings").absent(__name__, name, __all__, _ELSEWHERE)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
