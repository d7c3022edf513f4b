"""
A measurement and a text
========================

The upper half of a digit is hidden, and several digits fit what is left. A text decides: the
prior is told what it shows.
"""

# %%
import sys

import matplotlib.pyplot as plt
import torch

import posteriori as po

quick = "--quick" in sys.argv
prior = po.priors.text_digits()
x = prior.conditioned("a bold nine", guidance=2.0).sample(
    1, seed=1, steps=3 if quick else 10, shape=(1, 32, 32)
)[0]
mask = torch.zeros(1, 32, 32, dtype=torch.bool)
mask[:, 18:] = True
A = po.operators.Mask(mask)
noise = po.noise.Gaussian(0.1)
y = noise.sample(A(x[None]), po.rng.Streams(1, [0]))[0]

# %%
# The same measurement under two texts. Neither is told to the operator or to the method: a text
# is part of the prior.
runs = {}
for text in ("a bold nine", "a bold seven"):
    post = po.Posterior(
        prior.conditioned(text, guidance=2.0), po.Likelihood(y, A, noise, range=(-1, 1))
    )
    runs[text] = po.sample(post, po.methods.DPS(), n=1, steps=2 if quick else 20, seed=0)

# %%
fig, axes = plt.subplots(1, 4, figsize=(8, 2.2))
shown = (x, A.adjoint(y[None])[0], *(run.samples[0] for run in runs.values()))
for axis, picture, title in zip(axes, shown, ("digit", "measured", *runs), strict=True):
    axis.imshow(picture[0], cmap="gray")
    axis.set_title(title)
    axis.axis("off")
