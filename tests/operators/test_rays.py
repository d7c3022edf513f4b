"""Rays from a point: fan and cone beam against parallel rays, against chords in closed form, and
against each other; and the sparse matrix that all projectors are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from reference import F64, draw

from posteriori import operators as ops

ANGLES = [0, 20, 45, 77.5, 90, 160, 290]


def disc(side, pixel, centre, radius, finer=8):
    """A disc of value 1, of which border pixels have their share."""
    c = ((torch.arange(side * finer, dtype=F64) + 0.5) / finer - side / 2) * pixel
    inside = (c[None, :] - centre[0]) ** 2 + (-c[:, None] - centre[1]) ** 2 <= radius**2
    return inside.double().view(side, finer, side, finer).mean((1, 3))


def lines(A):
    """A point of the ray of each angle and detector and its direction of length 1, from the words
    of the docstring."""
    a = torch.deg2rad(torch.tensor(A.angles, dtype=F64))[:, None]
    t = (torch.arange(A.detectors, dtype=F64) - (A.detectors - 1) / 2) * A.detector_mm
    R, D = A.source_mm, A.detector_at_mm
    source = torch.stack([R * a.sin(), -R * a.cos()], -1)
    there = torch.stack([-D * a.sin() + t * a.cos(), D * a.cos() + t * a.sin()], -1)
    return source, torch.nn.functional.normalize(there - source, dim=-1)


@pytest.mark.parametrize("shape", [(3, 32, 31), (32, 31)])
def test_a_source_far_away_makes_parallel_rays(shape):
    """Within 1e-5 of the sinogram's norm from ten kilometres."""
    fan = ops.FanBeam(shape, ANGLES, 0.7, 1e7, 0.0, detectors=48, detector_mm=0.7)
    flat = ops.Radon(shape, ANGLES, 0.7, detectors=48)
    x = draw(2, *shape).abs()
    y, exact = fan(x), flat(x)
    assert y.shape == exact.shape
    assert float((y - exact).norm()) < 1e-5 * float(exact.norm())


