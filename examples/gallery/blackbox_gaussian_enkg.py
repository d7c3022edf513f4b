"""
A program without derivatives
=============================

The instrument is a function that can only be called: here a smoothing whose strength depends on
the image. EnKG moves an ensemble by its own covariance with what it measures.
"""

# %%
import sys

import matplotlib.pyplot as plt
import numpy as np
import torch

import posteriori as po

quick = "--quick" in sys.argv
n = 24
i = torch.arange(n, dtype=torch.float64)
C = torch.exp(-0.5 * (i[:, None] - i).square() / 2.5**2) + 1e-4 * torch.eye(n)
prior = po.priors.Gaussian(torch.zeros(n, dtype=torch.float64), C)


def simulator(x):
    """A row of numbers that diffuses, the faster the larger it is; every third is read."""
    for _ in range(5):
        flow = 0.1 * (1 + np.tanh(x)) * np.gradient(np.gradient(x))
        x = x + flow
    return x[::3]


A = po.operators.wrap(simulator, (n,), numpy=True, gradient=False)
x = prior.sample(1, seed=0)
noise = po.noise.Gaussian(0.05)
y = noise.sample(A(x), po.rng.Streams(1, [0]))[0]

# %%
# One ensemble gives all samples; its spread is known to be too small (docs/results/blind.md).
post = po.Posterior(prior, po.Likelihood(y, A, noise))
run = po.sample(
    post, po.methods.EnKG(particles=16 if quick else 64), n=16, steps=5 if quick else 30, seed=0
)
error, before = (run.mean - x[0]).square().mean().sqrt(), x[0].square().mean().sqrt()
print(f"error of the mean {error:.2f}, of the prior's mean {before:.2f}")

# %%
fig, axis = plt.subplots(figsize=(6, 2.5))
axis.plot(i, x[0], "k", label="truth")
axis.plot(i[::3], y, "o", label="measured")
axis.plot(i, run.mean, label="mean")
axis.fill_between(i, run.mean - 2 * run.std, run.mean + 2 * run.std, alpha=0.3)
axis.legend()
