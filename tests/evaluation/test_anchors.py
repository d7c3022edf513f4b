"""Methods on a Gaussian posterior, by the affine probe: the numbers of this library, and the
verdicts of the literature on each.

A prior in R^8 whose covariance has random axes and eigenvalues from 0.05 to 4, seen through five
numbers with gains 1.5 to 0.05 and noise 0.1; Karras levels from 80 to 0.002. Published values are
those of independent implementations on another draw of such a bed.
"""

import math

import pytest
import torch
from reference import F64, law

import posteriori as po
from posteriori.evaluation import exact_posterior, gaussian_kl, oracle
from posteriori.methods import (
    DAPS,
    DDIM,
    DDRM,
    DDS,
    DMPS,
    DPS,
    TMPD,
    ConstantFraction,
    DiffPIR,
    Heun,
    Peng,
    PiGDM,
    Unconditional,
)
from posteriori.noise import Gaussian

ODE = DDIM(0.0)
FIXED = ConstantFraction(0.7225)


def posterior():
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=F64)

    V, Q = (torch.linalg.qr(normal(8, 8))[0] for _ in range(2))
    A = po.operators.Dense(
        torch.tensor([1.5, 1.0, 0.5, 0.2, 0.05], dtype=F64)[:, None] * V[:, :5].T
    )
    prior = po.priors.Gaussian(
        normal(8), (Q * torch.logspace(math.log10(0.05), math.log10(4.0), 8, dtype=F64)) @ Q.T
    )
    y = A(prior.sample(1, 0))[0] + 0.1 * normal(5)
    return po.Posterior(prior, po.Likelihood(y, A, Gaussian(0.1)))


def probe(method, steps, exact_score=False):
    """KL(samples || posterior), the ratio of their total variances, and the largest error of the
    mean in standard deviations."""
    post = posterior()
    exact = exact_posterior(post)
    mean, covariance = law(
        oracle(post) if exact_score else post, method, steps, po.grid.karras(steps, 80.0, 0.002)
    )
    kl = gaussian_kl(mean, covariance, exact.mean.flatten(), exact.covariance)
    return (
        float(kl),
        float(covariance.trace() / exact.covariance.trace()),
        float(((mean - exact.mean) / exact.std).abs().max()),
    )


# Of each method its steps, KL and variance ratio here, and those of the literature where they
# hardly depend on the covariance drawn.
ANCHORS = {
    "exact score, Heun": (Unconditional(Heun()), 100, 4.546e-4, 1.003, None, 1.003),
    "exact score, DDIM": (Unconditional(ODE), 100, 8.216e-3, 0.9488, 8.6e-3, 0.946),
    "exact score, DDPM": (Unconditional(DDIM(1.0)), 100, 0.03296, 0.8956, 0.035, 0.891),
    "PiGDM": (PiGDM("score", ODE), 100, 2.727, 1.116, None, None),
    "PiGDM, paper weighting": (PiGDM("paper"), 100, 2.363, 0.569, None, None),
    "PiGDM, the code's weighting": (PiGDM.published(), 100, 2.227, 0.6145, 2.2, None),
    "TMPD, row sums": (TMPD("row sum", ODE), 100, 7.597, 0.8325, None, None),
    "TMPD, diagonal": (TMPD("diagonal", ODE), 100, 0.6374, 0.8809, None, None),
    "Peng I": (Peng("I", ODE), 100, 0.7314, 0.9021, None, None),
    "Peng II": (Peng("II", ODE), 100, 0.8157, 1.368, None, None),
    "DMPS, lambda 1": (DMPS(1.0), 100, 0.8979, 0.9047, None, None),
    "DMPS, lambda 1.75": (DMPS(1.75), 100, 1.261, 0.7666, None, None),
    "DiffPIR, zeta 1": (
        DiffPIR(1.0, "sigma", ConstantFraction(1.0)),
        100,
        0.9004,
        0.4964,
        0.91,
        0.48,
    ),
    "DiffPIR, zeta 0.1": (
        DiffPIR(1.0, "sigma", ConstantFraction(0.1)),
        100,
        0.4452,
        1.019,
        None,
        None,
    ),
    "DiffPIR, lambda 7": (
        DiffPIR(7.0, "sigma", ConstantFraction(0.1)),
        100,
        4.918,
        1.462,
        None,
        None,
    ),
    "DDRM": (DDRM(), 100, 2.821, 0.4605, 2.6, None),
    "DDS, gamma 1": (DDS.published(), 100, 12.1, 0.9419, 12.0, None),
    "DDS, gamma 1/sigma_y^2": (
        DDS("fixed", 100.0, "network", 20, 0.0, FIXED),
        100,
        35.57,
        0.3564,
        35.0,
        None,
    ),
    "DAPS, exact covariance": (DAPS(), 20, 0.2957, 1.053, None, None),
    "DAPS, width sigma": (DAPS("tweedie", "sigma", "conditional"), 200, 0.01033, 1.063, None, None),
}
MANY = {
    "exact score, DDIM": (Unconditional(ODE), 1000, 5.062e-4, 0.9949, None, 0.994),
    "PiGDM, paper weighting": (PiGDM("paper"), 1000, 7.152, 0.4232, None, None),
    "DiffPIR, zeta 1": (
        DiffPIR(1.0, "sigma", ConstantFraction(1.0)),
        1000,
        0.784,
        0.5011,
        0.79,
        0.498,
    ),
    "DPS as written": (DPS("likelihood", 1.0, DDIM(1.0)), 1000, 0.6627, 0.8172, None, None),
    "DDRM": (DDRM(), 1000, 6.413, 0.3896, 5.9, None),
    "DAPS, ODE centre": (
        DAPS("ode", "sigma", "conditional", ode_steps=20),
        200,
        0.4965,
        1.642,
        None,
        None,
    ),
}


