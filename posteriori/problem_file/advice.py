"""Which method a problem gets when its file names none: one for each kind of problem, by what was
measured (docs/results/advice.md).

    known       A linear, Gaussian noise, a prior whose denoiser under what x and y leave is in
                closed form
    told        A linear, Gaussian noise, a network that was trained for what x and y leave under
                operators of A's kind, where EPS has the lowest CRPS of ``CRPS``, to its error
    linear      A linear, Gaussian noise
    few         the same, y of at most 8 real numbers and x of at most 1000
    counts      A linear, other noise
    magnitudes  Fourier magnitudes
    jpeg        quantised cosine coefficients
    curved      any other A that is not linear

The first method of ``RECOMMENDED`` that accepts the posterior is taken. The reason is printed and
kept with the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from posteriori import grid as grids
from posteriori.covariances import BlockNoise, CosineNoise, FourierNoise, PixelNoise
from posteriori.likelihood import Posterior
from posteriori.methods import EPS, Method
from posteriori.methods.courses import prior_scale
from posteriori.operators import JPEG, LinearOperator, PhaseRetrieval
from posteriori.problem_file.method import named_method

# Numbers of y, and of an image, for which clouds of 256 particles with a covariance of y each were
# measured.
FEW, SMALL = 8, 1000
# Levels in which the magnitudes' shapes are decided, from 5 to 0.02 of images in [-1, 1]: those of
# docs/results/phase-digits.md.
LONG = 200
# Levels of EPS: 39 calls (docs/results/exact.md), and of a network 19 (docs/results/twenty.md).
LEVELS_OF_EPS = {"known": 20, "told": 10}
# What x and y leave under an operator, by the kind of operator.
OPERATORS: dict[type, str] = {
    FourierNoise: "a blur",
    CosineNoise: "a blur",
    BlockNoise: "block means",
}
SINGLE = "a mask of single pixels"
HOLE = "a mask with a hole"  # most of its hidden pixels have hidden neighbours alone
# Mean CRPS on photographs by kind of operator, of images in [0, 1]: docs/results/twenty.md, EPS at
# 19 calls and 8 derivatives. Lower is better. ERROR: the standard error of the difference
# of EPS and MMPS, over the photographs. The rule for networks follows from both: new figures are
# put here, and ``benchmarks/choice.py`` says whether they are those of the results and what is
# chosen.
CRPS = {
    "a blur": {"EPS": 0.02714, "MMPS": 0.02721, "DiffPIR": 0.02920, "DAPS": 0.03701},
    "block means": {"EPS": 0.03622, "MMPS": 0.03704, "DAPS": 0.04041, "DiffPIR": 0.04167},
    SINGLE: {"EPS": 0.02313, "MMPS": 0.02314, "DAPS": 0.02540, "DiffPIR": 0.02614},
    HOLE: {"EPS": 0.02221, "DAPS": 0.02335, "MMPS": 0.02408, "DiffPIR": 0.02854},
}
ERROR = {
    "a blur": 0.00023,
    "block means": 0.00022,
    SINGLE: 0.00013,
    HOLE: 0.00079,
}


@dataclass(frozen=True)
class Choice:
    """A method, why it, and the steps and levels that go with it where they are not the usual
    ones."""

    method: Method[Any]
    reason: str
    steps: int | None = None
    levels: Tensor | None = None

    def __str__(self) -> str:
        return f"method: {type(self.method).__name__}, chosen for {self.reason}"


def choose(post: Posterior, steps: int | None = None, alone: bool = False) -> Choice:
    """The method for a posterior, along ``steps`` levels if they are stated; alone: one without
    clouds of particles. Raises ``ValueError`` where no method accepts it."""
    kind, reason = _kind(post)
    for raw in RECOMMENDED[kind]:
        solver = named_method(raw)
        if solver.refuses(post) is None and not (alone and solver.group > 1):
            reason = f"{reason}; {type(solver).cost} a step"
            if kind in LEVELS_OF_EPS and isinstance(solver, EPS):
                return Choice(solver, reason, steps or LEVELS_OF_EPS[kind])
            if kind != "magnitudes":
                return Choice(solver, reason)
            unit = prior_scale(post.prior)
            top = min(5.0 * unit, post.prior.sigma_max)
            bottom = max(0.02 * unit, post.prior.sigma_min)
            return Choice(solver, reason, steps or LONG, grids.log(steps or LONG, top, bottom))
    raise ValueError(
        f"no method of the library's choice takes this problem ({reason}); "
        "name one, see posteriori methods"
    )


def rivals(post: Posterior) -> list[Any]:
    """The methods worth comparing on a posterior, best first, as entries of a list."""
    return [raw for raw in RECOMMENDED[_kind(post)[0]] if named_method(raw).refuses(post) is None]


# By kind, best first. A later one is taken where those before refuse.
RECOMMENDED: dict[str, tuple[Any, ...]] = {
    "known": ("EPS", "MMPS", "DiffPIR", "DAPS"),
    "told": ("EPS", "MMPS", "DiffPIR", "DAPS"),
    "few": ("MomentSMC", "MMPS", "TDS"),
    "linear": ("MMPS", "DiffPIR", "DAPS"),
    "counts": ({"name": "PnPDM", "prior_steps": 4}, "FreeDoM", "DPS"),
    "magnitudes": ({"name": "DAPS", "inner_steps": 20}, "PnPDM"),
    "jpeg": ({"name": "PnPDM", "prior_steps": 4}, "DCDP", "FreeDoM"),
    "curved": ("DCDP", {"name": "PnPDM", "prior_steps": 4}, "FreeDoM"),
}


def _kind(post: Posterior) -> tuple[str, str]:
    given = post.given
    A, law = given.A, type(given.noise).__name__
    numbers = given.y.numel() * (2 if given.y.is_complex() else 1)
    if any(isinstance(part, PhaseRetrieval) for part in A.modules()):
        return "magnitudes", "Fourier magnitudes, which several images share"
    if not isinstance(A, LinearOperator):
        if any(isinstance(part, JPEG) for part in A.modules()):
            return "jpeg", "a picture that JPEG has quantised"
        return "curved", f"{A.label}, an operator that is not linear"
    if given.noise.std is None:
        return "counts", f"a linear operator with {law} noise"
    kind = operator_kind(post)
    what = f"{A.label}, {kind or 'a linear operator'} with Gaussian noise of {given.noise.std:.3g}"
    if post.prior.know().closed is not None and EPS().refuses(post) is None:
        return "known", f"{what}, under which this prior's denoiser is in closed form"
    if numbers <= FEW and math.prod(post.shape) <= SMALL:
        return (
            "few",
            f"{what} and {numbers} measured numbers, whose posterior may have several modes",
        )
    # Within the error of the best EPS is taken: it costs a fifth of what MMPS does.
    near = kind in CRPS and CRPS[kind]["EPS"] <= min(CRPS[kind].values()) + ERROR[kind]
    if kind and near and EPS().refuses(post) is None:
        return (
            "told",
            f"{what}, for which this prior's network was trained: CRPS "
            f"{CRPS[kind]['EPS']:.4f} of photographs, MMPS {CRPS[kind]['MMPS']:.4f}",
        )
    return "linear", what


def operator_kind(post: Posterior) -> str | None:
    """A key of ``CRPS`` for a linear operator under Gaussian noise; None for others."""
    like = post.likelihood
    if not like.noise.std or like.A.complex_out:
        return None
    found = like.linear.posterior_covariance(1.0, 1.0)
    if isinstance(found, PixelNoise):
        return _of_mask(found.variances)
    return OPERATORS.get(type(found))


def _of_mask(variances: Tensor) -> str | None:
    """The word for a mask that leaves the variance 1 where nothing is measured, in one plane
    (H, W) or several; a hole where more than half of the hidden pixels have hidden neighbours
    alone. None where nothing is hidden, and for images of one axis."""
    hidden = (variances == 1).double()
    if variances.ndim < 2 or not bool(hidden.any()):
        return None
    planes = hidden.reshape(-1, 1, *hidden.shape[-2:])
    around = F.avg_pool2d(planes, 3, 1, 1, count_include_pad=False)
    inside = (around == 1) & (planes == 1)
    return HOLE if bool(inside.sum() > planes.sum() / 2) else SINGLE