def test_a_ray_of_a_fan_through_a_disc_measures_its_chord_in_mm():
    """Beside the middle, at every angle; within 0.8 pixels where the ray is well inside, and 2 %
    over all."""
    A = ops.FanBeam((64, 64), ANGLES, 0.5, 60.0, 40.0)
    centre, radius = (3.0, -2.0), 9.0
    y = A(disc(64, 0.5, centre, radius)[None])[0]
    source, along = lines(A)
    gap = torch.tensor(centre, dtype=F64) - source
    aside = gap[..., 0] * along[..., 1] - gap[..., 1] * along[..., 0]
    chord = 2 * (radius**2 - aside**2).clamp(min=0).sqrt()
    error = (y - chord).abs()
    assert float(error[chord > 6].max()) < 0.4
    assert float(error.norm()) < 0.02 * float(chord.norm())
    # The default detector sees all of the image and no more, at one pixel in the middle.
    assert A.detector_mm == pytest.approx(0.5 * 100 / 60)
    whole = A(torch.ones(1, 64, 64, dtype=F64))[0]
    assert bool((whole[:, A.detectors // 2] > 0).all())
    wider = ops.FanBeam((64, 64), ANGLES, 0.5, 60.0, 40.0, A.detectors + 6)
    assert float(wider(torch.ones(1, 64, 64, dtype=F64))[0][:, [0, 1, 2, -3, -2, -1]].sum()) == 0


def test_detectors_twice_as_far_and_as_wide_see_the_same():
    """The line integral is that of the whole line, wherever the detector stands on it."""
    x = draw(1, 9, 8).abs()
    near = ops.FanBeam((9, 8), ANGLES, 1.0, 12.0, 0.0, 9, 1.5)
    far = ops.FanBeam((9, 8), ANGLES, 1.0, 12.0, 12.0, 9, 3.0)
    torch.testing.assert_close(near(x), far(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("slice_mm", [None, 0.2, 3.0])
def test_the_middle_row_of_a_cone_is_the_fan_of_the_middle_slice(slice_mm):
    shared = {"detector_mm": 0.8}
    cone = ops.ConeBeam((3, 10, 11), ANGLES, 0.5, 20.0, 10.0, (5, 19), slice_mm=slice_mm, **shared)
    fan = ops.FanBeam((10, 11), ANGLES, 0.5, 20.0, 10.0, 19, **shared)
    x = draw(2, 3, 10, 11)
    torch.testing.assert_close(cone(x)[:, :, 2], fan(x[:, 1]), rtol=1e-12, atol=1e-12)


def test_a_cone_through_a_ball_measures_its_integrals_in_mm():
    """A Gaussian ball beside the middle, whose integrals are in closed form, for thin slices as
    for thick ones; 2 % is what linear interpolation takes off its width."""
    for slices, thick in ((24, 0.5), (40, 0.3)):
        A = ops.ConeBeam(
            (slices, 24, 24), [0, 50, 200], 0.5, 25.0, 15.0, (9, 15), 1.2, slice_mm=thick
        )
        axis = (torch.arange(24, dtype=F64) - 11.5) * 0.5
        z = (torch.arange(slices, dtype=F64) - (slices - 1) / 2) * thick
        middle, width = torch.tensor([0.7, -0.5, 0.6], dtype=F64), 1.5
        X, Y, Z = axis[None, None, :], -axis[None, :, None], z[:, None, None]
        square = (X - middle[0]) ** 2 + (Y - middle[1]) ** 2 + (Z - middle[2]) ** 2
        y = A(torch.exp(-square / (2 * width**2))[None])[0]
        a = torch.deg2rad(torch.tensor(A.angles, dtype=F64))[:, None, None]
        t = (torch.arange(15, dtype=F64) - 7)[None, None, :] * 1.2
        v = ((torch.arange(9, dtype=F64) - 4) * 1.2)[None, :, None].expand(3, 9, 15)
        source = torch.stack([25 * a.sin(), -25 * a.cos(), 0 * a], -1)
        there = torch.stack(
            [
                (-15 * a.sin() + t * a.cos()).expand_as(v),
                (15 * a.cos() + t * a.sin()).expand_as(v),
                v,
            ],
            -1,
        )
        along = torch.nn.functional.normalize(there - source, dim=-1)
        gap = (middle - source).expand_as(along)
        aside = torch.linalg.cross(gap, along).square().sum(-1)
        exact = width * math.sqrt(2 * math.pi) * torch.exp(-aside / (2 * width**2))
        assert float((y - exact).norm()) < 0.02 * float(exact.norm())


def test_the_fan_of_astra_is_ours():
    """Its projector follows pixels otherwise: 0.13 % on a smooth image, at the same places."""
    astra = pytest.importorskip("astra")
    volume = astra.create_vol_geom(64, 64)
    rays = astra.create_proj_geom("fanflat", 1.6, 98, np.deg2rad(ANGLES), 120.0, 80.0)
    theirs = ops.wrap(astra.OpTomo(astra.create_projector("strip_fanflat", rays, volume)))
    ours = ops.FanBeam((64, 64), ANGLES, 1.0, 120.0, 80.0, 98, 1.6)
    c = torch.arange(64.0) - 31.5
    x = torch.exp(-((c[None, :] - 9) ** 2 + (c[:, None] + 5) ** 2) / 72)[None]
    assert float((theirs(x) - ours(x)).norm()) < 5e-3 * float(ours(x).norm())


# The matrix.


def test_a_sparse_matrix_is_the_dense_one_on_the_last_axes():
    M = np.random.default_rng(0).standard_normal((5, 12)) * (np.arange(12) % 3 > 0)
    A = ops.Sparse(sparse.csr_matrix(M), (2, 3, 4), out_shape=(1, 5))
    x = draw(3, 2, 3, 4)
    exact = (x.flatten(2) @ torch.from_numpy(M).T)[:, :, None]
    torch.testing.assert_close(A(x), exact)
    back = (exact.squeeze(2) @ torch.from_numpy(M)).view(3, 2, 3, 4)
    torch.testing.assert_close(A.adjoint(exact), back)
    whole = ops.Sparse(sparse.csr_matrix(M), (1, 12), axes=2)
    assert (whole.out_shape, ops.Sparse(sparse.csr_matrix(M), (1, 12)).out_shape) == ((5,), (1, 5))


FAN = {"angles": ANGLES, "pixel_mm": 1.0, "source_mm": 20.0, "detector_at_mm": 5.0}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: ops.FanBeam((20, 20), **(FAN | {"source_mm": 14.0})),
            "14 mm from the origin, must lie outside .* radius is 14.14 mm",
        ),
        (lambda: ops.FanBeam((20, 20), **(FAN | {"detector_at_mm": -1})), "detector_at_mm .* -1"),
        (lambda: ops.FanBeam((5,), **FAN), r"\(C, H, W\), got \(5,\)"),
        (lambda: ops.FanBeam((5, 5), **(FAN | {"angles": [math.nan]})), "FanBeam: angles must"),
        (lambda: ops.FanBeam((5, 5), **(FAN | {"pixel_mm": 0.0})), "pixel_mm"),
        (lambda: ops.ConeBeam((5, 5), **FAN), r"volumes of shape \(D, H, W\)"),
        (lambda: ops.ConeBeam((2, 5, 5), **FAN, detectors=(0, 4)), r"got \(0, 4\)"),
        (
            lambda: ops.ConeBeam((2, 5, 5), **FAN, detectors=(10**4, 10**4)),
            "ConeBeam: 700000000 rays .* ASTRA",
        ),
        (lambda: ops.Sparse(sparse.eye_array(4, dtype=int), (4,)), "real numbers, got int64"),
        (lambda: ops.Sparse(sparse.eye_array(4), (2, 3)), "matrix's 4 columns"),
        (lambda: ops.Sparse(sparse.eye_array(4), (2, 2), (3,)), "3 numbers, the matrix 4 rows"),
        (lambda: ops.Sparse(sparse.eye_array(4), (2, 4), axes=2), "do not fit .* 4 columns"),
    ],
)
def test_what_makes_no_rays_is_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        make()