def check(name, anchor):
    method, steps, kl, ratio, published_kl, published_ratio = anchor
    found = probe(method, steps, exact_score=name.startswith("exact score"))
    assert found[:2] == pytest.approx((kl, ratio), rel=0.02)
    assert published_kl is None or found[0] == pytest.approx(published_kl, rel=0.1)
    assert published_ratio is None or found[1] == pytest.approx(published_ratio, rel=0.04)


@pytest.mark.parametrize("name", ANCHORS)
def test_the_numbers_stay(name):
    check(name, ANCHORS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", MANY)
def test_the_numbers_stay_with_many_levels(name):
    check(name, MANY[name])


def test_the_verdicts_of_the_literature_hold():
    kl = {
        name: anchor[2]
        for name, anchor in (
            *ANCHORS.items(),
            *((f"{name}, many", anchor) for name, anchor in MANY.items()),
        )
    }
    # More levels help the exact score, and harm what multiplies its guidance by no step size or
    # refreshes too much noise.
    assert kl["exact score, DDIM, many"] < 0.1 * kl["exact score, DDIM"]
    assert kl["PiGDM, paper weighting, many"] > 2 * kl["PiGDM, paper weighting"]
    assert kl["DDRM, many"] > 2 * kl["DDRM"]
    # The diagonal of A S A^T is better than its row sums where the covariance is not diagonal.
    assert kl["TMPD, diagonal"] < kl["TMPD, row sums"]
    # A weight of the data that ignores its noise is far off, in both directions.
    assert (
        min(kl["DDS, gamma 1"], kl["DDS, gamma 1/sigma_y^2"], kl["DiffPIR, lambda 7"])
        > 4
        > kl["PiGDM"]
    )


def test_the_likelihood_as_written_is_stiff():
    """DPS without a bound on its step explodes with 100 levels (published: 1e29) and is merely
    biased with many."""
    post = posterior()
    _, covariance = law(
        post, DPS("likelihood", 1.0, DDIM(1.0)), 100, po.grid.karras(100, 80.0, 0.002)
    )
    assert float(covariance.trace() / exact_posterior(post).covariance.trace()) > 1e6
    kl, ratio, _ = probe(DPS("likelihood", 1.0, DDIM(1.0)), 400)
    assert 0.3 < kl < 1.2
    assert 0.7 < ratio < 0.95
