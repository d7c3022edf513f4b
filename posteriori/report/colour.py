"""Arrays to PNG data URIs: pictures as they are, maps through a perceptually even colour scale."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# Nine anchors of a scale whose lightness rises evenly from near-black to pale yellow.
ANCHORS = np.array(
    [(4, 4, 18), (38, 12, 74), (84, 15, 109), (130, 32, 108), (176, 50, 90), (216, 74, 61), (243, 114, 27), (251, 168, 25), (249, 251, 146)]
)


def limits(range: Sequence[float], complex: bool) -> tuple[float, float]:
    """Black and white of images in a range: of complex ones, whose magnitudes are shown, 0 and the end that is farther from it."""
    low, high = range
    return (0.0, max(abs(low), abs(high))) if complex else (low, high)


def picture(image: Tensor, low: float, high: float) -> str:
    """An image (C, H, W), C of 1 or 3, or (H, W), as a data URI; values outside [low, high] are cut off for display only."""
    planes = (image if image.ndim == 3 else image[None]).detach().cpu().float()
    pixels = ((planes - low) / (high - low)).clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return _uri(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def heat(image: Tensor, low: float, high: float) -> str:
    """A map (H, W) through the colour scale as a data URI."""
    position = ((image.detach().cpu().double() - low) / max(high - low, 1e-300)).clamp(0, 1).numpy() * (len(ANCHORS) - 1)
    grid = np.arange(len(ANCHORS))
    pixels = np.stack([np.interp(position, grid, ANCHORS[:, c]) for c in range(3)], axis=-1)
    return _uri(Image.fromarray(pixels.round().astype(np.uint8)))


def gradient() -> str:
    """The colour scale as a CSS gradient, low at the left."""
    return "linear-gradient(to right," + ",".join(f"rgb({r},{g},{b})" for r, g, b in ANCHORS) + ")"


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
