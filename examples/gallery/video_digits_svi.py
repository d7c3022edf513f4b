"""
A blurred video
===============

A shutter that is open for three frames. SVI makes video from a prior of images: all frames
share their noise, so that what y leaves open is the same in each.
"""

# %%
import sys

import matplotlib.pyplot as plt
import torch

import posteriori as po

quick = "--quick" in sys.argv
side, frames = 16 if quick else 32, 5
digits = po.priors.digits()
still = digits.sample(1, seed=8, steps=3 if quick else 10, shape=(1, side, side))[0]
x = torch.stack([still.roll(k, -1) for k in range(frames)])  # one pixel a frame

A = po.operators.temporal_blur((frames, 1, side, side), 3)
noise = po.noise.Gaussian(0.01)
y = noise.sample(A(x[None]), po.rng.Streams(1, [0]))[0]

# %%
post = po.Posterior(po.priors.Slices(digits, frames), po.Likelihood(y, A, noise, range=(-1, 1)))
run = po.sample(post, po.methods.SVI(), n=1, steps=3 if quick else 15, seed=0)
before, after = (po.evaluation.psnr(video, x, 2.0).mean() for video in (y, run.samples[0]))
print(f"PSNR of y {before:.1f} dB, of a sample {after:.1f} dB")

# %%
fig, axes = plt.subplots(2, frames, figsize=(2 * frames, 4))
for k in range(frames):
    axes[0, k].imshow(y[k, 0], cmap="gray")
    axes[1, k].imshow(run.samples[0, k, 0], cmap="gray")
for axis in axes.flat:
    axis.axis("off")
