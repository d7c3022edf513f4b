#!/usr/bin/env bash
# torch's Gaussian negative log-likelihood scores every std below 0.001 as 0.001.
#
# gaussian_nll_loss (and GaussianNLLLoss) raises the variance to eps=1e-6, in the units of the data.
# The argument is documented, as a matter of stability; but a std of 0.001 is no tiny number for
# images in [0, 1], and MRI or flux in physical units lies far below it. Nothing is said, and
# predicted stds can no longer be told apart. eps=0 scores them as they are.
#
# Seen with torch 2.13.0: at a true std of 1e-4 the right std and one ten times too wide both score
# -6.903, where the formula gives -8.709 and -6.903; at 1e-6 both -6.908 for -13.314 and -11.508.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import sys

import torch

print(f"torch {torch.__version__}")
gap = {}
for sigma in (1.0, 1e-2, 1e-3, 1e-4, 1e-6):
    error = sigma * torch.randn(100_000, generator=torch.Generator().manual_seed(0)).double()
    zero = torch.zeros_like(error)
    score = []
    for factor in (1, 10):
        var = torch.full_like(error, (factor * sigma) ** 2)
        score.append(float(torch.nn.functional.gaussian_nll_loss(error, zero, var)))
        score.append(float((0.5 * (var.log() + error**2 / var)).mean()))
    gap[sigma] = score[2] - score[0]
    print(
        f"sigma {sigma:5.0e}: right std {score[0]:8.4f} (formula {score[1]:8.4f}), "
        f"std ten times too wide {score[2]:8.4f} (formula {score[3]:8.4f})"
    )
assert gap[1e-2] > 1.7, "the score no longer sees a width that is wrong"
if gap[1e-4] > 1e-3:
    sys.exit("changed: small variances are scored as they are")
print("as described: a std below 0.001 is scored as 0.001")
PY
