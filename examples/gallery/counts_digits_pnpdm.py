"""
Photon counts
=============

A blurred picture of few photons. The noise is Poisson's: its variance follows the picture, and
no Gaussian of one level says the same.
"""

# %%
# Thirty photons where the clean measurement is 1. y is the counts over that peak.
import sys

import matplotlib.pyplot as plt

import posteriori as po

quick = "--quick" in sys.argv
prior = po.priors.digits()
x = (prior.sample(1, seed=2, steps=3 if quick else 10, shape=(1, 32, 32))[0] + 1).clamp(0, 2) / 2
A = po.operators.Blur(po.operators.gaussian_kernel(1.2), (1, 32, 32), boundary="circular")
noise = po.noise.Poisson(peak=30.0)
y = noise.sample(A(x[None]).clamp(min=0), po.rng.Streams(1, [0]))[0]

# %%
# The method that the library chooses for counts behind a linear operator.
post = po.Posterior(prior, po.Likelihood(y, A, noise, range=(0, 1)))
method = po.methods.PnPDM(prior_steps=1 if quick else 4, inner_steps=5 if quick else 20)
run = po.sample(post, method, n=2, steps=3 if quick else 15, seed=0)

# %%
fig, axes = plt.subplots(1, 4, figsize=(8, 2.2))
for axis, picture, title in zip(
    axes, (x, y, run.mean, run.std), ("picture", "counts", "mean", "spread"), strict=True
):
    axis.imshow(picture[0], cmap="gray")
    axis.set_title(title)
    axis.axis("off")
