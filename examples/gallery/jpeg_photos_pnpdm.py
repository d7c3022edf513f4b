"""
A JPEG file
===========

A JPEG file holds rounded cosine coefficients. Rounding is no noise of a known law; an error
that is uniform over a step is taken for a Gaussian of the same variance.
"""

# %%
import io
import sys

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import posteriori as po
from posteriori.measurements.photos import COFFEE

quick = "--quick" in sys.argv
side = 16 if quick else 32
x, _ = po.measurements.read_image(COFFEE, channels=3)
x = x[:, 176 : 176 + side, 184 : 184 + side]
A = po.operators.JPEG(tuple(x.shape), quality=10)
y = A(x[None])[0]  # whole numbers, one for each coefficient
print(f"{(y == 0).float().mean():.0%} of the coefficients are 0")

# %%
# The unit of y is one quantisation step: the rounding error has a standard deviation of 1 /
# sqrt(12).
post = po.Posterior(
    po.priors.photos(), po.Likelihood(y, A, po.noise.Gaussian(12**-0.5), range=(0, 1))
)
method = po.methods.PnPDM(prior_steps=1 if quick else 4, inner_steps=5 if quick else 20)
run = po.sample(post, method, n=1, steps=2 if quick else 10, seed=0)

# %%
# Beside it what a decoder shows of such a file.
file = io.BytesIO()
pixels = (255 * x.permute(1, 2, 0)).round().byte().numpy()
Image.fromarray(pixels).save(file, "JPEG", quality=10, subsampling="4:2:0")
decoded = np.asarray(Image.open(file)) / 255

fig, axes = plt.subplots(1, 3, figsize=(6, 2.2))
sample = run.samples[0].clamp(0, 1).permute(1, 2, 0)
for axis, picture, title in zip(
    axes, (x.permute(1, 2, 0), decoded, sample), ("photograph", "decoded", "sample"), strict=True
):
    axis.imshow(picture)
    axis.set_title(title)
    axis.axis("off")
