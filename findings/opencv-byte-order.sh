#!/usr/bin/env bash
# OpenCV takes the bytes of a big-endian array as they lie: every number is another one.
#
# FITS and FreeSurfer's MGH are big-endian on disk; astropy and nibabel give such arrays as they
# are, numpy, scipy and Pillow compute with them, SimpleITK and torch refuse them. OpenCV reads them
# as if in the order of the machine, and says nothing: a float image comes out as zeros (7e-41), but
# 16-bit counts as a plausible image, those below 256 as 256 times as many.
# array.astype(array.dtype.newbyteorder("=")) before is right; so is any arithmetic before, + 0
# say, which turns the bytes: one line of OpenCV is right or wrong by what came before it.
#
# Seen with OpenCV 5.0.0, astropy 8.0.2, nibabel 5.4.2: an image of 100 counts has a mean of 25600
# (int16, FITS and MGH) and 7.2e-41 (float32) in cv2.mean and after cv2.GaussianBlur.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile \
    opencv-python-headless==5.0.0.93 astropy==8.0.2 nibabel==5.4.2 SimpleITK==2.5.7 \
    scipy==1.16.3 pillow==13.0.0 numpy==2.3.5
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys

import astropy
import cv2
import nibabel
import numpy as np
import SimpleITK as sitk
from astropy.io import fits
from PIL import Image
from scipy import ndimage

if sys.byteorder != "little":
    sys.exit("nothing to see on a big-endian machine")
folder = sys.argv[1]
print(f"OpenCV {cv2.__version__}, astropy {astropy.__version__}, nibabel {nibabel.__version__}")


def from_fits(image):
    fits.writeto(f"{folder}/image.fits", image, overwrite=True)
    return fits.getdata(f"{folder}/image.fits")


def from_mgh(image):
    nibabel.MGHImage(image[..., None], np.eye(4)).to_filename(f"{folder}/image.mgz")
    return np.asarray(nibabel.load(f"{folder}/image.mgz").dataobj)[..., 0]


seen = {}
for name, read in (("FITS", from_fits), ("MGH", from_mgh)):
    for kind in ("int16", "float32"):
        image = read(np.full((16, 16), 100, kind))
        blurred = cv2.GaussianBlur(image, (0, 0), 1)
        after = cv2.GaussianBlur(image + image.dtype.type(0), (0, 0), 1)
        seen[name, kind] = float(blurred.mean())
        print(
            f"{name:4s} {image.dtype}: numpy {image.mean():g}, cv2.mean {cv2.mean(image)[0]:.6g}, "
            f"cv2.GaussianBlur {blurred.mean():.6g}, after + 0 {after.mean():g}"
        )
        assert np.isclose(cv2.mean(image)[0], blurred.mean(), rtol=1e-3)
        others = ndimage.gaussian_filter(image, 1), np.asarray(Image.fromarray(image)), after
        assert all(np.allclose(v, 100) for v in others), "scipy, Pillow or numpy: not 100"
        native = image.astype(image.dtype.newbyteorder("="))
        assert np.allclose(cv2.GaussianBlur(native, (0, 0), 1), 100), "turned first: not 100"
        try:
            sitk.GetImageFromArray(image)
        except TypeError:
            continue
        sys.exit("changed: SimpleITK takes a big-endian array")
if any(abs(v - 100) < 1 for v in seen.values()):
    sys.exit("changed: OpenCV sees the order of the bytes, or refuses it")
print("as described: OpenCV reads big-endian arrays in the order of the machine")
PY
