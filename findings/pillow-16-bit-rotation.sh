#!/usr/bin/env bash
# Pillow interpolates between the two bytes of a 16-bit number: 1000 moved by half a pixel is 117.
#
# A 16-bit grey PNG or TIFF (radiograph, microscope, phase map) opens in mode "I;16". rotate and
# transform with BILINEAR or BICUBIC take each number for a pair of 8-bit pixels and mix the two: a
# picture of about the right structure and never above 255 comes out. The dtype stays uint16 and
# nothing is said. resize of the same image is right with every filter, NEAREST and multiples of 90
# degrees are right everywhere, so that a test by these passes. Converted to "I" or "F" before,
# every transform is right.
#
# Seen with Pillow 13.0.0: flat images of 200, 256, 1000, 4095 moved by half a pixel come as 100, 0,
# 117, 135, the mean of low and high byte; turned by 10 degrees (BILINEAR) the middle is 181, 0,
# 210, 232.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pillow==13.0.0 numpy==2.3.5
FOLDER="$folder" "$folder/venv/bin/python" - <<'PY'
import os
import sys

import numpy as np
import PIL
from PIL import Image


def opened(value):
    path = os.path.join(os.environ["FOLDER"], "flat.png")
    Image.fromarray(np.full((64, 64), value, np.uint16)).save(path)
    return Image.open(path)


def middle(image):
    return float(np.asarray(image)[32, 32])


affine, half = Image.Transform.AFFINE, (1, 0, 0.5, 0, 1, 0)
moves = {
    "turned by 10 degrees": lambda im, how: im.rotate(10, how),
    "moved by half a pixel": lambda im, how: im.transform(im.size, affine, half, how),
    "resized to 50 x 50": lambda im, how: im.resize((50, 50), how),
}
print(f"Pillow {PIL.__version__}: the middle of flat images after a move")
seen = {}
for value in (200, 256, 1000, 4095):
    image = opened(value)
    assert image.mode == "I;16", image.mode
    for name, move in moves.items():
        for how in (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
            raw, safe = middle(move(image, how)), middle(move(image.convert("F"), how))
            seen[value, name, how.name] = raw
            print(f"  {value:5d} {name:22s} {how.name:9s} I;16: {raw:6.0f}   as F: {safe:8.1f}")
            assert abs(safe - value) < 0.01 * value, "the float transform is wrong as well"
            if how.name == "NEAREST" or name.startswith("resized"):
                assert raw == value, "nearest or resize is wrong as well"
wrong = {k: v for k, v in seen.items() if v != k[0]}
print(f"{len(wrong)} of {len(seen)} are not the number that was there")
halves = {k[0]: v for k, v in wrong.items() if k[1:] == ("moved by half a pixel", "BILINEAR")}
if len(wrong) != 16 or any(v != (k % 256 + k // 256) // 2 for k, v in halves.items()):
    print("changed: Pillow transforms 16-bit images in another way now")
    sys.exit(1)
print("as found: every bilinear or bicubic transform mixes the two bytes of the numbers")
PY
