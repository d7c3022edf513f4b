#!/usr/bin/env bash
# The noise filters of SimpleITK draw another noise from the same seed for each number of threads.
#
# A part of the image, that of the first rows, stays as it is, and the others are drawn anew, as if
# each thread had a slab and a stream of its own: a look at the first corner finds nothing changed.
# A seeded measurement is therefore another one where the number of threads is another. Setting that
# number beside the seed helps.
#
# Seen with SimpleITK 2.5.7: with 2 threads half of a 64 x 64 image is as with 1 thread, with 4 a
# quarter; AdditiveGaussianNoise, ShotNoise and SpeckleNoise alike.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile SimpleITK==2.5.7 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import SimpleITK as sitk

flat = sitk.Image([64, 64], sitk.sitkFloat32) + 100.0
filters = {
    "AdditiveGaussianNoise": lambda: sitk.AdditiveGaussianNoise(flat, 1.0, 0.0, 7),
    "ShotNoise": lambda: sitk.ShotNoise(flat, 1.0, 7),
    "SpeckleNoise": lambda: sitk.SpeckleNoise(flat, 0.1, 7),
}
print(f"SimpleITK {sitk.Version.VersionString()}")
same, shares = [], []
for name, draw in filters.items():
    drawn = {}
    for threads in (1, 1, 2, 4):
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        image = sitk.GetArrayFromImage(draw())
        if threads == 1 and 1 in drawn:
            same.append(np.array_equal(image, drawn[1]))
        drawn[threads] = image
        assert np.array_equal(image[:16], drawn[1][:16]), "the first rows no longer stay"
    share = [float((drawn[n] == drawn[1]).mean()) for n in (2, 4)]
    print(f"{name}, seed 7, pixels as with 1 thread: 2 threads {share[0]:.2f}, 4 {share[1]:.2f}")
    shares += share
assert all(same), "the same seed and number of threads no longer give the same noise"
if min(shares) > 0.99:
    sys.exit("changed: the noise does not depend on the number of threads")
print("as described: one seed, another noise for each number of threads")
PY
