"""
A blur of unknown width
=======================

Image and width are sampled together, and the width comes with an interval. The image's prior is
Gaussian here, so that Gibbs sampling draws it exactly; a network takes its place in the same
line.
"""

# %%
import sys

import matplotlib.pyplot as plt
import torch

import posteriori as po

quick = "--quick" in sys.argv
side, true_width = 16, 1.4
i = torch.arange(side, dtype=torch.float64)
place = torch.cartesian_prod(i, i)
C = 0.05 * torch.exp(-0.5 * torch.cdist(place, place).square() / 1.5**2)
image = po.priors.Gaussian(
    torch.zeros(1, side, side, dtype=torch.float64), C + 1e-4 * torch.eye(side**2)
)

# %%
# What is believed of the width: 1 pixel, within a factor of 1.6 or so either way.
belief = po.priors.Gaussian(torch.zeros(1, dtype=torch.float64), 0.47**2)
prior = po.priors.Joint({"image": image, "log_width": belief})
A = po.operators.BlindGaussianBlur((1, side, side), 9)
x = image.sample(1, seed=0)
noise = po.noise.Gaussian(0.02)
y = noise.sample(A.apply(x, torch.tensor([true_width]).double().log()), po.rng.Streams(1, [0]))[0]

# %%
post = po.Posterior(prior, po.Likelihood(y, A, noise))
method = po.methods.GibbsDiffusion(prior="exact")
run = po.sample(post, method, n=4 if quick else 19, steps=3 if quick else 20, seed=0)
widths = run.parts["log_width"].samples.exp().flatten()
print(f"width {widths.mean():.2f} +- {widths.std():.2f}, true {true_width}")

# %%
fig, axes = plt.subplots(1, 4, figsize=(8, 2.2))
for axis, picture, title in zip(
    axes, (x[0], y, run.parts["image"].mean), ("image", "measured", "mean"), strict=False
):
    axis.imshow(picture[0], cmap="gray")
    axis.set_title(title)
    axis.axis("off")
axes[3].hist(widths, bins=8)
axes[3].axvline(true_width, color="black")
axes[3].set_title("width")
