"""How a clean measurement A x becomes y: noise laws on measurements (B, *O).

Every law says how to ``sample`` it, the ``log_prob`` of a measurement and its ``score`` with
respect to the clean one, and the ``variance`` of each measured number as far as y itself tells.
``std`` is the standard deviation of a Gaussian law of one level (per real number), None otherwise:
the closed forms ask for it. ``support`` is where a clean measurement may lie, ``gaussian`` and
``variance_at`` are what methods take that know the law by two moments. Gaussian noise of many
levels, or correlated, says how it is made white (``whitening``), which a ``Posterior`` does once:
methods meet white noise.

Complex measurements: sigma is always given *by name*, per real channel or per complex number
(sqrt(2) times larger), because both conventions are in use and differ by 41 %.
"""

from posteriori.noise.base import NoiseLaw
from posteriori.noise.correlated import CorrelatedGaussian, FilteredGaussian
from posteriori.noise.gaussian import ComplexGaussian, Gaussian
from posteriori.noise.heavy import Freedom, Huber, Laplace, Open, Outliers, StudentT
from posteriori.noise.magnitudes import Rician
from posteriori.noise.photons import Counts, Poisson, PoissonGaussian
from posteriori.noise.quantised import Quantised
from posteriori.noise.speckle import Speckle
from posteriori.noise.unknown import UnknownGaussian

__all__ = [
    "ComplexGaussian",
    "CorrelatedGaussian",
    "Counts",
    "FilteredGaussian",
    "Freedom",
    "Gaussian",
    "Huber",
    "Laplace",
    "NoiseLaw",
    "Open",
    "Outliers",
    "Poisson",
    "PoissonGaussian",
    "Quantised",
    "Rician",
    "Speckle",
    "StudentT",
    "UnknownGaussian",
]
