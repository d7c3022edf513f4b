"""
A latent prior
==============

The prior moves latents of 8 x 8 x 8, and a decoder stands between them and the measurement.
Samples are images.
"""

# %%
# The upper half of a digit is hidden.
import sys

import matplotlib.pyplot as plt
import torch

import posteriori as po

quick = "--quick" in sys.argv
prior = po.priors.text_digits()
x = prior.sample(1, seed=1, steps=3 if quick else 10, shape=(1, 32, 32))[0]
mask = torch.zeros(1, 32, 32, dtype=torch.bool)
mask[:, 16:] = True
A = po.operators.Mask(mask)
noise = po.noise.Gaussian(0.1)
y = noise.sample(A(x[None]), po.rng.Streams(1, [0]))[0]

# %%
# PSLD glues the latent to what the encoder makes of the measured image.
post = po.Posterior(prior, po.Likelihood(y, A, noise, range=(-1, 1)))
run = po.sample(post, po.methods.PSLD(), n=2, steps=2 if quick else 20, seed=0)
print(run.samples.shape, run.counts)

# %%
fig, axes = plt.subplots(1, 4, figsize=(8, 2.2))
for axis, picture, title in zip(
    axes,
    (x, A.adjoint(y[None])[0], *run.samples[:2]),
    ("digit", "measured", "sample", "sample"),
    strict=True,
):
    axis.imshow(picture[0], cmap="gray")
    axis.set_title(title)
    axis.axis("off")
