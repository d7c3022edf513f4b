"""
Tomography by photon counts
===========================

An absorber in a beam of few photons: y is what each detector counts, not a line integral. The
operator is not linear, and the noise is Poisson's.
"""

# %%
# A picture taken for an attenuation of 0 to 0.04 per mm, 24 angles, 5000 photons a detector
# where nothing is in the way.
import sys

import matplotlib.pyplot as plt
import numpy as np

import posteriori as po

quick = "--quick" in sys.argv
prior = po.priors.digits()
x = 0.02 * (1 + prior.sample(1, seed=7, steps=3 if quick else 10, shape=(1, 32, 32))[0])
radon = po.operators.Radon((1, 32, 32), np.linspace(0, 180, 24, endpoint=False), pixel_mm=2.0)
A = po.operators.Transmission(radon, photons=5000.0)
noise = po.noise.Counts()
y = noise.sample(A(x[None].clamp(min=0)), po.rng.Streams(1, [0]))[0]
print(f"{y.min():.0f} to {y.max():.0f} photons")

# %%
# The range of the attenuation is stated with the likelihood; the prior's own range is [-1, 1].
post = po.Posterior(prior, po.Likelihood(y, A, noise, range=(0, 0.04)))
run = po.sample(post, po.methods.DCDP(), n=2, steps=2 if quick else 12, seed=0)
left = ((y - A(run.samples)).square() / y.clamp(min=1)).mean()
print(f"chi-square {left:.2f}")

# %%
fig, axes = plt.subplots(1, 4, figsize=(8, 2.2))
for axis, picture, title in zip(
    axes,
    (x[0], y[0], run.mean[0], run.std[0]),
    ("attenuation", "counts", "mean", "spread"),
    strict=True,
):
    axis.imshow(picture, cmap="gray", aspect="auto" if title == "counts" else "equal")
    axis.set_title(title)
    axis.axis("off")
