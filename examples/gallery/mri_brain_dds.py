"""
Magnetic resonance with several coils
=====================================

Four receive coils, two columns of k-space in five, and a magnitude behind a known phase. The
prior knows magnitudes of brains.
"""

# %%
# An object that the prior draws, smooth coil maps whose squares add to 1, and a mask of columns
# with a full middle.
import sys

import matplotlib.pyplot as plt
import torch

import posteriori as po

quick = "--quick" in sys.argv
side = 32 if quick else 64
prior = po.priors.brain_mri()
x = prior.sample(1, seed=3, steps=2 if quick else 8, shape=(1, side, side))[0]

rows, columns = torch.meshgrid(*2 * [torch.linspace(-1, 1, side)], indexing="ij")
near = [torch.exp(-((rows - a) ** 2 + (columns - b) ** 2)) for a in (-1, 1) for b in (-1, 1)]
maps = torch.stack(near).to(torch.complex64)
maps = maps / maps.abs().square().sum(0).sqrt()
phase = torch.exp(1j * (rows + 0.5 * columns))

keep = torch.rand(side, generator=torch.Generator().manual_seed(0)) < 0.35
keep[side // 2 - side // 16 : side // 2 + side // 16] = True
mask = keep.expand(side, side)

# %%
# The instrument is a product: the phase of each pixel, then coils and k-space. The noise is
# complex, its level that of each channel.
A = po.operators.MultiCoilFourier(maps, mask) @ po.operators.PhaseMap(phase)
noise = po.noise.ComplexGaussian(sigma_per_channel=0.02)
y = noise.sample(A(x[None]), po.rng.Streams(1, [0]))[0]
post = po.Posterior(prior, po.Likelihood(y, A, noise, range=(-1, 1)))

# %%
# DDS takes a few conjugate-gradient steps towards the data at each level.
run = po.sample(post, po.methods.DDS(), n=2, steps=3 if quick else 12, seed=0)
zero_filled = A.adjoint(y[None])[0]

fig, axes = plt.subplots(1, 4, figsize=(8, 2.2))
for axis, picture, title in zip(
    axes,
    (x, zero_filled, run.mean, run.std),
    ("object", "zero-filled", "mean", "spread"),
    strict=True,
):
    axis.imshow(picture[0], cmap="gray")
    axis.set_title(title)
    axis.axis("off")
print(f"PSNR of the mean {po.evaluation.psnr(run.mean[None], x[None], 2.0).item():.1f} dB")
