#!/usr/bin/env bash
# Three libraries, three YCbCr: PSNR on Y, the habit in super-resolution, differs by 1.32 dB.
#
# scikit-image's rgb2ycbcr gives floats in the studio range, Y 16 ... 235 from RGB in [0, 1].
# OpenCV and Pillow give the full range. OpenCV puts Cr before Cb. With 255 as span,
# which 8-bit values suggest, the Y of scikit-image scores 20 log10(255 / 219) dB better.
#
# Seen with scikit-image 0.26.0, OpenCV 5.0.0, Pillow 13.0.0: Y of white is 235, 255, 255; one pair
# of images has a PSNR of 30.85 dB on the Y of scikit-image and 29.53 dB on that of OpenCV.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile \
    scikit-image==0.26.0 opencv-python-headless==5.0.0.93 pillow==13.0.0 \
    numpy==2.3.5 scipy==1.16.3
"$folder/venv/bin/python" - <<'PY'
import sys

import cv2
import numpy as np
import PIL
import skimage
from PIL import Image
from skimage.color import rgb2ycbcr


def psnr(a, b, span):
    return float(10 * np.log10(span**2 / np.mean((a - b) ** 2)))


rng = np.random.default_rng(0)
x = rng.uniform(0.2, 0.8, (128, 128, 3))
y = x + 0.05 * rng.standard_normal(x.shape)
opencv, scikit = (
    [read(v.astype(np.float32))[..., 0] for v in (x, y)]
    for read in (lambda v: cv2.cvtColor(v, cv2.COLOR_RGB2YCrCb), rgb2ycbcr)
)
print(f"scikit-image {skimage.__version__}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}")
white, red = np.ones((1, 1, 3), np.float32), np.float32([[[1, 0, 0]]])
for name, v in (("white", white), ("red", red)):
    pillow = np.asarray(Image.fromarray((255 * v).astype(np.uint8)).convert("YCbCr")).ravel()
    cv = 255 * cv2.cvtColor(v, cv2.COLOR_RGB2YCrCb).ravel()
    scikit_image = rgb2ycbcr(v).ravel().round(1)
    print(f"{name:5s} Pillow {pillow}, OpenCV * 255 {cv.round(1)}, scikit-image {scikit_image}")
values = psnr(*opencv, 1.0), psnr(*scikit, 255.0), psnr(*scikit, 219.0)
print(f"PSNR of Y: OpenCV, span 1: {values[0]:.2f} dB; ", end="")
print(f"scikit-image, span 255: {values[1]:.2f} dB, span 219: {values[2]:.2f} dB")
assert abs(values[0] - values[2]) < 0.05, "the two luminances differ by more than their range"
if abs(values[1] - values[0] - 20 * np.log10(255 / 219)) > 0.05:
    sys.exit("changed: the luminance of scikit-image has another range")
print("as described: 1.32 dB come from the range alone")
PY
