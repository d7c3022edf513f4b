"""
A blurred photograph
====================

A crop of a photograph, blurred and noised, and restored by moment matching: samples, their
mean, and where they differ.
"""

# %%
# The photograph that ships with the package, and an instrument: a Gaussian blur of 1.5 pixels,
# which repeats beyond the border.
import sys

import matplotlib.pyplot as plt

import posteriori as po
from posteriori.measurements.photos import COFFEE

quick = "--quick" in sys.argv
side = 16 if quick else 32
x, _ = po.measurements.read_image(COFFEE, channels=3)  # (3, 256, 256) in [0, 1]
x = x[:, 176 : 176 + side, 184 : 184 + side]
A = po.operators.Blur(po.operators.gaussian_kernel(1.5), tuple(x.shape), boundary="circular")
noise = po.noise.Gaussian(0.02)  # of [0, 1]
y = po.problem_file.simulate(A, x, noise, seed=0)

# %%
# The posterior, and what a run of it will cost, before it is run.
post = po.Posterior(po.priors.photos(), po.Likelihood(y, A, noise, range=(0, 1)))
print(post.plan(po.methods.MMPS(iterations=2), n=2, steps=2 if quick else 6))

# %%
# Two samples. MMPS steps by two denoiser calls and a few derivatives, and keeps the spread of a
# Gaussian in few steps.
run = po.sample(post, po.methods.MMPS(iterations=2), n=2, steps=2 if quick else 6, seed=0)
print(run.counts)
chi2 = ((y - A(run.samples)) / 0.02).square().mean()
print(f"chi-square {chi2:.2f}: about 1 where a sample fits y")

# %%
fig, axes = plt.subplots(1, 4, figsize=(8, 2.2))
for axis, picture, title in zip(
    axes,
    (y, run.samples[0], run.mean, 5 * run.std),
    ("measured", "sample", "mean", "5 x spread"),
    strict=True,
):
    axis.imshow(picture.clamp(0, 1).permute(1, 2, 0))
    axis.set_title(title)
    axis.axis("off")
