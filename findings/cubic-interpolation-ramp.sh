#!/usr/bin/env bash
# Bicubic interpolation of torch, OpenCV and Pillow bends a straight ramp, and its slope is wrong.
#
# A cubic kernel gives back a straight line only if its parameter a is -0.5. torch (grid_sample,
# interpolate) and OpenCV take -0.75; Pillow takes -0.5 in resize, as torch does with antialias=True,
# and -1 in transform. A ramp moved by s pixels comes moved by
# s - (2 a + 1) s (1 - s) (1 - 2 s). That is right at 0, 1/2 and 1, so that a test by whole or half
# pixels passes; its derivative, by which a motion or a registration is fitted, is 1.5 times the
# true one at whole pixels and 0.75 at half ones. Splines of order 3 (scipy) and linear
# interpolation are right.
#
# Seen with torch 2.13.0, OpenCV 5.0.0, Pillow 13.0.0, scipy 1.16.3: a ramp moved by 0.1 pixel comes
# moved by 0.136 (torch, OpenCV), 0.172 (Pillow), 0.100 (scipy); d(moved)/ds by autograd is 1.5 at
# s = 0; enlarged twice, steps of 0.5 come as 0.594 and 0.406 (torch, OpenCV), 0.5 (Pillow).
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile \
    torch==2.13.0 opencv-python-headless==5.0.0.93 pillow==13.0.0 \
    numpy==2.3.5 scipy==1.16.3
"$folder/venv/bin/python" - <<'PY'
import sys

import cv2
import numpy as np
import PIL
import scipy
import torch
from PIL import Image
from scipy import ndimage
from torch.nn.functional import grid_sample, interpolate

n = 16
ramp = np.tile(np.arange(n, dtype=np.float32), (n, 1))
image = torch.from_numpy(ramp).double()[None, None]
rows, columns = torch.meshgrid(*[torch.arange(n).double()] * 2, indexing="ij")


def torch_moved(s, mode="bicubic"):
    grid = 2 * torch.stack([columns - s, rows], -1)[None] / (n - 1) - 1
    return 8 - grid_sample(image, grid, mode=mode, align_corners=True)[0, 0, 8, 8]


def opencv(s):
    return 8 - cv2.warpAffine(ramp, np.float32([[1, 0, s], [0, 1, 0]]), (n, n), flags=cv2.INTER_CUBIC)[8, 8]


def pillow(s):
    back = (1, 0, -s, 0, 1, 0)
    picture = Image.fromarray(ramp).transform((n, n), Image.AFFINE, back, Image.BICUBIC)
    return 8 - np.asarray(picture)[8, 8]


def line(s, a):
    return s - (2 * a + 1) * s * (1 - s) * (1 - 2 * s)


print(f"torch {torch.__version__}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}, scipy {scipy.__version__}")
print("shift of a ramp     torch  OpenCV  Pillow   scipy  torch linear  d(torch)/ds")
for s in (0.0, 0.1, 0.25, 0.5):
    t = torch.tensor(s, dtype=torch.double, requires_grad=True)
    moved = torch_moved(t)
    (slope,) = torch.autograd.grad(moved, t)
    spline = 8 - ndimage.shift(ramp.astype(float), (0, s), order=3)[8, 8]
    linear = torch_moved(torch.tensor(s), "bilinear")
    seen = [float(v) for v in (moved.detach(), opencv(s), pillow(s), spline, linear, slope)]
    print(f"by {s:4.2f} pixels      " + "   ".join(f"{v:.3f}" for v in seen))
    assert abs(spline - s) < 1e-4 and abs(linear - s) < 1e-6, "scipy or linear: no straight line"
    formula = [line(s, a) for a in (-0.75, -0.75, -1.0)] + [s, s, 1.5 - 3 * s + 3 * s**2]
    if not np.allclose(seen, formula, atol=1e-4):
        sys.exit(f"changed: a shift of {s} is seen as {seen}, by the formula {formula}")
steps = {
    "torch": np.diff(interpolate(image, scale_factor=2, mode="bicubic")[0, 0, 8].numpy()),
    "torch, antialias=True": np.diff(
        interpolate(image, scale_factor=2, mode="bicubic", antialias=True)[0, 0, 8].numpy()
    ),
    "OpenCV": np.diff(cv2.resize(ramp, (2 * n, 2 * n), interpolation=cv2.INTER_CUBIC)[8]),
    "Pillow": np.diff(np.asarray(Image.fromarray(ramp).resize((2 * n, 2 * n), Image.BICUBIC))[8]),
}
for name, v in steps.items():
    print(f"enlarged twice, {name:21s} steps {v[15:18].round(4)}")
    uneven = np.ptp(v[12:20]) > 0.1
    if uneven != (name in ("torch", "OpenCV")):
        sys.exit("changed: other libraries keep a straight line when they enlarge")
print("as described: a = -0.75 (torch, OpenCV) and -1 (Pillow's transform) bend a straight line")
PY
