#!/usr/bin/env bash
# scikit-image's random_noise(mode="poisson") counts grey values and takes them for photons.
#
# It counts the different values in the image, rounds that up to a power of two and takes it for the
# photons at white. A float image whose pixels all differ gets as many photons as it has pixels: the
# same scene at twice the size has half the noise. A flat patch gets one photon. The level cannot be
# given, and is not returned.
#
# Seen with scikit-image 0.26.0: images in 0.4 ... 0.6 as float: noise std 0.0110, 0.0028, 0.0007 at
# 64, 256, 1024 pixels a side; the same rounded to 8 bits 0.088 at every size. A flat image of 0.5:
# 0.71 alone, 0.0019 with a texture beside it.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scikit-image==0.26.0 numpy==2.3.5 scipy==1.16.3
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import skimage
from skimage.util import random_noise

rng = np.random.default_rng(0)
print(f"scikit-image {skimage.__version__}, numpy {np.__version__}")
photons = {}
for n in (64, 256, 1024):
    image = rng.uniform(0.4, 0.6, (n, n))
    for name, x in (("float", image), ("8 bit", np.round(image * 255) / 255)):
        noise = random_noise(x, mode="poisson", rng=1) - x
        photons[name, n] = float(x.mean() / noise.var())
        level = f"photons at white {photons[name, n]:.0f}"
        print(f"{name} {n:4d}^2: noise std {noise.std():.5f}, {level}")
flat = np.full((256, 256), 0.5)
noise = random_noise(flat, mode="poisson", rng=1, clip=False) - flat
print(f"flat 256^2: noise std {noise.std():.3f}, photons at white {0.5 / noise.var():.2f}")
pair = np.concatenate([flat, image[:256, :256]])
part = random_noise(pair, mode="poisson", rng=1)[:256] - flat
print(f"the flat half beside a texture: noise std {part.std():.5f}")
if photons["float", 1024] < 100 * photons["float", 64] or noise.std() < 100 * part.std():
    sys.exit("changed: the photon level no longer follows the number of grey values")
print("as described: the photon level is the number of different grey values in the image")
PY
