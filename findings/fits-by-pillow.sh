#!/usr/bin/env bash
# A FITS image opened by Pillow, imageio or scikit-image has other numbers than by astropy.
#
# imageio and scikit-image hand .fits to Pillow, astropy installed or not. Pillow leaves out BZERO,
# BSCALE and the sign of 16-bit integers: unsigned counts, which FITS stores with BZERO = 32768, are
# off by 32768, a -5 is 65531, scaled integers come unscaled. Its first row is astropy's last. Of a
# cube it gives the first plane, and of a compressed image, which is a table in the file, the bytes
# of that table. Nothing is said. Floats and int32 have the right values.
#
# Seen with Pillow 13.0.0, imageio 2.38.1, scikit-image 0.26.0, astropy 8.0.2: uint16 1, 2, 3, 40000
# come as 32769, 32770, 32771, 7232; int16 -5 as 65531; 0.5, 1, 2, 100 in steps of 0.01 from 10 as
# 64586, 64636, 64736, 9000; a compressed 2 x 2 image as 2 x 8 other numbers.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile \
    pillow==13.0.0 imageio==2.38.1 scikit-image==0.26.0 astropy==8.0.2 numpy==2.3.5 scipy==1.16.3
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys

import astropy
import imageio
import numpy as np
import PIL
import skimage
from astropy.io import fits
from PIL import Image
from skimage import io

path = f"{sys.argv[1]}/image.fits"
counts = np.array([[1, 2], [3, 40000]])
scaled = fits.PrimaryHDU(np.array([[0.5, 1.0], [2.0, 100.0]]))
scaled.scale("int16", bscale=0.01, bzero=10)
images = {
    "float32": (fits.PrimaryHDU(counts.astype(np.float32)), [1, 2, 3, 40000]),
    "int32": (fits.PrimaryHDU(counts.astype(np.int32)), [1, 2, 3, 40000]),
    "uint16": (fits.PrimaryHDU(counts.astype(np.uint16)), [32769, 32770, 32771, 7232]),
    "int16": (fits.PrimaryHDU(np.array([[-5, 2], [3, 4]], np.int16)), [65531, 2, 3, 4]),
    "scaled int16": (scaled, [64586, 64636, 64736, 9000]),
}
readers = {
    "Pillow": lambda p: np.asarray(Image.open(p)),
    "imageio": imageio.v3.imread,
    "scikit-image": io.imread,
}
print(f"Pillow {PIL.__version__}, imageio {imageio.__version__}, scikit-image {skimage.__version__}")
print(f"astropy {astropy.__version__}")
for name, (unit, wrong) in images.items():
    unit.writeto(path, overwrite=True)
    true = fits.getdata(path)
    for reader, read in readers.items():
        found = read(path)
        print(f"{name:12s} astropy {true.ravel().tolist()}  {reader} {found.tolist()}")
        if found[::-1].ravel().tolist() != wrong:
            sys.exit(f"changed: {reader} reads {name} in another way, or other rows first")
for name, unit in (
    ("cube", fits.PrimaryHDU(np.arange(8, dtype=np.float32).reshape(2, 2, 2))),
    ("compressed", fits.CompImageHDU(counts.astype(np.int32))),
):
    unit.writeto(path, overwrite=True)
    true, found = fits.getdata(path), readers["Pillow"](path)
    print(f"{name:12s} astropy {true.tolist()}  Pillow {found.tolist()}")
    if found.shape == true.shape:
        sys.exit(f"changed: Pillow reads the whole of a {name} image")
print("as described: Pillow reads the stored integers of FITS as unsigned, unscaled, last row first")
PY
