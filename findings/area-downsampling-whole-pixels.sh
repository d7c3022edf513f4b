#!/usr/bin/env bash
# torch's interpolate(mode="area") and Pillow's BOX weight whole pixels, not areas.
#
# For a factor that is no integer torch averages each output over every input pixel it touches, with
# equal weights (its adaptive average pooling: windows overlap), and Pillow over the pixels whose
# centre it holds. The light of a point source then depends on the pixel it lies in, the images of
# the three differ, and only OpenCV's is the integral over the larger pixel. At a
# factor of 2 all three agree.
#
# Seen with torch 2.13.0, Pillow 13.0.0, OpenCV 5.0.0, from 256 to 200 pixels: a point keeps 0.43 to
# 1.28 of its light in torch, 0.64 to 1.28 in Pillow, 1.00 in OpenCV (one axis; squared for two).
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile \
    torch==2.13.0 opencv-python-headless==5.0.0.93 pillow==13.0.0 \
    numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import sys

import cv2
import numpy as np
import PIL
import torch
from PIL import Image

n, m = 256, 200
points = np.eye(n, dtype=np.float32)


def resized(m):
    torched = torch.nn.functional.interpolate(torch.from_numpy(points)[:, None], size=m, mode="area")
    return {
        "OpenCV INTER_AREA": [cv2.resize(p[None], (m, 1), interpolation=cv2.INTER_AREA) for p in points],
        "torch mode='area'": torched.numpy(),
        "Pillow BOX": [np.asarray(Image.fromarray(p[None]).resize((m, 1), Image.BOX)) for p in points],
    }


print(f"torch {torch.__version__}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}")
print(f"{n} to {m} pixels: light of one point, 1 if the area is kept")
light = {k: np.asarray(v).reshape(n, m).sum(1) * n / m for k, v in resized(m).items()}
halves = [np.asarray(v).reshape(n, n // 2) for v in resized(n // 2).values()]
assert all(np.allclose(h, halves[0], atol=1e-6) for h in halves), "the three differ at a factor of 2"
for name, v in light.items():
    print(f"  {name:18s} {v.min():.3f} to {v.max():.3f} by its pixel, mean {v.mean():.3f}")
assert np.allclose(light["OpenCV INTER_AREA"], 1, atol=1e-4), "OpenCV no longer keeps the light"
if np.ptp(light["torch mode='area'"]) < 0.1 or np.ptp(light["Pillow BOX"]) < 0.1:
    sys.exit("changed: the area is weighted by its parts")
print("as described: whole pixels only; the light of a point depends on where it lies")
PY
