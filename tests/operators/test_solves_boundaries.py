"""Every method that takes a linear operator and Gaussian noise ends at its defaults, in single
precision, whatever the boundary."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from cases import METHODS

import posteriori as po

SIDES = (10, 12)
MIRRORED = po.operators.gaussian_kernel(1.2, 7)
MOTION = torch.zeros(5, 5)
MOTION[range(5), [0, 1, 1, 2, 3]] = 0.2
NAMES = [
    name
    for name in METHODS
    if not name.endswith("published") and not name.startswith("ScorePriorVI")
]
# All others take minutes together.
QUICK = ("PiGDM", "DMPS", "REDDiff")


def posterior(boundary, kernel):
    """Smooth images of a spread of 20 seen with a noise of 0.02: a condition of 1e6, which single
    precision cannot resolve."""
    A = po.operators.Blur(kernel, (1, *SIDES), boundary=boundary)
    place = (
        torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in SIDES), indexing="ij"), -1)
        .flatten(0, 1)
        .double()
    )
    covariance = (
        0.5 * torch.exp(-torch.cdist(place, place).square() / 18)
        + 4.0
        + 1e-3 * torch.eye(math.prod(SIDES), dtype=torch.float64)
    )
    prior = po.priors.Gaussian(torch.zeros(1, *SIDES), covariance.float())
    y = A(prior.sample(1, 0))[0] + 0.02 * torch.randn(
        A.out_shape, generator=torch.Generator().manual_seed(1)
    )
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.02)))


@pytest.mark.parametrize("boundary", ["reflect", "valid", "zero", "circular"])
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
def test_no_solve_fails(name, boundary):
    for kernel in (MIRRORED, MOTION):
        post = posterior(boundary, kernel)
        method = METHODS[name]
        if method.refuses(post):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                run = po.sample(post, method, n=1, steps=3)
            except FloatingPointError:
                # Every row diverged, which is no solve's fault and said as such
                continue
        assert bool(run.samples.isfinite().all())
