#!/usr/bin/env bash
# astropy's compressed FITS images keep no float32 count or mask, and shift the total of faint ones.
#
# CompImageHDU rounds floats, by default, in steps of a sixteenth of the noise of each row. The
# documentation says lossy; one expects small errors of mean zero. Whole numbers are not on the
# grid: the ones of a mask come back as other numbers, so that mask == 1 is nowhere true, counts are
# no whole numbers any more, and in faint images the errors share a sign, which shifts the flux. Integer dtypes, or compression_type="GZIP_2" with
# quantize_level=0, are exact.
#
# Seen with astropy 8.0.2: a 0/1 mask is read as 0, 0.9836 and 0.9968; at 0.05, 0.3, 2 counts a
# pixel the total is off by -1.4, -0.9, +0.3 %; at 50 counts no whole number is left.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile astropy==8.0.2 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import sys
import tempfile
from pathlib import Path

import astropy
import numpy as np
from astropy.io import fits

rng = np.random.default_rng(0)
print(f"astropy {astropy.__version__}, numpy {np.__version__}")


def read_back(image, path, **options):
    fits.CompImageHDU(image, **options).writeto(path, overwrite=True)
    return fits.getdata(path).astype(float)


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "image.fits"
    mask = (rng.random((256, 256)) < 0.3).astype(np.float32)
    values = np.unique(read_back(mask, path))
    print(f"mask of 0 and 1 as float32: read {values}")
    bias = {}
    for rate in (0.05, 0.3, 2.0, 50.0):
        counts = rng.poisson(rate, (256, 256)).astype(np.float32)
        seen = read_back(counts, path)
        bias[rate] = float(seen.mean() / counts.mean() - 1)
        whole = float((seen == np.round(seen)).mean())
        print(f"{rate:5.2f} counts a pixel: total {bias[rate]:+.2%}, whole numbers {whole:.0%}")
    exact = read_back(counts, path, compression_type="GZIP_2", quantize_level=0)
    assert np.array_equal(exact, counts), "GZIP_2 with quantize_level=0 is no longer exact"
    assert np.array_equal(read_back(counts.astype(np.int32), path), counts), "integers are not kept"
if 1 in values or abs(bias[0.05]) < 0.005:
    sys.exit("changed: small whole numbers come back as they were")
print("as described: no 1 comes back, and faint counts lose light")
PY
