"""Arrays to PNG pictures in memory: images as they are, maps through a perceptually even colour
scale, for pages and notebooks."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import avg_pool2d

# Nine anchors of a scale whose lightness rises evenly from near-black to pale yellow.
ANCHORS = np.array(
    [
        (4, 4, 18),
        (38, 12, 74),
        (84, 15, 109),
        (130, 32, 108),
        (176, 50, 90),
        (216, 74, 61),
        (243, 114, 27),
        (251, 168, 25),
        (249, 251, 146),
    ]
)
# What holds no number: no colour of the scale, and no grey that a picture of such numbers would
# need.
EMPTY_COLOUR = (176, 196, 222)
INK, PAPER = (27, 31, 39), (255, 255, 255)


def picture_limits(range: Sequence[float], complex: bool) -> tuple[float, float]:
    """Black and white of images in a range: of complex ones, whose magnitudes are shown, 0 and the
    end that is farther from it."""
    low, high = range
    return (0.0, max(abs(low), abs(high))) if complex else (low, high)


def image(x: Tensor, low: float, high: float) -> Image.Image:
    """An image (C, H, W), C of 1 or 3, or (H, W); values outside [low, high] are cut off for
    display, NaN is shown in a light blue."""
    planes = (x if x.ndim == 3 else x[None]).detach().cpu().float()
    shares = ((planes - low) / ((high - low) or 1.0)).nan_to_num(0).clamp(0, 1)
    pixels = shares.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    nothing = planes.isnan().any(0).numpy()
    if not nothing.any():
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return Image.fromarray(np.where(nothing[..., None], np.array(EMPTY_COLOUR, np.uint8), pixels))


def heat(x: Tensor, low: float, high: float) -> Image.Image:
    """A map (H, W) through the colour scale; NaN is shown in a light blue."""
    values = x.detach().cpu().double()
    position = ((values - low) / max(high - low, 1e-300)).nan_to_num(0).clamp(0, 1).numpy() * (
        len(ANCHORS) - 1
    )
    grid = np.arange(len(ANCHORS))
    pixels = np.stack([np.interp(position, grid, ANCHORS[:, c]) for c in range(3)], axis=-1).round()
    return Image.fromarray(
        np.where(values.isnan().numpy()[..., None], EMPTY_COLOUR, pixels).astype(np.uint8)
    )


def barred(x: Tensor, low: float, high: float, texts: tuple[str, str]) -> bytes:
    """A PNG file of a map with its colour scale below, and what its two ends mean.

    Pixels stand where they stand in x, each enlarged to a square where x is under 200 pixels wide.
    """
    shown = heat(x, low, high)
    times = max(1, -(-200 // shown.width))
    shown = shown.resize((shown.width * times, shown.height * times), Image.Resampling.NEAREST)
    canvas = Image.new("RGB", (shown.width, shown.height + 36), PAPER)
    canvas.paste(shown, (0, 0))
    canvas.paste(
        heat(torch.linspace(0, 1, shown.width).expand(12, -1), 0, 1), (0, shown.height + 6)
    )
    pen, (left, right) = ImageDraw.Draw(canvas), texts
    pen.text((2, shown.height + 20), left, fill=INK)
    pen.text((shown.width - 2 - pen.textlength(right), shown.height + 20), right, fill=INK)
    return encoded(canvas)


def gradient() -> str:
    """The colour scale as a CSS gradient, low at the left."""
    return "linear-gradient(to right," + ",".join(f"rgb({r},{g},{b})" for r, g, b in ANCHORS) + ")"


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def uri(picture: Image.Image) -> str:
    """A picture as a data URI, which needs no file beside the page."""
    return "data:image/png;base64," + base64.b64encode(encoded(picture)).decode()


def pictured(x: Tensor) -> Tensor | None:
    """x as real planes (C, H, W), C of 1 or 3, where it is a picture; None where it is not.

    (H, W), (1, H, W), (3, H, W); the magnitude of complex ones, and of two channels, which are real
    and imaginary part.
    """
    planes = x.abs() if x.is_complex() else x
    planes = planes[None] if planes.ndim == 2 else planes
    if planes.ndim == 3 and len(planes) == 2:
        planes = planes.square().sum(0, keepdim=True).sqrt()
    return (
        planes if planes.ndim == 3 and len(planes) in (1, 3) and min(planes.shape[1:]) > 1 else None
    )


def channel_rms(x: Tensor) -> Tensor:
    """(C, H, W) or (H, W) to (H, W): root mean square over channels."""
    return x.abs().square().mean(0).sqrt() if x.ndim == 3 else x.abs()


def top(x: Tensor, share: float = 0.995) -> float:
    """The value that this share of the numbers of x do not pass, without those that are NaN."""
    values = x.detach().flatten().double().cpu()
    values = values[~values.isnan()]
    return float(np.quantile(values.numpy(), share)) if len(values) else 0.0


def strip(entries: Sequence[tuple[str, Tensor, tuple[float, float], bool]], side: int = 128) -> str:
    """Pictures in a row as HTML: (caption, planes or map, (low, high), whether through the colour
    scale) each.

    Pictures of more than ``side`` pixels are averaged down to it, smaller ones enlarged as they
    are: a row stays small in any notebook.
    """
    cells = []
    for caption, x, (low, high), coloured in entries:
        planes = x if x.ndim == 3 else x[None]
        times = -(-max(planes.shape[-2:]) // side)
        if times > 1:
            planes = avg_pool2d(
                planes[None].float(), times, ceil_mode=True, count_include_pad=False
            )[0]
        source = uri(heat(planes[0], low, high) if coloured else image(planes, low, high))
        cells.append(
            '<div style="display:inline-block;margin:0 6px 6px 0;font-size:12px;'
            f'vertical-align:top"><img src="{source}" '
            f'style="width:{side}px;image-rendering:pixelated;display:block" '
            f'alt="{html.escape(caption)}">{html.escape(caption)}</div>'
        )
    return "<div>" + "".join(cells) + "</div>"


def glimpse(samples: Tensor, mean: Tensor, std: Tensor, stated: Sequence[float] | None) -> str:
    """Mean, standard deviation and three samples as a ``strip``; empty where they are no pictures.

    stated: the values of black and white; None for what the samples span (magnitudes from 0).
    """
    planes = pictured(mean)
    shown = [one for row in samples[:3] if (one := pictured(row)) is not None]
    if planes is None or not shown:
        return ""
    low, high = stated or (min(0.0, float(planes.min())), top(torch.stack(shown), 0.999))
    rows = [("mean", planes, (low, high), False)]
    if len(samples) > 1:
        end = top(channel_rms(std))
        rows.append((f"std, 0 to {end:.2g}", channel_rms(std), (0.0, end), True))
    return strip(
        [*rows, *((f"sample {k}", one, (low, high), False) for k, one in enumerate(shown))]
    )
