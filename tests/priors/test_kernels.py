"""Kernels of a shaken camera, and the mixture around them as a prior."""

import pytest
import torch

import posteriori as po
from posteriori.priors import kernel_family, motion_kernels

F64 = torch.float64


def test_motion_kernels_have_sum_one_and_their_mass_in_the_middle():
    k = motion_kernels(40, 15, 3)
    assert k.shape == (40, 15, 15)
    assert float(k.min()) >= 0
    torch.testing.assert_close(k.sum((1, 2)), torch.ones(40, dtype=F64))
    t = torch.arange(15, dtype=F64) - 7
    for axis in (1, 2):
        centre = (k.sum(3 - axis) * t).sum(1)
        assert float(centre.abs().max()) < 1e-9
    # A trace about as long as it is asked for, and thin: it misses most of the square.
    lit = k > 0
    far = torch.maximum(lit.any(1), lit.any(2)) * t.abs()
    assert float(far.amax(1).max()) <= 6
    assert float(far.amax(1).min()) >= 4
    assert float(lit.double().mean()) < 0.4


def test_a_motion_kernel_depends_on_its_seed_and_its_number_alone():
    k = motion_kernels(5, 9, 1)
    assert torch.equal(k[:2], motion_kernels(2, 9, 1))
    assert not torch.equal(k[0], k[1])
    assert not torch.equal(k[0], motion_kernels(1, 9, 2)[0])
    for wrong in ((0, 9), (1, 8), (1, 3)):
        with pytest.raises(ValueError, match="odd size"):
            motion_kernels(*wrong)


def test_a_family_of_motion_kernels_denoises_to_the_nearest():
    kernels = motion_kernels(12, 9, 0)
    prior = kernel_family(kernels, 0.002)
    noisy = kernels + 0.004 * po.rng.Streams(0, range(12)).normal(kernels)
    x0 = prior.denoise(noisy, torch.tensor(0.004, dtype=F64))
    gap = (x0[:, None] - kernels).square().sum((2, 3))
    assert torch.equal(gap.argmin(1), torch.arange(12))
    assert float((x0 - kernels).square().mean()) < 0.4 * float((noisy - kernels).square().mean())
