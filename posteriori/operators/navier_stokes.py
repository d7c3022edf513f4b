"""A fluid that was left alone for a while: its vorticity some time later, seen at some points."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.operators.base import Operator
from posteriori.settings import Count, NonNegative, Positive


class NavierStokes(Operator):
    """y = w(time) at every ``stride``-th point, for the vorticity w(0) = x of a plane flow without
    a boundary:

        dw/dt + u dw/da + v dw/db = viscosity (d2/da2 + d2/db2) w,   a, b in [0, 2 pi)
        (u, v) = (dpsi/db, -dpsi/da),   -(d2/da2 + d2/db2) psi = w

    By Fourier series in space, the products without their aliases (frequencies up to a third of the
    side), and Runge and Kutta's rule of fourth order in time, viscosity being integrated exactly.
    Not linear in x, differentiable; the mean vorticity stays.

    shape: (1, n, n), n even and >= 6. time: > 0, in units in which a vorticity of 1 turns once in
    4 pi. viscosity: >= 0. steps: of the time, >= 1; |velocity| time / steps should lie below the
    distance of two points, 2 pi / n. stride: >= 1, a divisor of n.

    Raises ``ValueError`` for another shape or stride.

    Source: Canuto, Hussaini, Quarteroni, Zang, Spectral methods in fluid dynamics, 1988, sections
    3.2 and 4.3.
    """

    wave: Tensor
    kept: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        time: Positive,
        viscosity: NonNegative = 1e-3,
        *,
        steps: Count = 20,
        stride: Count = 1,
    ) -> None:
        super().__init__(shape)
        if len(shape) != 3 or shape[0] != 1 or shape[1] != shape[2] or shape[1] % 2 or shape[1] < 6:
            raise ValueError(f"NavierStokes takes vorticity (1, n, n), n even >= 6, got {shape}")
        n = shape[1]
        if n % stride:
            raise ValueError(f"NavierStokes: stride must divide the side {n}, got {stride}")
        self.time, self.viscosity, self.steps, self.stride = time, viscosity, steps, stride
        k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
        self.register_buffer("wave", torch.stack(torch.meshgrid(k, k[: n // 2 + 1], indexing="ij")))
        self.register_buffer("kept", (self.wave.abs().amax(0) <= n / 3).to(self.wave))

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        k, kept = self.wave.to(x), self.kept.to(x)
        square = k.square().sum(0)
        inverse = torch.where(square > 0, 1 / square.clamp(min=1), 0.0)
        dt = self.time / self.steps
        half = torch.exp(-0.5 * dt * self.viscosity * square)

        def carried(w: Tensor) -> Tensor:
            """-u dw/da - v dw/db in Fourier space."""
            psi = w * inverse
            along, across = 1j * k[0], 1j * k[1]
            a, b, u, v = (
                torch.fft.irfft2(f * kept, s=x.shape[-2:])
                for f in (along * w, across * w, across * psi, -along * psi)
            )
            return -torch.fft.rfft2(u * a + v * b) * kept

        w = torch.fft.rfft2(x)
        for _ in range(self.steps):
            first = carried(w)
            second = carried(half * (w + 0.5 * dt * first))
            third = carried(half * w + 0.5 * dt * second)
            fourth = carried(half * (half * w + dt * third))
            w = half.square() * w + dt / 6 * (
                half.square() * first + 2 * half * (second + third) + fourth
            )
        return torch.fft.irfft2(w, s=x.shape[-2:])[..., :: self.stride, :: self.stride]
