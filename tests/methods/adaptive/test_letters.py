"""The shipped prior of digits on grey letters: adaptation brings it to what was measured, and ends
where the noise begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

import posteriori as po
from posteriori.methods import DDIP, DDS
from posteriori.rng import Streams

SIDE, SIGMA = 32, 0.05


def letter(name):
    """Grey 0.7 on 0.3, (1, 1, 32, 32)."""
    picture = Image.new("L", (4 * SIDE, 4 * SIDE))
    font = ImageFont.load_default(size=3 * SIDE)
    ImageDraw.Draw(picture).text((2 * SIDE, 2 * SIDE), name, fill=255, font=font, anchor="mm")
    small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)[None, None]
    return 0.3 + 0.4 * grey


def scored(names, steps, method):
    """PSNR and chi-square of one sample for each letter, every fifth pixel measured."""
    prior, law, out = po.priors.digits(), po.noise.Gaussian(SIGMA), []
    for k, name in enumerate(names):
        x = letter(name)
        A = po.operators.Mask(po.operators.random_mask((SIDE, SIDE), 0.2, k), (1, SIDE, SIDE))
        y = law.sample(A(x), Streams(100 + k, [0]))[0]
        post = po.Posterior(prior, po.Likelihood(y, A, law, range=(0, 1)))
        found = po.sample(post, method, n=1, steps=steps, seed=k).samples
        psnr = -10 * float((found - x).square().mean().log10())
        out.append((psnr, float((y - A(found)[0]).square().mean()) / SIGMA**2))
    return out


@pytest.mark.parametrize(
    ("names", "steps"), [("A", 8), pytest.param("ABEFHKRSWX", 16, marks=pytest.mark.slow)]
)
def test_adaptation_of_the_digits_prior_to_letters(names, steps):
    """Better by 3 dB in 9 of 10 cases, at a residual as large as the noise: chi-square of about 205
    numbers, five standard errors. The digits alone do not explain y at all."""
    before = scored(names, steps, DDS())
    after = scored(names, steps, DDIP(iterations=10, rate=3e-3))
    better = sum(b[0] > a[0] + 3 for a, b in zip(before, after, strict=True))
    assert better >= 0.9 * len(names)
    assert all(chi2 > 5 for _, chi2 in before)
    assert all(abs(chi2 - 1) < 5 * (2 / 205) ** 0.5 for _, chi2 in after)
