"""Instruments whose measurement is known on paper: far fields, kernels that vary over a picture,
patterns of a mirror array, colour filters, converters."""

from __future__ import annotations

import math

import pytest
import torch
from reference import F64, draw
from scipy.linalg import hadamard

from posteriori import operators as ops

C128 = torch.complex128


def close(found, exact, tolerance=1e-12):
    torch.testing.assert_close(found, exact, rtol=tolerance, atol=tolerance)


# Far fields.

WHERE = torch.tensor([[0, 0], [0, 3], [2, 1], [3, 4], [3, 2]])


def scan(shape=(8, 9)):
    probe = draw(5, 4, dtype=C128, seed=1)
    return ops.Ptychography(probe, WHERE, shape), probe


def test_a_far_field_is_the_fourier_sum_of_what_the_probe_shows():
    """Element by element, of each position, at an odd and an even side of the probe."""
    A, probe = scan()
    x = draw(1, 8, 9, dtype=C128)
    y = A(x)[0]
    h, w = probe.shape
    row, column = torch.arange(h, dtype=F64), torch.arange(w, dtype=F64)
    down = torch.exp(-2j * math.pi * torch.outer(row - h // 2, row) / h)
    across = torch.exp(-2j * math.pi * torch.outer(column - w // 2, column) / w)
    for k, (r, c) in enumerate(WHERE.tolist()):
        shown = probe * x[0, r : r + h, c : c + w]
        close(y[k], down @ shown @ across.T / math.sqrt(h * w))


def test_far_fields_at_full_sampling_have_diagonal_normal_equations():
    """A^H A = diag(sum_k |p(r - r_k)|^2), whose largest entry is ||A||^2, and which a solve
    inverts."""
    A, probe = scan()
    exposure = torch.zeros(8, 9, dtype=F64)
    for r, c in WHERE.tolist():
        exposure[r : r + 5, c : c + 4] += probe.abs().square()
    M = ops.matrix(A)
    close(M.mH @ M, torch.diag(exposure.flatten()).to(C128))
    assert ops.norm2(A) == pytest.approx(float(torch.linalg.matrix_norm(M, 2)), rel=1e-12)
    x = draw(2, 8, 9, dtype=C128)
    damped = exposure / (exposure + (1e-3 * ops.norm2(A)) ** 2)
    close(ops.pinv(A, A(x)), damped * x, 1e-7)


def test_intensities_sum_to_the_energy_that_the_probe_let_through():
    """Parseval: over all positions and detector pixels."""
    A, _ = scan()
    x = draw(3, 8, 9, dtype=C128)
    counted = ops.Modulus(A, square=True)(x)
    close(counted.sum((1, 2, 3)), (A.exposure * x.abs().square()).sum((1, 2)))


@pytest.mark.parametrize("square", [False, True])
def test_a_modulus_loses_one_phase_and_nothing_else(square):
    A, _ = scan()
    x = draw(2, 8, 9, dtype=C128)
    power = 2 if square else 1
    close(ops.Modulus(A, square)(x), A(x).abs() ** power)
    close(
        ops.Modulus(A, square)(x * torch.exp(torch.tensor(1.2j, dtype=C128))),
        ops.Modulus(A, square)(x),
    )


def test_the_derivative_of_an_intensity_is_in_closed_form():
    A, _ = scan()
    x, u = draw(1, 8, 9, dtype=C128), draw(1, *A.out_shape, seed=2)
    _, pull = ops.Modulus(A, square=True).linearize(x)
    close(pull(u), 2 * A.adjoint(A(x) * u))
    quiet = ops.Modulus(A).linearize(torch.zeros_like(x))[1](u)
    assert torch.equal(quiet, torch.zeros_like(x))


def test_coded_diffraction_and_gaussian_matrices_are_this_modulus():
    masks = torch.exp(1j * draw(3, 6, 5)).to(C128)
    x = draw(2, 6, 5, dtype=C128)
    fourier = ops.MaskedFourier(torch.ones(6, 5, dtype=torch.bool), (6, 5), centred=False)
    far = torch.stack([fourier(m * x).view(2, 6, 5) for m in masks], 1)
    close(ops.coded_diffraction(masks)(x), torch.fft.fftshift(far, (-2, -1)).abs())
    # Masks of modulus 1 on one window: the whole is 3^(1/2) times a unitary map.
    assert ops.norm2(ops.coded_diffraction(masks).A) == pytest.approx(math.sqrt(3), rel=1e-12)
    matrix = draw(20, 30, dtype=C128, seed=4)
    counted = ops.Modulus(ops.Dense(matrix, (6, 5)), square=True)(x)
    close(counted, (x.flatten(1) @ matrix.T).abs().square())


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: ops.Modulus(ops.Identity((1, 2, 2))), TypeError, "Identity measures real"),
        (lambda: ops.Modulus(ops.Clip((2,))), TypeError, "Clip is not linear"),
        (lambda: ops.coded_diffraction(draw(2, 2, dtype=C128)), ValueError, "masks of shape"),
        (lambda: ops.Ptychography(draw(2, 2), WHERE, (8, 9)), ValueError, "complex probe"),
        (
            lambda: ops.Ptychography(draw(2, 2, dtype=C128), WHERE, (1, 8, 9)),
            ValueError,
            r"of shape \(H, W\), got \(1, 8, 9\)",
        ),
        (
            lambda: ops.Ptychography(draw(5, 4, dtype=C128), WHERE, (8, 7)),
            ValueError,
            r"to \[8, 8\], and the image ends at \[8, 7\]",
        ),
        (
            lambda: ops.Ptychography(draw(5, 4, dtype=C128), WHERE - 1, (8, 9)),
            ValueError,
            r"from \[-1, -1\]",
        ),
        (
            lambda: ops.Ptychography(draw(5, 4, dtype=C128), WHERE + 0.5, (9, 9)),
            TypeError,
            "whole pixels",
        ),
        (
            lambda: ops.Ptychography(draw(2, 5, 4, dtype=C128), WHERE, (8, 9)),
            ValueError,
            "2 probes and 5 positions",
        ),
        (lambda: ops.SinglePixel((1, 6, 4), 3), ValueError, r"powers of two, got \(1, 6, 4\)"),
        (lambda: ops.SinglePixel((1, 4, 4), 17), ValueError, "17 patterns, .*have 16"),
        (lambda: ops.SinglePixel((1, 4, 4), 3, "random"), ValueError, "a random order needs"),
        (lambda: ops.SinglePixel((1, 4, 4), 3, seed=1), ValueError, "'sequency' with seed=1"),
        (lambda: ops.bayer_mask("RGGX", (3, 4, 4)), ValueError, "'RGGX' must hold each"),
        (lambda: ops.bayer_mask("RGGBG", (3, 4, 4)), ValueError, "of one length"),
        (lambda: ops.bayer_mask("RGGB", (1, 4, 4)), ValueError, r"needs images \(3, H, W\)"),
        (lambda: ops.Quantize((2,), bits=17), ValueError, "bits.*17"),
        (lambda: ops.Quantize((2,), bits=8, black=255), ValueError, "black must lie"),
        (lambda: ops.Quantize((2,), gain=-1.0), ValueError, "gain must be .* got -1.0"),
        (lambda: ops.VaryingBlur(draw(3, 3), (1, 4, 4)), ValueError, "kernels of shape"),
        (
            lambda: ops.VaryingBlur(draw(2, 1, 3, 3).abs(), (1, 4, 4), rows=(3, 1)),
            ValueError,
            r"2 rows .*ascending, got \[3.0, 1.0\]",
        ),
        (
            lambda: ops.VaryingBlur(draw(2, 1, 3, 3).abs(), (1, 4, 4), rows=(1,)),
            ValueError,
            "2 rows of anchors need as many places",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


# A blur that varies.


@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero", "valid"])
def test_equal_kernels_are_one_blur(boundary):
    kernel = draw(3, 4, seed=1).abs()
    kernel = kernel / kernel.sum()
    A = ops.VaryingBlur(kernel.expand(2, 3, 3, 4), (2, 9, 8), boundary)
    x = draw(2, 2, 9, 8)
    close(A(x), ops.Blur(kernel, (2, 9, 8), boundary)(x))


def test_a_point_becomes_the_kernel_interpolated_at_its_place():
    """At anchors, between them and beyond the outermost, with the light of the point kept."""
    kernels = draw(2, 2, 3, 3, seed=2).abs()
    kernels = kernels / kernels.sum((2, 3), keepdim=True)
    A = ops.VaryingBlur(kernels, (1, 9, 11), rows=(2, 6), columns=(3, 7))
    for row, column in ((2, 3), (6, 7), (3, 6), (5, 3), (0, 1), (8, 10)):
        x = torch.zeros(1, 1, 9, 11, dtype=F64)
        x[..., row, column] = 1
        a, b = (min(max(v, 0.0), 1.0) for v in ((row - 2) / 4, (column - 3) / 4))
        top = (1 - b) * kernels[0, 0] + b * kernels[0, 1]
        low = (1 - b) * kernels[1, 0] + b * kernels[1, 1]
        wanted = torch.zeros(9, 11, dtype=F64)
        wanted[:3, :3] = (1 - a) * top + a * low
        close(A(x)[0, 0], wanted.roll((row - 1, column - 1), (0, 1)))


def test_anchors_lie_by_default_from_the_first_pixel_to_the_last():
    A = ops.VaryingBlur(torch.ones(3, 1, 1, 1, dtype=F64), (1, 5, 2))
    shares = torch.tensor([[1, 0.5, 0, 0, 0], [0, 0.5, 1, 0.5, 0], [0, 0, 0, 0.5, 1]], dtype=F64)
    close(A.weights[:, :, 0], shares)


# Patterns of a mirror array.


def test_patterns_are_the_rows_of_sylvesters_matrix():
    """Scipy's, in natural order, of pixels counted row by row; orthonormal."""
    A = ops.SinglePixel((1, 4, 8), 32, "natural")
    close(ops.matrix(A), torch.from_numpy(hadamard(32)).double() / math.sqrt(32))


def test_coarse_patterns_come_first():
    """The order of sequency: by changes of sign along both sides, then down the columns; each
    pattern once."""
    A = ops.SinglePixel((1, 4, 8), 32)
    patterns = ops.matrix(A).view(32, 4, 8).sign()
    down = (patterns[:, :, 0].diff(dim=1) != 0).sum(1)
    across = (patterns[:, 0, :].diff(dim=1) != 0).sum(1)
    keys = list(zip((down + across).tolist(), down.tolist(), strict=True))
    assert keys == sorted(keys)
    assert set(zip(down.tolist(), across.tolist(), strict=True)) == {
        (i, j) for i in range(4) for j in range(8)
    }


def test_a_count_behind_a_pattern_and_its_complement_is_one_number():
    A = ops.SinglePixel((1, 4, 4), 5, "random", seed=3)
    x = draw(1, 1, 4, 4).abs()
    for row, y in zip(ops.matrix(A).view(5, 4, 4), A(x)[0, 0], strict=True):
        light = [float((x[0, 0] * (sign * row > 0)).sum()) for sign in (1, -1)]
        assert float(y) == pytest.approx((light[0] - light[1]) / 4, rel=1e-12)
    # The constant pattern is always shown.
    assert bool((ops.matrix(A)[0] > 0).all())


def test_some_patterns_of_all_channels_have_singular_values_of_one():
    A = ops.SinglePixel((2, 4, 4), 7)
    M = ops.matrix(A)
    close(M @ M.T, torch.eye(14, dtype=F64))
    close(M[:7, 16:], torch.zeros(7, 16, dtype=F64))


# Colour filters.


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_a_bayer_sensor_sees_one_colour_at_each_pixel(pattern):
    shape = (3, 5, 6)
    mask = ops.bayer_mask(pattern, shape)
    for row in range(5):
        for column in range(6):
            letter = pattern[2 * (row % 2) + column % 2]
            assert mask[:, row, column].tolist() == [letter == one for one in "RGB"]
    # A raw picture holds the numbers of the mask in another order.
    x, A = draw(1, *shape), ops.Mask(mask)
    raw = (x * mask).sum(1)
    close(A(x)[0], raw.expand(shape)[mask])
    close(A(A.adjoint(A(x))), A(x))


def test_patterns_of_any_period_and_colours_repeat():
    mask = ops.bayer_mask("ABC/BCA", (3, 4, 6), colours="ABC")
    assert torch.equal(mask, torch.roll(mask, (2, 3), (1, 2)))
    assert mask.sum((1, 2)).tolist() == [8, 8, 8]
    assert mask[1].int().tolist()[:2] == [[0, 1, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0]]


# Converters.


def test_counts_are_those_of_a_file_of_unsigned_numbers():
    """Against the cast to uint16 of what was rounded and clipped, exactly, black and white
    included."""
    A = ops.Quantize((7,), gain=60000.0, black=256)
    x = torch.tensor([[-1.0, 0.0, 1e-5, 0.5, 1.0, 1.0879, 7.0]], dtype=F64)
    stored = (60000 * x.numpy() + 256).round().clip(0, 65535).astype("uint16")
    assert A(x)[0].tolist() == stored[0].tolist()
    assert A(x)[0, [0, 1, -1]].tolist() == [0.0, 256.0, 65535.0]
    white = ops.Quantize((1,), bits=8, black=5)
    assert float(white(torch.ones(1, 1))) == 255.0


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_counts_are_counted_the_same_again_of_their_pseudo_inverse(bits):
    A = ops.Quantize((100,), bits, black=0.3)
    for dtype in (torch.float32, F64):
        y = A(0.5 + draw(3, 100, dtype=dtype))
        assert torch.equal(y, y.round())
        assert torch.equal(A(A.pseudo_inverse(y)), y)


def test_rounding_within_one_count_has_the_derivative_of_the_clip():
    A = ops.Quantize((4,), bits=8, gain=10.0)
    x = torch.tensor([[-0.2, 0.01, 12.3, 26.0]], dtype=F64)
    y, pull = A.linearize(x)
    clip = ops.Clip((4,), gain=10.0, low=0.0, high=255.0)
    assert float((y - clip(x)).abs().max()) <= 0.5
    close(pull(torch.ones_like(x)), clip.linearize(x)[1](torch.ones_like(x)))
