"""
A prior from measurements alone
===============================

No clean image exists: each measurement shows half of the numbers, with noise. Expectation
maximisation finds a Gaussian prior of them; ``posteriori train`` with ``objective: em`` does
the same with a network, drawing posterior samples lap by lap.
"""

# %%
# Five hundred images from a law that the fit is not told, each seen through one of four masks.
import sys

import matplotlib.pyplot as plt
import torch

import posteriori as po
from posteriori.training.gaussian_family import fit_gaussian

quick = "--quick" in sys.argv
d, count = 6, 60 if quick else 500
g = torch.Generator().manual_seed(0)
i = torch.arange(d, dtype=torch.float64)
C = torch.exp(-(i[:, None] - i).abs() / 2)
x = 1 + torch.randn(count, d, generator=g, dtype=torch.float64) @ torch.linalg.cholesky(C).T
masks = [po.operators.Mask(torch.randperm(d, generator=g) < d // 2) for _ in range(8)]
noise = po.noise.Gaussian(0.1)
likelihoods = []
for k in range(count):
    A = masks[k % len(masks)]
    y = A(x[k : k + 1])[0]
    likelihoods.append(
        po.Likelihood(y + 0.1 * torch.randn(y.shape, generator=g, dtype=y.dtype), A, noise)
    )

# %%
# The log-likelihood of what was measured rises at each lap.
start = po.priors.Gaussian(torch.zeros(d, dtype=torch.float64), 1.0)
fit = fit_gaussian(likelihoods, start, iterations=5 if quick else 30)
print(f"log-likelihood from {fit.log_likelihood[0]:.0f} to {fit.log_likelihood[-1]:.0f}")

# %%
# The prior that was found is a prior like any other: a posterior of one measurement under it,
# with an exact mean.
post = po.Posterior(fit.prior, likelihoods[0])
run = po.sample(post, po.methods.EPS(), n=8, steps=10, seed=0)
print(run.mean, x[0])

fig, axes = plt.subplots(1, 2, figsize=(5, 2.3))
for axis, matrix, title in zip(
    axes, (C, fit.prior.covariance), ("covariance", "found"), strict=True
):
    axis.imshow(matrix, vmin=0, vmax=1)
    axis.set_title(title)
    axis.axis("off")
