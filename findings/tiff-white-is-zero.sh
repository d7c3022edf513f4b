#!/usr/bin/env bash
# A TIFF whose zero is white comes negated from two readers of five, and only at 8 bits.
#
# PhotometricInterpretation 0, WhiteIsZero, is one of the two grey kinds of the format, natural for
# scanned film. Pillow and OpenCV return 255 - v for 8 bits but v for 16 bits; tifffile, imageio and
# SimpleITK return v for both. None says so. The same film scanned at 8 and at 16 bits comes with
# opposite signs from one reader, and attenuation taken from it has the wrong sign.
#
# Seen with Pillow 13.0.0, OpenCV 5.0.0, tifffile 2026.3.3, imageio 2.38.1, SimpleITK 2.5.7: stored
# 10, 11, 12 are read 245, 244, 243 by Pillow and OpenCV at 8 bits, 10, 11, 12 in all other cases.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile \
    tifffile==2026.3.3 imageio==2.38.1 pillow==13.0.0 \
    opencv-python-headless==5.0.0.93 SimpleITK==2.5.7 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import sys
import tempfile
from pathlib import Path

import cv2
import imageio
import numpy as np
import PIL
import SimpleITK as sitk
import tifffile
from PIL import Image

readers = {
    "tifffile": tifffile.imread,
    "imageio": imageio.v3.imread,
    "SimpleITK": lambda p: sitk.GetArrayFromImage(sitk.ReadImage(str(p))),
    "OpenCV": lambda p: cv2.imread(str(p), cv2.IMREAD_UNCHANGED),
    "Pillow": lambda p: np.asarray(Image.open(p)),
}
print(f"tifffile {tifffile.__version__}, imageio {imageio.__version__}, Pillow {PIL.__version__}")
print(f"OpenCV {cv2.__version__}, SimpleITK {sitk.Version.VersionString()}, numpy {np.__version__}")
turned = set()
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "film.tif"
    for dtype in (np.uint8, np.uint16):
        stored = np.arange(10, 26, dtype=dtype).reshape(4, 4)
        tifffile.imwrite(path, stored, photometric="miniswhite")
        for name, read in readers.items():
            seen = read(path)
            print(f"{stored.dtype.name:6s} {name:9s} {seen.ravel()[:4]}")
            if np.array_equal(seen, np.iinfo(dtype).max - stored):
                turned.add((name, stored.dtype.name))
            else:
                assert np.array_equal(seen, stored), f"{name} reads neither v nor its negative"
if turned != {("OpenCV", "uint8"), ("Pillow", "uint8")}:
    sys.exit(f"changed: the readers that negate are now {sorted(turned)}")
print("as described: Pillow and OpenCV negate 8 bits and not 16, the others neither")
PY
