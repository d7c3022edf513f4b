#!/usr/bin/env bash
# A blur of a photon-count image loses its light where the counts are integers, in two ways.
#
# numpy's Poisson draws are int64. scipy.ndimage gives back the dtype of its input and cuts the
# fractions off, once for each axis: half a count a pixel and axis is lost. scikit-image takes
# integers for fractions of the largest one and divides by it: 2^63 - 1 for int64, 65535 for uint16.
# Both are documented; neither warns. Counts as floats, or output=float in scipy, are right.
#
# Seen with scipy 1.16.3 and scikit-image 0.26.0: mean 1.2031 before; after a Gaussian blur of 2
# pixels 0.059 (scipy, int64), 1.3e-19 (scikit-image, int64), 1.8e-05 (scikit-image, uint16),
# 1.203 (floats). At 100 counts a pixel scipy loses 1.0 count a pixel.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scipy==1.16.3 scikit-image==0.26.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import scipy
import skimage
from scipy import ndimage
from skimage.filters import gaussian

counts = np.random.default_rng(0).poisson(1.2, (256, 256))
results = {
    "scipy, float64": ndimage.gaussian_filter(counts.astype(float), 2).mean(),
    "scipy, int64": ndimage.gaussian_filter(counts, 2).mean(),
    "scipy, int64, output=float": ndimage.gaussian_filter(counts, 2, output=float).mean(),
    "scipy uniform_filter, int64": ndimage.uniform_filter(counts, 5).mean(),
    "scikit-image, float64": gaussian(counts.astype(float), 2).mean(),
    "scikit-image, int64": gaussian(counts, 2).mean(),
    "scikit-image, uint16": gaussian(counts.astype(np.uint16), 2).mean(),
}
print(f"scipy {scipy.__version__}, scikit-image {skimage.__version__}, numpy {np.__version__}")
print(f"counts of dtype {counts.dtype}, mean {counts.mean():.4f}; mean after a blur:")
for name, mean in results.items():
    print(f"  {name:28s} {mean:.4g}")
bright = np.random.default_rng(1).poisson(100, (256, 256))
loss = bright.mean() - ndimage.gaussian_filter(bright, 2).mean()
print(f"at 100 counts per pixel scipy loses {loss:.3f} counts per pixel")
assert np.isclose(results["scipy, int64, output=float"], results["scipy, float64"])
if results["scipy, int64"] > 0.5 or results["scikit-image, int64"] > 1e-6:
    sys.exit("changed: integer counts are blurred as numbers")
print("as described: integer counts lose their flux")
PY
