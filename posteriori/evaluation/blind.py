"""What y says of an instrument's parameters, exactly: the evidence of each value, the image being
integrated over in closed form.

    p(phi_j | y) ~ w_j p(y | phi_j),   p(y | phi) = integral p(y | x, phi) p(x) dx

for a Gaussian or mixture prior of the image, a family that is linear in it, and Gaussian noise. A
finite set of kernels is exact; a grid of few numbers is quadrature.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from posteriori.evaluation.exact import ExactPosterior, exact_posterior
from posteriori.likelihood import Posterior
from posteriori.methods.blind.pair import blind_pair


def known_instrument(post: Posterior, phi: Tensor) -> ExactPosterior:
    """p(x | y, phi) and log p(y | phi) for one phi (*P) of a posterior on image and parameters.
    Raises ``TypeError`` for another posterior, and as ``exact_posterior``."""
    return exact_posterior(blind_pair(post).known(phi))


def parameter_probabilities(post: Posterior, phi: Tensor, log_w: Tensor | None = None) -> Tensor:
    """p(phi_j | y) over a finite set or a grid phi (K, *P): (K,) float64 of sum 1.

    log_w: log of what is believed of each before, (K,); by default the density of the posterior's
    own prior of the parameters there, as a grid of even spacing needs it. Raises as
    ``known_instrument``.
    """
    evidence = torch.tensor([known_instrument(post, p).log_evidence for p in phi]).double()
    if log_w is None:
        belief = copy.deepcopy(blind_pair(post).belief).double()
        log_w = belief.know().exact("density").log_prob(phi.double())
    return (evidence + log_w.double()).softmax(0)
