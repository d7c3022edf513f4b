"""Instruments on volumes and videos: along the axis, on each slice, and in three dimensions."""

from __future__ import annotations

import pytest
import torch
from reference import F64, draw

from posteriori.operators import (
    AlongAxis,
    Dense,
    MaskedFourier,
    Radon,
    Slicewise,
    kept_frames,
    matrix,
    random_mask,
    temporal_blur,
    thick_slices,
)


def test_thick_slices_are_means_and_dropped_frames_are_gone():
    x = draw(2, 6, 1, 3)
    torch.testing.assert_close(thick_slices((6, 1, 3), 3)(x), x.view(2, 2, 3, 1, 3).mean(2))
    torch.testing.assert_close(kept_frames((6, 1, 3), [0, 5, 2])(x), x[:, [0, 5, 2]])


@pytest.mark.parametrize("taps", [[0.5, 0.3, 0.2], [0.4, 0.3, 0.2, 0.1]])
def test_a_temporal_blur_is_the_sum_that_is_said(taps):
    x, n, c = draw(1, 7, 2), 7, len(taps) // 2
    beyond = {"circular": lambda k: k % n, "repeat": lambda k: min(max(k, 0), n - 1)}
    for boundary, place in beyond.items():
        y = temporal_blur((7, 2), taps, boundary)(x)
        for i in range(n):
            exact = sum(t * x[:, place(i - j + c)] for j, t in enumerate(taps))
            torch.testing.assert_close(y[:, i], exact)
    valid = temporal_blur((7, 2), taps, "valid")
    assert valid.out_shape == (7 - len(taps) + 1, 2)
    inside = [i for i in range(n) if i + c - len(taps) + 1 >= 0 and i + c < n]
    torch.testing.assert_close(valid(x), temporal_blur((7, 2), taps, "circular")(x)[:, inside])
    mean = temporal_blur((7, 2), 3, "circular")(x)
    torch.testing.assert_close(mean, (x.roll(1, 1) + x + x.roll(-1, 1)) / 3)


def test_tomography_of_slices_is_that_of_the_stack():
    """Sparse views over half a turn, and a limited angle of 120 degrees."""
    for angles in (torch.arange(8) * 22.5, torch.linspace(-60, 60, 9)):
        one = Radon((6, 7), angles.tolist(), 0.8).to(F64)
        stack = Radon((5, 6, 7), angles.tolist(), 0.8).to(F64)
        x = draw(2, 5, 6, 7)
        for at_once in (None, 1, 3):
            slices = Slicewise(one, 5, at_once=at_once)
            torch.testing.assert_close(slices(x), stack(x))
            y = draw(2, *slices.out_shape)
            torch.testing.assert_close(slices.adjoint(y), stack.adjoint(y))


def test_a_few_slices_at_a_time_are_all_that_the_instrument_sees():
    class Counted(Dense):
        most = 0

        def forward(self, x):
            self.most = max(self.most, len(x))
            return super().forward(x)

    A = Counted(draw(2, 3))
    x = draw(2, 7, 3)
    torch.testing.assert_close(Slicewise(A, 7, at_once=4)(x), x @ A.matrix.T)
    assert A.most == 4


def test_fourier_in_three_dimensions_is_the_matrix():
    mask = random_mask((3, 4, 5), 0.5, 1)
    x = draw(1, 3, 4, 5, dtype=torch.complex128)
    A = MaskedFourier(mask, (3, 4, 5), centred=False, dims=3)
    torch.testing.assert_close(A(x)[0], torch.fft.fftn(x[0], norm="ortho")[mask])
    centred = MaskedFourier(mask, (3, 4, 5), dims=3)
    axes = (1, 2, 3)
    k = torch.fft.fftshift(
        torch.fft.fftn(torch.fft.ifftshift(x, axes), dim=axes, norm="ortho"), axes
    )
    torch.testing.assert_close(centred(x)[0], k[0][mask])
    # A mask of whole lines along the slices makes it one transform of each slice after another.
    flat = MaskedFourier(torch.ones(1, 1, 1, dtype=torch.bool), (3, 4, 5), dims=2)
    along = torch.fft.fftshift(
        torch.fft.fft(torch.fft.ifftshift(flat.transform(x), 1), dim=1, norm="ortho"), 1
    )
    torch.testing.assert_close(along, k)


def test_the_spectrum_along_the_axis_is_the_matrix_of_all_numbers():
    M = draw(3, 5)
    A = AlongAxis(M, (5, 2))
    torch.testing.assert_close(matrix(A), torch.kron(M, torch.eye(2, dtype=F64)))
    torch.testing.assert_close(
        A.spectrum().s, torch.linalg.svdvals(M).repeat_interleave(2), rtol=1e-9, atol=1e-9
    )


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"must be \(m, 4\)"):
        AlongAxis(draw(3, 5), (4, 2))
    with pytest.raises(ValueError, match="the factor 4 does not divide 6 slices"):
        thick_slices((6, 2), 4)
    with pytest.raises(ValueError, match="1 to 3 numbers, got 5"):
        temporal_blur((3, 2), 5)
    with pytest.raises(ValueError, match="numbers from 0 to 2"):
        kept_frames((3, 2), [0, 3])
    with pytest.raises(ValueError, match="at_once must be an integer >= 1, got 0"):
        Slicewise(Dense(draw(2, 3)), 2, at_once=0)
    with pytest.raises(ValueError, match=r"\(D, H, W\) or \(C, D, H, W\), got \(4, 5\)"):
        MaskedFourier(torch.ones(4, 5, dtype=torch.bool), (4, 5), dims=3)
