#!/usr/bin/env bash
# scikit-image's bilateral filter of an image below zero is another filter: it blurs the edges.
#
# Its weights depend on differences alone, so that a constant taken off before and put back after
# changes nothing. denoise_bilateral accepts negative values and takes their minimum off inside, but
# the table of its grey-value weights is made for 0 ... max and read as if for min ... max: the
# width is in truth sigma_color * (max - min) / |max|, and nothing is said. Where the maximum is 0,
# as in decibels, it is infinite: a Gaussian blur. CT numbers of -1000 ... 250 get it 5 times too
# wide, and lung beside tissue is lifted; an image far below zero gets it too narrow, and keeps its
# noise. From 0 upwards it is right.
#
# Seen with scikit-image 0.26.0 against OpenCV 5.0.0, which is right at each level: a step of height
# 1, sigma_color 0.1: the pixel beside it is off by 0.000 at 0 ... 1, by 0.376 at -1 ... 0 (0.376 in
# a Gaussian blur); unit noise, sigma_color 2, keeps a std of 0.22 at +10, 0.86 at -40; -1000 HU
# beside 50 HU comes as -806, with 1000 added before and taken off after as -1000.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile \
    scikit-image==0.26.0 opencv-python-headless==5.0.0.93 numpy==2.3.5 scipy==1.16.3
"$folder/venv/bin/python" - <<'PY'
import sys

import cv2
import numpy as np
import skimage
from skimage.restoration import denoise_bilateral

step = np.zeros((41, 40))
step[:, 20:] = 1


def scikit(image, colour):
    return denoise_bilateral(image, win_size=19, sigma_color=colour, sigma_spatial=3, mode="edge")


def opencv(image, colour):
    return cv2.bilateralFilter(image.astype(np.float32), 19, colour, 3).astype(float)


print(f"scikit-image {skimage.__version__}, OpenCV {cv2.__version__}")
off = {}
for level in (0.0, 1.0, -0.9, -1.0):
    for name, smooth in (("scikit-image", scikit), ("OpenCV", opencv)):
        off[name, level] = abs(smooth(step + level, 0.1) - level - step)[20, 19]
        print(f"  step from {level:4.1f}: {name:12s} off by {off[name, level]:.3f}")
blur = abs(scikit(step, 1e6) - step)[20, 19]
print(f"  a Gaussian blur of it: off by {blur:.3f}")

noise = np.random.default_rng(0).standard_normal((64, 64))
std = {}
for level in (10.0, -40.0):
    for name, smooth in (("scikit-image", scikit), ("OpenCV", opencv)):
        std[name, level] = float(smooth(noise + level, 2.0).std())
        print(f"  unit noise at {level:5.1f}: {name:12s} leaves a std of {std[name, level]:.3f}")

chest = np.where(step > 0, 50.0, -1000.0)
chest[:, 38:] = 250
lung = {add: float((scikit(chest + add, 150.0) - add)[20, 19]) for add in (0, 1000)}
print(f"  -1000 HU beside 50 HU: {lung[0]:.0f}, and {lung[1000]:.0f} by way of +1000")

assert max(off["OpenCV", level] for level in (0.0, 1.0, -0.9, -1.0)) < 1e-3, "OpenCV is off"
assert abs(std["OpenCV", 10.0] - std["OpenCV", -40.0]) < 0.01, "OpenCV depends on the level"
assert max(off["scikit-image", 0.0], off["scikit-image", 1.0]) < 1e-3, "off above zero as well"
assert abs(lung[1000] + 1000) < 1, "off above zero as well"
same = off["scikit-image", -1.0] < 0.01 or std["scikit-image", -40.0] < 0.3 or lung[0] < -990
if same or abs(off["scikit-image", -1.0] - blur) > 1e-3:
    print("changed: the filter of scikit-image no longer depends on the level in this way")
    sys.exit(1)
print("as found: below zero the width of the grey-value weights is another one")
PY
