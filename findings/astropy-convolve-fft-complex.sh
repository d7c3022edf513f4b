#!/usr/bin/env bash
# astropy's convolve_fft of a complex image, or with a complex kernel, returns the real part alone.
#
# It works in complex numbers inside (complex_dtype is one of its arguments) and cuts the result to
# float64 without a word: the blur of a complex image loses its imaginary part, and propagation of a
# wave by a complex kernel its phase, so that an intensity is too small by what the imaginary part
# holds. astropy's convolve drops it as well, with a ComplexWarning. scipy.ndimage, scipy.signal
# and the two parts taken apart are right.
#
# Seen with astropy 8.0.2 and scipy 1.16.3: a flat 1 + 2j comes as 1.0 of dtype float64 after a
# Gaussian blur, with warnings turned into errors, and as 1 + 2j from scipy.ndimage; a wave of ones
# under a kernel of sum 0.6 + 0.8j comes as 0.6, of intensity 0.36 for 1.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile astropy==8.0.2 scipy==1.16.3 numpy==2.3.5
"$folder/venv/bin/python" -W error - <<'PY'
import sys

import astropy
import numpy as np
import scipy
from astropy.convolution import Gaussian2DKernel, convolve, convolve_fft
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

print(f"astropy {astropy.__version__}, scipy {scipy.__version__}: the middle pixel, 33 x 33")
flat = np.full((33, 33), 1 + 2j)
wave = np.ones((33, 33))
kernel = np.zeros((3, 3), complex)
kernel[1] = 0.2, 0.6 + 0.8j, -0.2
blurred = convolve_fft(flat, Gaussian2DKernel(1), boundary="wrap")
moved = convolve_fft(wave, kernel, boundary="wrap", normalize_kernel=False, nan_treatment="fill")
right = gaussian_filter(flat, 1, mode="wrap"), fftconvolve(wave, kernel, mode="same")
for name, image in (
    ("1 + 2j blurred, convolve_fft", blurred),
    ("1 + 2j blurred, scipy.ndimage", right[0]),
    ("ones, complex kernel, convolve_fft", moved),
    ("ones, complex kernel, fftconvolve", right[1]),
):
    value = image[16, 16]
    print(f"  {name:35s} {value:.3f} {image.dtype}, intensity {abs(value) ** 2:.3f}")
assert abs(right[0][16, 16] - (1 + 2j)) < 1e-6, "scipy's blur is off"
assert abs(right[1][16, 16] - (0.6 + 0.8j)) < 1e-6, "scipy's convolution is off"
try:
    convolve(flat, Gaussian2DKernel(1))
except np.exceptions.ComplexWarning as warning:
    print(f"  convolve warns: {warning}")
else:
    sys.exit("changed: convolve does not warn")
if abs(blurred[16, 16] - 1) > 1e-6 or abs(moved[16, 16] - 0.6) > 1e-6:
    print("changed: convolve_fft keeps the imaginary part")
    sys.exit(1)
print("as found: convolve_fft drops the imaginary part in silence")
PY
