"""
Phase retrieval
===============

Only the magnitudes of a Fourier transform are measured. A shift and a half turn of the object
measure the same: a sample is compared with the object after both are undone.
"""

# %%
import sys

import matplotlib.pyplot as plt

import posteriori as po

quick = "--quick" in sys.argv
prior = po.priors.digits()
x = (prior.sample(1, seed=11, steps=3 if quick else 10, shape=(1, 32, 32))[0] + 1) / 2
A = po.operators.PhaseRetrieval((1, 32, 32), oversampling=2.0)
noise = po.noise.Gaussian(0.01)
y = noise.sample(A(x[None]), po.rng.Streams(1, [0]))[0]

# %%
# Shapes are decided between the levels 5 and 0.02: there the steps are spent. 200 levels find
# nearly every digit, few of 60 do not: chi-square says which, since a wrong digit does not fit
# the magnitudes.
post = po.Posterior(prior, po.Likelihood(y, A, noise, range=(0, 1)))
levels = po.grid.log(4 if quick else 60, 5.0, 0.02)
run = po.sample(post, po.methods.DAPS(inner_steps=4 if quick else 20), n=1, grid=levels, seed=0)
chi2 = ((y - A(run.samples)) / 0.01).square().mean()
print(f"chi-square {chi2:.2f}")

# %%
fig, axes = plt.subplots(1, 3, figsize=(6, 2.2))
for axis, picture, title in zip(
    axes,
    (x[0], y[0].log1p().roll((32, 32), (0, 1)), run.samples[0, 0]),
    ("object", "magnitudes", "sample"),
    strict=True,
):
    axis.imshow(picture, cmap="gray")
    axis.set_title(title)
    axis.axis("off")
