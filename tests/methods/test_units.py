"""Units: what comes out of a method does not depend on the unit in which y is given, nor on the
range of the prior's images."""

from __future__ import annotations

import warnings

import pytest
import torch
from cases import BRIEF, METHODS, OPERATORS, short_pilot
from reference import F64

import posteriori as po
from posteriori import operators as ops
from posteriori.linalg import real_view
from posteriori.methods.courses import course_of
from posteriori.operators.base import LinearOperator

SHAPE = (1, 3, 4)


def image(seed=1):
    return 0.5 + 0.2 * torch.randn(
        1, *SHAPE, dtype=F64, generator=torch.Generator().manual_seed(seed)
    )


def prior(low=0.0):
    """Images near 0.5 +- 0.2 in [0, 1], or the same images in [-1, 1]."""
    size = 1 - low
    return po.priors.Gaussian(
        torch.full(SHAPE, low + 0.5 * size, dtype=F64), (0.2 * size) ** 2, range=(low, 1.0)
    )


def clipped(u):
    A = ops.Clip(SHAPE, 1.5 * u, 0.0, u)
    return A(image()) + 0.03 * u * image(2), A, po.noise.Gaussian(0.03 * u)


def photons(u):
    """Counts by a linear operator, in units of 1 / u of a thousand of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few photons in an odd unit are not few
        noise = po.noise.Poisson(1000.0 / u)
    A = ops.Dense(u * (torch.eye(12, dtype=F64) + 0.2).roll(1, 0), SHAPE)
    return (
        u * po.noise.Poisson(1000.0).sample(A(image()).clamp(min=0) / u, po.rng.Streams(3, [0])),
        A,
        noise,
    )


def linear(u):
    A = ops.Dense(
        u * torch.randn(7, 12, dtype=F64, generator=torch.Generator().manual_seed(4)), SHAPE
    )
    return A(image()) + 0.05 * u, A, po.noise.Gaussian(0.05 * u)


PROBLEMS = {"clipped": clipped, "photons": photons, "linear": linear}


# Published steps whose size belongs to one unit of y, as their authors have it.
UNIT_OF_Y = {
    *(
        "DPS published",
        "PaDIS published",
        "DPS squared",
        "LGDMC published",
        "DDS published",
        "ScoreALD published",
        "FreeDoM faces",
        "FlowChef published",
        "FlowDPS published",
    ),
    *("ReSample published", "REDDiff published", "DAPS published"),
    "DDIP published",  # its step is that of DDS published
    *("PSLD published", "TReg published", "DreamSampler published"),
}
# Settings that belong to images in [-1, 1]: levels, rates and widths in these units.
RANGE = {
    *(
        "DPS published",
        "PaDIS published",
        "DPS squared",
        "PiGDM published",
        "PiGDM paper",
        "LGDMC published",
        "ILVR coarse",
        "FreeDoM published",
        "FreeDoM faces",
    ),
    *(
        "ReSample published",
        "SITCOM published",
        "REDDiff published",
        "MGPS published",
        "DAPS mala",
        "PnPDM published",
    ),
    *("MCGDiff published", "DAPS published", "DCDP published"),
    *("PSLD published", "TReg published", "TReg null", "P2L means"),
    "DreamSampler published",
    *("DAPS flower", "DAPS flower mean", "FlowChef published", "FlowDPS published"),
}
# Draws along the axes of a decomposition, whose signs are left to rounding: the same law, other
# numbers.
SIGNS = {"DAPS exact"}


def samples(method, problem, u=1.0, low=0.0):
    y, A, noise = problem(u)
    post = po.Posterior(prior(low), po.Likelihood(y[0], A, noise, range=(0.0, 1.0)))
    # The levels of a paper belong to its range; the rule is compared along the same levels.
    grid = "karras" if course_of(method) else None
    return (
        None
        if method.refuses(post)
        else po.sample(post, method, n=2, steps=3, seed=3, grid=grid).samples
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", [name for name in METHODS if name not in SIGNS])
def test_samples_depend_neither_on_the_unit_of_y_nor_on_the_range_of_the_prior(
    name, problem, monkeypatch
):
    """Up to rounding, which iterations that stop at a residual enlarge."""
    short_pilot(monkeypatch)
    method, make = BRIEF[name], PROBLEMS[problem]
    if name in UNIT_OF_Y & RANGE or (want := samples(method, make)) is None:
        return
    for u, low in ((10.0, 0.0), (0.1, -1.0)):
        other = samples(
            method, make, 1.0 if name in UNIT_OF_Y else u, 0.0 if name in RANGE else low
        )
        torch.testing.assert_close(other, want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "name", [name for name, make in OPERATORS.items() if not isinstance(make(F64), LinearOperator)]
)
def test_the_norm_of_a_curved_operator_is_that_of_its_derivative_at_each_image(name):
    A = OPERATORS[name](F64)
    x = 0.4 * A.probe(
        lambda *size, dtype, device: torch.randn(
            *size, dtype=dtype, generator=torch.Generator().manual_seed(5)
        ),
        3,
        F64,
    )
    found = ops.norm2(A, x)
    for k in range(3):
        basis = torch.eye(x[0].numel(), dtype=F64).view(-1, *A.in_shape)
        if A.complex_in:  # over the reals a complex number has two directions
            basis = torch.cat([torch.complex(basis, 0 * basis), torch.complex(0 * basis, basis)])
        _, push, _ = A.differential(x[k : k + 1].expand(basis.shape))
        J = real_view(push(basis)).flatten(1).T
        exact = float(torch.linalg.matrix_norm(J, 2))
        assert 0.9 * exact <= float(found[k]) <= exact * (1 + 1e-12)
        torch.testing.assert_close(ops.norm2(A, x[k : k + 1])[0], found[k], rtol=1e-9, atol=0)


def test_the_norm_of_a_linear_operator_in_another_range_is_known():
    A = ops.Dense(torch.randn(5, 12, dtype=F64, generator=torch.Generator().manual_seed(0)), SHAPE)
    x, inner = image().expand(2, *SHAPE), float(torch.linalg.matrix_norm(A.matrix, 2))
    assert ops.norm2(A) == pytest.approx(inner, rel=1e-9)
    assert ops.norm2(A, x).tolist() == pytest.approx([inner, inner], rel=1e-9)
    assert ops.norm2(ops.Affine(A, -0.5, 3.0), x).tolist() == pytest.approx(
        [inner / 2, inner / 2], rel=1e-9
    )
    with pytest.raises(TypeError, match="at images x"):
        ops.norm2(ops.Clip(SHAPE))


@pytest.mark.parametrize("method", [po.methods.REDDiff(), po.methods.DPS(), po.methods.LGDMC()])
def test_an_over_exposed_image_is_found(method):
    """Most of it is white, and says only that it is bright; the rest is known to 0.02."""
    shape = (1, 16, 16)
    law = po.priors.Gaussian(torch.full(shape, 0.5, dtype=F64), 0.04)
    A, x = ops.Clip(shape, 1.5), law.sample(1, seed=1)
    post = po.Posterior(
        law,
        po.Likelihood(
            po.noise.Gaussian(0.03).sample(A(x), po.rng.Streams(1, [0]))[0],
            A,
            po.noise.Gaussian(0.03),
        ),
    )
    run = po.sample(post, method, n=4, steps=30)
    assert float((run.mean - x[0]).square().mean().sqrt()) < 0.08
    assert float((run.samples - x).abs().max()) < 0.9


def test_photons_counted_one_by_one_are_a_measurement_like_others():
    """y in photons, images in [-1, 1]: the operator's norm is 500 there, not 1."""
    y, A, noise = photons(1000.0)
    run = po.sample(
        po.Posterior(prior(-1.0), po.Likelihood(y[0], A, noise, range=(0.0, 1.0))),
        po.methods.DPS(),
        n=8,
        steps=30,
    )
    assert float((run.mean - image()[0]).square().mean().sqrt()) < 0.1


@pytest.mark.parametrize("weights", ["drawn", "expected"])
def test_precisions_do_not_depend_on_the_range_of_the_prior(weights):
    """Precisions are told by errors in the prior's range, twice as large in [-1, 1]."""
    A = ops.Dense(torch.randn(7, 12, dtype=F64, generator=torch.Generator().manual_seed(4)), SHAPE)
    law = po.noise.Laplace(0.1)
    y = law.sample(A(image()), po.rng.Streams(3, [0]))[0]
    method = po.methods.Reweighted(po.methods.PnPDM(), weights)
    runs = []
    for low in (0.0, -1.0):
        post = po.Posterior(prior(low), po.Likelihood(y, A, law, range=(0, 1)))
        grid = torch.cat([torch.linspace(1, 0.02, 6, dtype=F64), torch.zeros(1)]) * (1 - low)
        runs.append(po.sample(post, method, n=3, grid=grid, progress=False))
    torch.testing.assert_close(runs[0].samples, runs[1].samples, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(runs[0].trace["weight"], runs[1].trace["weight"], rtol=1e-5, atol=0)
