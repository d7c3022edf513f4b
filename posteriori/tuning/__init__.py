"""Which method, with which settings? Chosen by truths drawn from the prior and measured by the
problem's own operator and noise: ``posteriori.tune`` and ``posteriori tune``.
"""

from posteriori.tuning.halving import Budget, tune
from posteriori.tuning.outcome import Scored, Tuning
from posteriori.tuning.space import Candidate, candidates
from posteriori.tuning.written import write_tuned

__all__ = ["Budget", "Candidate", "Scored", "Tuning", "candidates", "tune", "write_tuned"]
