"""
A volume from thick slices
==========================

Four slices are wanted, two thick ones were measured. A prior of images knows each slice; total
variation along the axis ties them.
"""

# %%
import sys

import matplotlib.pyplot as plt

import posteriori as po

quick = "--quick" in sys.argv
side, depth = 16 if quick else 32, 4
digits = po.priors.digits()
x = (
    digits.sample(1, seed=5, steps=3 if quick else 10, shape=(1, side, side))
    .expand(depth, 1, side, side)
    .clone()
)
x[2:] = x[2:].roll(2, -1)  # the object moves on between the thick slices

A = po.operators.thick_slices((depth, 1, side, side), 2)
noise = po.noise.Gaussian(0.05)
y = noise.sample(A(x[None]), po.rng.Streams(1, [0]))[0]

# %%
# ``Slices`` makes a prior of volumes from one of images; a few slices are in memory at a time.
post = po.Posterior(po.priors.Slices(digits, depth), po.Likelihood(y, A, noise, range=(-1, 1)))
run = po.sample(post, po.methods.DDS3D(lam=1e-3, rho=0.1), n=1, steps=3 if quick else 15, seed=0)
print(run.samples.shape)

# %%
fig, axes = plt.subplots(2, depth, figsize=(2 * depth, 4))
for k in range(depth):
    axes[0, k].imshow(x[k, 0], cmap="gray")
    axes[1, k].imshow(run.samples[0, k, 0], cmap="gray")
    axes[0, k].set_title(f"slice {k}")
for axis in axes.flat:
    axis.axis("off")
