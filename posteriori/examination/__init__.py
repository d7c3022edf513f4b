"""The examination of a problem before it is run: ``posteriori.doctor`` and ``posteriori doctor``.

One file for each family of lines; a line is a function that returns a ``Finding``.
"""

from posteriori.examination.examine import doctor
from posteriori.examination.finding import Examination, Finding, finding_table
from posteriori.examination.operator_lines import wrong_adjoint
from posteriori.examination.prior_lines import prior_findings

__all__ = [
    "Examination",
    "Finding",
    "doctor",
    "finding_table",
    "prior_findings",
    "wrong_adjoint",
]
