#!/usr/bin/env bash
# The TV denoisers of scikit-image and pyproximal stop, by default, at images that are worse by
# their own objective than the image they were given.
#
# A step of height 1 between two halves of n/2 pixels each is the textbook case: the minimum of
# |u - f|^2 / 2 + w TV(u) is the step with both halves moved together by 2 w / n. The two need
# hundreds of iterations for that, as what happens at the edge travels by a pixel in each. The
# defaults (eps = 2e-4 of the first objective in denoise_tv_chambolle, 10 iterations in
# pyproximal.TV) end long before, without a warning: the edge is smeared, the rest of the image has
# not moved, and a proximal method that is given this as the prox of TV has another prior. With
# eps=1e-9 and with niter=2000 both come to the minimum.
#
# Seen with scikit-image 0.26.0 and pyproximal 0.13.0, a step of 64 x 64, w = 1: objective 64.0 of
# the input, 62.0 at the minimum, 75.6 (scikit-image) and 82.2 (pyproximal) by default; a pixel far
# from the edge moves by 0 instead of 0.0313. At the default weight 0.1 of scikit-image:
# 6.400 input, 6.380 minimum, 6.477 found.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile \
    scikit-image==0.26.0 pyproximal==0.13.0 pylops==2.8.0 numpy==2.3.5 scipy==1.16.3
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import pyproximal
import skimage
from skimage.restoration import denoise_tv_chambolle

n = 64
step = np.zeros((n, n))
step[:, n // 2 :] = 1


def objective(u, w):
    rows = np.diff(u, axis=0, append=u[-1:])
    columns = np.diff(u, axis=1, append=u[:, -1:])
    return float(0.5 * ((u - step) ** 2).sum() + w * np.hypot(rows, columns).sum())


def scikit(w, **how):
    return denoise_tv_chambolle(step, weight=w, **how)


def proximal(w, **how):
    return pyproximal.TV((n, n), sigma=w, **how).prox(step.ravel(), 1.0).reshape(n, n)


print(f"scikit-image {skimage.__version__}, pyproximal {pyproximal.__version__}")
for w in (0.1, 1.0, 2.0):
    least = np.where(step > 0, 1 - 2 * w / n, 2 * w / n)
    images = {
        "input": step,
        "minimum": least,
        "scikit-image, default": scikit(w),
        "scikit-image, eps=1e-9": scikit(w, eps=1e-9, max_num_iter=20000),
        "pyproximal, default": proximal(w),
        "pyproximal, niter=2000": proximal(w, niter=2000, rtol=1e-12),
    }
    value = {name: objective(u, w) for name, u in images.items()}
    for name, u in images.items():
        print(f"w = {w}: {name:22s} objective {value[name]:8.3f}, far pixel {u[5, 3]:.2g}")
    for name in ("scikit-image, eps=1e-9", "pyproximal, niter=2000"):
        assert abs(value[name] / value["minimum"] - 1) < 1e-3, f"{name} is not at the minimum"
    for name in ("scikit-image, default", "pyproximal, default"):
        if value[name] <= value["input"]:
            sys.exit(f"changed: {name} no longer ends above its input")
print("as described: by default both end above the objective of their input")
PY
