#!/usr/bin/env bash
# scipy.io.loadmat reads a MATLAB double as uint8, int16 or float64, by the values it holds.
#
# MATLAB stores a double array whose values are all integers in a small integer type. loadmat keeps
# the type of the storage, so that one variable has another dtype in each file: small counts come
# as uint8, with a -1 among them as int16, with one fraction as float64. Arithmetic on uint8 wraps
# without a word: a background taken off, a mask minus one, a gain. mat_dtype=True is right and
# documented. whosmat calls the same array "double"; files of version 7.3 (HDF5) hold float64.
#
# Seen with scipy 1.16.3 on files written by MATLAB, which come with scipy: [1 2 3] is uint8,
# 100 * x is [100 200 44], x - 3 is [254 255 0].
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scipy==1.16.3 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import sys
from pathlib import Path

import numpy as np
import scipy
from scipy import io

folder = Path(io.__file__).parent / "matlab" / "tests" / "data"
print(f"scipy {scipy.__version__}, numpy {np.__version__}")
seen = {}
for name in ("testmatrix", "testminus", "testdouble"):
    path = folder / f"{name}_7.4_GLNX86.mat"
    (_, _, declared), *_ = io.whosmat(path)
    value, kept = (io.loadmat(path, mat_dtype=flag)[name] for flag in (False, True))
    seen[name] = value.dtype
    print(f"{name}: MATLAB says {declared}, read {value.dtype}, with mat_dtype=True {kept.dtype}")
    assert declared == "double" and kept.dtype == np.float64
matrix = io.loadmat(folder / "testmatrix_7.4_GLNX86.mat")["testmatrix"]
print(f"x {matrix.ravel()}  100 * x {(100 * matrix).ravel()}  x - 3 {(matrix - 3).ravel()}")
if seen["testmatrix"] != np.uint8 or seen["testdouble"] != np.float64:
    sys.exit("changed: a double is read as a double")
print("as described: the dtype of a double depends on its values, and arithmetic wraps")
PY
