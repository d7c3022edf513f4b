"""Photographs behind the four instruments of the benchmark, each with noise of 0.05 of [0, 1].

blur        Gaussian kernel of standard deviation 2 pixels, circular
downsample  means over 4 x 4 pixels
box         a square of half the side hidden in the middle
random      70 % of the pixels hidden, all channels at once
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from posteriori.extras import require_extra
from posteriori.likelihood import Likelihood
from posteriori.noise import Gaussian
from posteriori.operators import (
    Blur,
    Downsample,
    LinearOperator,
    Mask,
    box_mask,
    gaussian_kernel,
    random_mask,
)
from posteriori.problem_file import simulate
from posteriori.settings import suggestion

SIGMA, RANGE = 0.05, (0.0, 1.0)
# Row and column around which a crop of any side lies, as far as the border allows: a face, and the
# eye of a cat.
PHOTOGRAPHS = {"astronaut": (115, 225), "chelsea": (115, 170)}
DEGRADATIONS: dict[str, Callable[[int], LinearOperator]] = {
    "blur": lambda side: Blur(gaussian_kernel(2.0), (3, side, side)),
    "downsample": lambda side: Downsample((3, side, side), 4, "box"),
    "box": lambda side: Mask(box_mask((side, side), side // 2), (3, side, side)),
    "random": lambda side: Mask(random_mask((side, side), 0.3, seed=0), (3, side, side)),
}


@dataclass(frozen=True, eq=False)
class Scene:
    """A photograph (3, side, side) in [0, 1], its likelihood, and the measurement as a picture of
    the same size."""

    truth: Tensor
    given: Likelihood
    shown: Tensor


def photograph(name: str, side: int) -> Tensor:
    """A crop (3, side, side) in [0, 1] of a photograph that scikit-image carries with it.

    Raises ``ImportError`` where that package is not installed, ``ValueError`` for another name.
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"unknown image {name!r}; {suggestion(name, PHOTOGRAPHS)}")
    require_extra("experiments", "a photograph of scikit-image", "skimage")
    from skimage import data

    x = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1).float() / 255
    top, left = (
        min(max(0, c - side // 2), n - side)
        for c, n in zip(PHOTOGRAPHS[name], x.shape[1:], strict=True)
    )
    return x[:, top : top + side, left : left + side].contiguous()


@lru_cache(maxsize=16)
def scene(image: str, problem: str, side: int) -> Scene:
    """The same measurement for every method: its noise depends on nothing but these three.

    Raises ``ValueError`` for an unknown image or problem.
    """
    if problem not in DEGRADATIONS:
        raise ValueError(f"unknown problem {problem!r}; {suggestion(problem, DEGRADATIONS)}")
    x, A, law = photograph(image, side), DEGRADATIONS[problem](side), Gaussian(SIGMA)
    y = simulate(A, x, law, seed=0)
    if isinstance(A, Downsample):
        shown = y.repeat_interleave(A.factor, 1).repeat_interleave(A.factor, 2)
    else:
        shown = y if y.shape == x.shape else A.adjoint(y[None])[0]
    return Scene(x, Likelihood(y, A, law, range=RANGE), shown)
