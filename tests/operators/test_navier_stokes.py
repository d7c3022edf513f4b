"""A plane flow: flows that are known exactly, what a flow without friction keeps, the order of the
rule in time."""

import math

import pytest
import torch
from reference import draw

from posteriori.operators import NavierStokes

F64 = torch.float64


def points(n):
    t = 2 * math.pi * torch.arange(n, dtype=F64) / n
    return torch.meshgrid(t, t, indexing="ij")


def smooth(n, rows=2):
    """Vorticity of the lowest frequencies, without a mean."""
    a, b = points(n)
    z = draw(rows, 3, 3, 2)
    w = sum(
        z[:, i, j, 0, None, None] * torch.cos(i * a + (j - 1) * b)
        + z[:, i, j, 1, None, None] * torch.sin(i * a + (j - 1) * b)
        for i in range(3)
        for j in range(3)
        if (i, j) != (0, 1)
    )
    return w[:, None]


@pytest.mark.parametrize("stride", [1, 2])
def test_vortices_of_one_frequency_only_decay(stride):
    """Taylor's: the flow does not carry a vorticity whose waves all have |k|^2 = 5, which falls as
    exp(-5 viscosity t)."""
    a, b = points(16)
    w = torch.cos(2 * a + b) + 0.7 * torch.sin(a - 2 * b) - 1.3 * torch.cos(2 * a - b)
    A = NavierStokes((1, 16, 16), 2.0, 0.05, steps=7, stride=stride)
    wanted = (w * math.exp(-5 * 0.05 * 2.0))[::stride, ::stride]
    torch.testing.assert_close(A(w[None, None])[0, 0], wanted, rtol=1e-11, atol=1e-12)
    still = torch.full((1, 1, 16, 16), 0.3, dtype=F64)
    torch.testing.assert_close(A(still), still[..., ::stride, ::stride])


def test_a_shear_carries_a_wave_along():
    """w = shear + small wave: u = sin(b) carries the wave of the first axis; against the equation
    linearised about the shear, by its own small steps."""
    n, e = 16, 1e-6
    a, b = points(n)
    shear, wave = -torch.cos(b), torch.cos(a)
    A = NavierStokes((1, n, n), 0.02, 0.0, steps=4)
    out = A((shear + e * wave)[None, None])[0, 0]
    # psi = wave / |k|^2 for a wave of k = 1: its velocity is (0, sin(a)), that of the shear
    # (sin(b), 0); what carries is -u dw/da - v dw/db of both.
    rate = torch.sin(b) * torch.sin(a) - torch.sin(a) * torch.sin(b)
    torch.testing.assert_close((out - shear) / e, wave + 0.02 * rate, rtol=0, atol=2e-4)
    two = torch.cos(2 * a)
    out = A((shear + e * two)[None, None])[0, 0]
    rate = 2 * torch.sin(b) * torch.sin(2 * a) - 0.5 * torch.sin(2 * a) * torch.sin(b)
    torch.testing.assert_close((out - shear) / e, two + 0.02 * rate, rtol=0, atol=1.5e-3)


def test_without_friction_energy_and_enstrophy_stay_and_with_it_both_fall():
    w, n = smooth(24), 24
    k = torch.fft.fftfreq(n, 1 / n, dtype=F64)
    square = k[:, None].square() + k.square()
    square[0, 0] = 1.0

    def energy(w):
        return (torch.fft.fft2(w).abs().square() / square).sum((1, 2, 3))

    def enstrophy(w):
        return w.square().sum((1, 2, 3))

    free = NavierStokes((1, n, n), 0.2, 0.0, steps=40)(w)
    slow = NavierStokes((1, n, n), 0.2, 0.1, steps=40)(w)
    for of in (energy, enstrophy):
        torch.testing.assert_close(of(free), of(w), rtol=1e-6, atol=0)
        assert bool((of(slow) < 0.99 * of(w)).all())
    assert float((free - w).abs().max()) > 0.1


def test_the_error_in_time_falls_as_the_fourth_power_of_the_step():
    w = smooth(16)
    many, few, fewer = (NavierStokes((1, 16, 16), 0.5, 0.02, steps=s)(w) for s in (320, 20, 10))
    ratio = (fewer - many).norm() / (few - many).norm()
    assert 12 < float(ratio) < 20


def test_what_is_no_flow_is_refused():
    for shape, settings, said in (
        ((1, 7, 7), {}, "n even"),
        ((2, 8, 8), {}, "n even"),
        ((1, 8, 8), {"stride": 3}, "divide the side 8"),
        ((1, 8, 8), {"steps": 0}, "steps"),
    ):
        with pytest.raises(ValueError, match=said):
            NavierStokes(shape, 1.0, **settings)
