"""Trials of a method on one problem: truths that are known, measured by the problem's own operator
and noise, and sampled.

``posteriori.calibrate`` and ``posteriori calibrate`` judge one method by them.
"""

from posteriori.trials.diagnose import diagnose
from posteriori.trials.judged import Calibration, calibrate
from posteriori.trials.simulated import Trial, simulated_trials, trial_of

__all__ = ["Calibration", "Trial", "calibrate", "diagnose", "simulated_trials", "trial_of"]
