"""JPEG compression: what is measured are the integers that a .jpg file holds."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from posteriori.linalg import cosines
from posteriori.operators.base import Operator
from posteriori.operators.grey import REC601

Subsampling = Literal["4:2:0", "4:4:4"]
Rounding = Literal["straight-through", "none"]

# ITU-T T.81, Annex K, tables K.1 (luminance) and K.2 (chrominance): the tables of libjpeg at
# quality 50. Rows are vertical frequencies.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)


class JPEG(Operator):
    """y = round(DCT(plane) / table), block by block: grey or colour images (1 or 3, H, W) in [0,
    1] -> (m,) integers. Not linear.

    A plane is 255 x - 128 of a grey image, or Y - 128, Cb - 128, Cr - 128 of a colour image
    (JFIF, full range), the last two by the mean of 2 x 2 pixels with "4:2:0". DCT is the
    orthonormal cosine transform of each 8 x 8 block, table the quantisation steps. y holds the
    planes one after the other, coefficients in the place of their block; ``split`` takes them
    apart. Its unit is one quantisation step, in which rounding is an error of standard deviation
    about 1 / sqrt(12) = 0.29.

    quality: 1 to 100, by libjpeg's rule: (s T + 50) // 100 within 1 to 255, s = 5000 // quality
    below 50 and 200 - 2 quality from there.
    subsampling: of the colours; a grey image has none.
    rounding: "straight-through" rounds, and takes the derivative of rounding, which is 0 almost
    everywhere, as 1: ``linearize`` and automatic differentiation give the derivative of
    ``surrogate()``, the same operator with rounding "none".

    Values outside [0, 1] are neither refused nor clipped: iterates of a sampler leave the range,
    and a decoded picture does too.
    Raises ``ValueError`` when a side is no multiple of 8 (of 16 in colour with "4:2:0"). A JPEG
    file repeats the border of such an image; decoding would cut the repeated part off, and coding
    again would give other integers.
    """

    luminance: Tensor
    chrominance: Tensor
    cosines: Tensor
    colours: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        quality: int,
        subsampling: Subsampling = "4:2:0",
        rounding: Rounding = "straight-through",
    ) -> None:
        super().__init__(shape)
        if len(self.in_shape) != 3 or self.in_shape[0] not in (1, 3):
            raise ValueError(
                f"JPEG takes images of shape (1, H, W) or (3, H, W), got {self.in_shape}"
            )
        if quality != int(quality) or not 1 <= quality <= 100:
            raise ValueError(f"JPEG: quality must be a whole number from 1 to 100, got {quality}")
        C, H, W = self.in_shape
        self.quality, self.subsampling, self.rounding = int(quality), subsampling, rounding
        self.halved = C == 3 and subsampling == "4:2:0"
        unit = 16 if self.halved else 8
        if H % unit or W % unit:
            larger = f"{-(-H // unit) * unit}x{-(-W // unit) * unit}"
            raise ValueError(
                f"JPEG: the sides of {H}x{W} images must be multiples of {unit}; "
                f"crop them, or pad them to {larger}"
            )
        self.register_buffer("luminance", _scaled(LUMINANCE, self.quality))
        self.register_buffer("chrominance", _scaled(CHROMINANCE, self.quality))
        # A copy: a buffer may be written into, the table that all share may not.
        self.register_buffer("cosines", cosines(8).clone())
        self.register_buffer("colours", _colours())

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        planes = 255 * x
        if self.in_shape[0] == 3:
            planes = torch.einsum("kc,bchw->bkhw", self.colours.to(x.dtype), planes)
        # Colour differences are centred already: their 128 of a file cancels the level shift.
        parts = [self._coded(planes[:, :1] - 128, self.luminance)]
        if self.in_shape[0] == 3:
            chroma = planes[:, 1:]
            parts.append(
                self._coded(
                    torch.nn.functional.avg_pool2d(chroma, 2) if self.halved else chroma,
                    self.chrominance,
                )
            )
        y = torch.cat(parts, 1)
        # The second term is exactly 0, so that the value stays an integer; only its derivative
        # counts.
        return y if self.rounding == "none" else y.detach().round() + (y - y.detach())

    def split(self, y: Tensor) -> list[Tensor]:
        """The coefficients of each plane, (B, h, w): block (i, j) is at rows 8 i to 8 i + 7 and
        columns 8 j to 8 j + 7."""
        self.check_measurement(y)
        C, H, W = self.in_shape
        h, w = (H // 2, W // 2) if self.halved else (H, W)
        sides = [(H, W)] + [(h, w)] * (C - 1)
        return [
            p.unflatten(1, side)
            for p, side in zip(y.split([a * b for a, b in sides], 1), sides, strict=True)
        ]

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """The decoded picture h^+(y): (B, m) -> (B, C, H, W), with h(h^+(h(x))) = h(x);
        h(h^+(y)) = round(y) for any y.

        Halved colours are repeated in 2 x 2 pixels, which their mean undoes (the smooth
        interpolation of libjpeg would give other integers), and values are not clipped to [0, 1];
        clip them to look at the picture.
        """
        grey, *chroma = self.split(y)
        planes = self._decoded(grey[:, None], self.luminance) + 128
        if chroma:
            colour = self._decoded(torch.stack(chroma, 1), self.chrominance)
            if self.halved:
                colour = colour.repeat_interleave(2, -1).repeat_interleave(2, -2)
            planes = torch.einsum(
                "ck,bkhw->bchw",
                torch.linalg.inv(self.colours).to(y.dtype),
                torch.cat([planes, colour], 1),
            )
        return planes / 255

    def surrogate(self) -> Operator | None:
        if self.rounding == "none":
            return None
        return JPEG(self.in_shape, self.quality, self.subsampling, rounding="none").to(self.cosines)

    def _coded(self, planes: Tensor, table: Tensor) -> Tensor:
        D = self.cosines.to(planes.dtype)
        blocks = planes.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8))
        c = torch.einsum("ui,bchiwj,vj->bchuwv", D, blocks, D)
        return (c / table.to(planes.dtype)[:, None]).flatten(1)

    def _decoded(self, c: Tensor, table: Tensor) -> Tensor:
        D = self.cosines.to(c.dtype)
        blocks = c.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)) * table.to(c.dtype)[:, None]
        return torch.einsum("ui,bchuwv,vj->bchiwj", D, blocks, D).flatten(-2).flatten(-3, -2)


def _scaled(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((scale * torch.tensor(table) + 50) // 100).clamp(1, 255).double()


def _colours() -> Tensor:
    """Red, green, blue -> Y, Cb - 128, Cr - 128: Cb is (B - Y) / (2 - 2 w_blue), Cr is
    (R - Y) / (2 - 2 w_red). Source: JFIF 1.02."""
    w = torch.tensor(REC601, dtype=torch.float64)
    red, _, blue = torch.eye(3, dtype=torch.float64)
    return torch.stack([w, (blue - w) / (2 - 2 * w[2]), (red - w) / (2 - 2 * w[0])])
