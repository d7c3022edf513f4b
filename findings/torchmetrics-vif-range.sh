#!/usr/bin/env bash
# VisualInformationFidelity of torchmetrics is 1 for any [0, 1] image, however noisy.
#
# The model of the eye has a noise of variance 2 in grey levels of 0 ... 255 (sigma_n_sq=2.0). There
# is no data_range as in its PSNR and SSIM, nothing is scaled and nothing is said: on images in
# [0, 1] that noise buries everything, and the score is a ratio of two tiny numbers near 1, which
# grows with the noise: the noisiest image ranks best. Images times 255 give the usual values.
#
# Seen with torchmetrics 1.9.0: noise of 0.02, 0.05, 0.1, 0.2: VIF 1.002, 1.006, 1.011, 1.021 on
# [0, 1], and 0.653, 0.420, 0.257, 0.141 on the same images times 255.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torchmetrics==1.9.0 torch==2.13.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
import torchmetrics
from torchmetrics.functional.image import visual_information_fidelity as vif

rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
truth = 0.5 + 0.25 * torch.sin(columns / 7) * torch.cos(rows / 5)
truth = (truth + 0.2 * ((columns // 16 + rows // 16) % 2 - 0.5))[None, None]
print(f"torchmetrics {torchmetrics.__version__}, torch {torch.__version__}")
unit, byte = [], []
for sigma in (0.02, 0.05, 0.1, 0.2):
    generator = torch.Generator().manual_seed(0)
    seen = truth + sigma * torch.randn(truth.shape, generator=generator)
    unit.append(float(vif(seen, truth)))
    byte.append(float(vif(255 * seen, 255 * truth)))
    print(f"noise {sigma:4.2f}: VIF on [0, 1] {unit[-1]:.3f}, of the same times 255 {byte[-1]:.3f}")
assert byte[0] > 0.6 and byte[-1] < 0.2, "VIF of 0..255 images is not what it was"
if min(unit) < 0.95:
    sys.exit("changed: the range of the images is taken into account, or [0, 1] is expected")
print("as described: on [0, 1] images the score is 1 whatever the noise")
PY
