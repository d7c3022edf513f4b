"""Public contracts: run them on your own operators, noise laws, priors and methods."""

from posteriori.testing.claims import CLAIMS, Claim, check_claims
from posteriori.testing.methods import check_method
from posteriori.testing.noises import check_noise
from posteriori.testing.operators import check_operator
from posteriori.testing.priors import check_denoising, check_prior

__all__ = [
    "CLAIMS",
    "Claim",
    "check_claims",
    "check_denoising",
    "check_method",
    "check_noise",
    "check_operator",
    "check_prior",
]
