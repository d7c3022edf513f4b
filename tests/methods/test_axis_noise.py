"""Noise that is correlated along an axis: the law of volumes, and what their intervals hold."""

from __future__ import annotations

import math

import pytest
import torch
from cases import full_gaussian
from reference import F64, draw, flat, law

import posteriori as po
from posteriori.axis_kernels import AR1, OneForAll, Slerp, SquaredExponential, along_axis
from posteriori.methods import DDIM, MMPS, Correlated, Midpoint, Unconditional
from posteriori.methods.axis_noise import AxisNoise
from posteriori.operators import Dense, Slicewise
from posteriori.problem_file.method import named_method
from posteriori.rng import Streams

DEPTH, SIDE = 5, 4
KERNELS = {
    "AR1": (AR1(0.8), 6),
    "SquaredExponential": (SquaredExponential(1.5, white=0.05), 6),
    "OneForAll": (OneForAll(), 1),
    "Slerp": (Slerp(), 2),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_has_a_unit_diagonal_and_the_rank_that_is_said(name):
    kernel, rank = KERNELS[name]
    R = kernel(6)
    torch.testing.assert_close(R.diagonal(), torch.ones(6, dtype=F64))
    assert torch.equal(R, R.T)
    values = torch.linalg.eigvalsh(R)
    assert int((values > 1e-9).sum()) == rank
    assert float(values[0]) > -1e-9
    unit = torch.eye(6, dtype=F64)[None]
    root = along_axis(kernel, unit)[0]
    torch.testing.assert_close(root @ root.T, R, rtol=1e-9, atol=1e-9)
    assert float(kernel(1)) == 1.0


def test_noise_of_one_slice_is_white_and_rows_are_on_their_own():
    noise = AxisNoise(Streams(0, range(3)), AR1(0.9))
    z = noise.normal(torch.zeros(3, 2, 4000, dtype=F64))
    again = AxisNoise(Streams(0, [1]), AR1(0.9)).normal(torch.zeros(1, 2, 4000, dtype=F64))
    assert torch.equal(z[1:2], again)
    flat_z = z.transpose(0, 1).reshape(2, -1)
    assert float(flat_z.cov()[0, 1]) == pytest.approx(0.9, abs=5 * math.sqrt(2 / 12000))
    assert float(flat_z.cov()[0, 0]) == pytest.approx(1.0, abs=5 * math.sqrt(2 / 12000))
    complex_z = along_axis(AR1(0.9), draw(1, 3, 4, dtype=torch.complex128))
    assert complex_z.is_complex()


def volume(kernel=None):
    """Slices of four numbers, two of which are measured with hardly any noise."""
    slice_ = full_gaussian(F64, (SIDE,))
    one = Dense(torch.eye(SIDE, dtype=F64)[:2])
    prior = po.priors.Slices(slice_, DEPTH, kernel=kernel)
    y = draw(DEPTH, 2, seed=3)
    return po.Posterior(
        prior, po.Likelihood(y, Slicewise(one, DEPTH), po.noise.Gaussian(1e-3))
    ), slice_.covariance


def left_open(C):
    """The covariance of the last two numbers given the first two."""
    return C[2:, 2:] - C[2:, :2] @ torch.linalg.solve(C[:2, :2], C[:2, 2:])


def test_an_unguided_run_has_the_law_of_a_volume_of_that_correlation():
    post, C = volume(AR1(0.8))
    R = AR1(0.8)(DEPTH)
    for transition, tolerance in ((DDIM(1.0), 0.1), (Midpoint(), 0.003)):
        found = law(flat(post), Unconditional(Correlated(transition, AR1(0.8))), 100)[1]
        exact = torch.kron(R, C)
        assert float((found - exact).abs().max()) < tolerance * float(exact.abs().max())
    white = law(flat(volume()[0]), Unconditional(DDIM(1.0)), 100)[1]
    assert float((white - exact).abs().max()) > 0.5 * float(exact.abs().max())


def coverage_along_axis(kernel, directions):
    """How often the 90 % interval of a run holds the truth, for each direction of the axis, a
    column, and each number left open, where the volume has the correlation of AR1(0.8). Exact, both
    being Gaussian of one mean: 2 Phi(1.645 sampled / true) - 1."""
    post, C = volume(kernel)
    method = MMPS(iterations=20, rtol=1e-13, solver="cg", transition=Correlated(Midpoint(), kernel))
    mean, covariance = law(post, method, 40)
    open_ = torch.arange(DEPTH * SIDE).view(DEPTH, SIDE)[:, 2:].flatten()
    sampled = covariance[open_][:, open_].view(DEPTH, 2, DEPTH, 2)
    along = (directions.T @ AR1(0.8)(DEPTH) @ directions).diagonal()
    true = along[:, None] * left_open(C).diagonal()
    spread = torch.einsum("dk,dpeq,ek->kpq", directions, sampled, directions)
    ratio = (spread.diagonal(dim1=1, dim2=2) / true).clamp(min=0).sqrt()
    m, y = post.prior.prior.mean, post.likelihood.y
    exact_mean = m[2:] + (y - m[:2]) @ torch.linalg.solve(C[:2, :2], C[:2, 2:])
    torch.testing.assert_close(mean[open_].view(DEPTH, 2), exact_mean, rtol=0.01, atol=0.01)
    return torch.special.erf(1.6448536 * ratio / math.sqrt(2))


def test_intervals_along_the_axis_hold_the_truth_with_the_full_rank_kernel_and_not_with_slerp():
    directions = torch.linalg.eigh(Slerp()(DEPTH))[1]
    right = coverage_along_axis(AR1(0.8), directions)
    assert float((right - 0.9).abs().max()) < 0.01
    slerp = coverage_along_axis(Slerp(), directions)
    # Two directions of five move; in the others the samples are one.
    assert float(slerp[: DEPTH - 2].max()) < 0.02
    assert float(slerp[DEPTH - 2 :].min()) > 0.5


def test_white_noise_is_too_narrow_for_what_the_slices_share():
    white = coverage_along_axis(AR1(0.0), torch.linalg.eigh(AR1(0.8)(DEPTH))[1])
    assert float(white[-1].max()) < 0.75  # what all slices share, nearly their mean
    assert float(white[0].min()) > 0.99  # what alternates


def test_a_problem_file_names_the_kernel():
    raw = {
        "name": "MMPS",
        "transition": {
            "name": "Correlated",
            "transition": "Midpoint",
            "kernel": {"name": "AR1", "rho": 0.7},
        },
    }
    assert named_method(raw) == MMPS(transition=Correlated(Midpoint(), AR1(0.7)))
    with pytest.raises(ValueError, match=r"AR1.rho: expected a number < 1, got 1.0"):
        AR1(1.0)
    assert Correlated(Midpoint()).calls == 2
