#!/usr/bin/env bash
# dipy's non-local means averages squares also for Gaussian noise: -100 comes back as +100.
#
# nlmeans takes rician=False for "assumes Gaussian noise model", and says that values are cut at
# zero for Rician noise. But squares are averaged and the root is taken in both cases. A flat image
# of mean m in noise sigma comes out with a mean of about sqrt(m^2 + sigma^2), whatever its sign:
# the air of a CT image in HU, the real and the imaginary part of a complex image, a difference or a
# residual come back positive, and faint signal too high by up to sigma. It is right only where the
# image is positive and far above the noise.
#
# Seen with dipy 1.12.1, flat images in unit noise, rician=False: means -100, 0, 2, 10 come out as
# 100.01, 0.98, 2.23, 10.04 (method="classic") and 100.00, 0.81, 2.20, 10.05 (the default).
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile dipy==1.12.1 numpy==2.3.5 scipy==1.16.3
"$folder/venv/bin/python" - <<'PY'
import sys

import dipy
import numpy as np
from dipy.denoise.nlmeans import nlmeans

print(f"dipy {dipy.__version__}, numpy {np.__version__}: flat images in unit noise, rician=False")
found = {}
for mean in (-100, 0, 2, 10, 100):
    noisy = mean + np.random.default_rng(0).standard_normal((20, 20, 20))
    for method in ("classic", "blockwise"):
        clean = nlmeans(noisy, sigma=1.0, rician=False, method=method, num_threads=1)
        found[mean, method] = float(clean.mean())
        print(
            f"mean before {noisy.mean():8.3f}, after, {method:9s} {clean.mean():8.3f} "
            f"(lowest {clean.min():.3f}), sqrt(m^2 + 1) {np.hypot(mean, 1):8.3f}"
        )
assert abs(found[100, "classic"] - 100) < 0.1, "bright images are off as well"
if found[-100, "classic"] < 0 or found[-100, "blockwise"] < 0 or found[0, "classic"] < 0.5:
    sys.exit("changed: under Gaussian noise the values are averaged, not their squares")
print("as described: the sign is lost, and the mean is the root of that of the squares")
PY
