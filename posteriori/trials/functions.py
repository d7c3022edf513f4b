"""Functions of an image whose ranks are looked at, in groups.

    measured  three directions A^H u, u random: what the instrument sees
    white     three random directions
    whole     mean value and length of the image
    fit       length of the residual y - A x
    tarp      distance to a draw of the prior, and to one of the samples

Without fit, or a distance to a sample, samples that ignore y would pass. A distance is what TARP
ranks; a rank among samples, with equal values in random order, is uniform for any number of them,
while a share of samples compared with a continuous law is not.

Source: Lemos, Coogan, Hezaveh, Perreault-Levasseur, Sampling-based accuracy testing of posterior
estimators, 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.evaluation.distances import flat
from posteriori.likelihood import Posterior

FUNCTION_GROUPS = {
    "measured": slice(0, 3),
    "white": slice(3, 6),
    "whole": slice(6, 8),
    "fit": slice(8, 9),
    "tarp": slice(9, 11),
}


def function_values(post: Posterior, x: Tensor, elsewhere: Tensor, near: Tensor) -> Tensor:
    """The functions of images x (n, *E): (n, 11) float64, in the order of ``FUNCTION_GROUPS``.

    elsewhere: (*E) an image that is independent of the truth and its samples. near: (*E) a sample
    that is not among x. Directions are the same for all posteriors of one shape.
    """
    given, rows = post.given, flat(x).double()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        white = torch.randn(3, rows.shape[1], generator=g, dtype=torch.float64)
        u = torch.randn(3, *given.y.shape, generator=g, dtype=torch.float64).to(given.y)
        _, pull = given.A.linearize(elsewhere[None].expand(3, *elsewhere.shape).contiguous())
        seen = flat(pull(u)).double()
        fit = flat(given.residual(x)).double().norm(dim=1)
    far = [(rows - flat(image[None]).double()).norm(dim=1) for image in (elsewhere, near)]
    columns = (rows.mean(1), rows.norm(dim=1), fit, *far)
    return torch.cat([rows @ seen.T, rows @ white.to(rows).T, torch.stack(columns, 1)], 1)
