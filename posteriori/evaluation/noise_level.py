"""The noise level that the residual of a run tells.

With m measured numbers, samples x_k of p(x | y) drawn for the stated level s0, their mean
measurement a = mean A x_k and v = sum of the variances of A x_k over the samples
(unbiased, all numbers together):

    dof = v / s0^2                             the numbers of y that the image takes up
    s^2 = (||y - a||^2 - v / n) / (m - dof)

For a Gaussian posterior with a linear A the numerator is ||y - A E[x | y]||^2, whose mean is s0^2
tr(I - H) + (s^2 - s0^2) tr((I - H)^2) for the true level s, where H takes y to A E[x | y] and tr(H)
= dof. At s = s0 the estimate is therefore right in the mean; away from it, it lies between s0 and
the truth, the nearer to the truth the more (I - H)^2 is like I - H, that is the more numbers are
either taken up or left over. Its standard error from the noise is s / sqrt(2 (m - dof)). Source:
Wahba, Bayesian "confidence intervals" for the cross-validated smoothing spline, 1983. It is told
only where at least half of the numbers are left over: otherwise the samples follow the noise, and
the residual knows little of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from posteriori.likelihood import Posterior
from posteriori.linalg import real_view
from posteriori.run import Run

LEFT = 0.5
# A level that differs by less than this factor, or by less than so many standard errors, is not
# worth another run.
FACTOR, ERRORS = 1.2, 4.0


@dataclass(frozen=True)
class NoiseLevel:
    """Standard deviations of one real number of y, in its units: the stated one, the estimate and
    its standard error from the noise alone.
    dof: numbers of y that the image takes up."""

    stated: float
    estimate: float
    error: float
    dof: float

    @property
    def differs(self) -> bool:
        """Whether the estimate is another level than the stated one."""
        apart = abs(self.estimate - self.stated) > ERRORS * self.error
        return apart and not 1 / FACTOR < self.estimate / self.stated < FACTOR

    def __str__(self) -> str:
        return (
            f"noise level: the residual tells about {self.estimate:.3g}, an estimate; "
            f"{self.stated:.3g} is stated. If the operator is right "
            f"and the method fits what it is told, run again with {self.estimate:.3g}"
        )


@torch.no_grad()
def noise_level(run: Run, post: Posterior) -> NoiseLevel | None:
    """What the samples of a run tell of a Gaussian noise level. None where they tell nothing: other
    noise, a level of 0, fewer than two samples that count, or a measurement that the image takes up
    by more than half."""
    given = post.given
    stated = getattr(given.noise, "sigma_per_channel", None) or given.noise.std
    if not stated or run.ess < 2:
        return None
    clean = torch.cat([given.A(part.to(given.y.device)) for part in run.samples.split(32)])
    x, y = real_view(clean).flatten(1).double().cpu(), real_view(given.y).flatten().double().cpu()
    cleaned = replace(run, samples=x)
    mean, error = cleaned.mean, float(cleaned.standard_error.square().sum())
    v = float(cleaned.std.square().sum())
    m, dof = len(y), v / stated**2
    if m - dof < LEFT * m:
        return None
    square = (float((y - mean).square().sum()) - error) / (m - dof)
    level = math.sqrt(max(square, 0.0))
    return NoiseLevel(stated, level, level / math.sqrt(2 * (m - dof)), dof)
