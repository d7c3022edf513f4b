"""What a prior knows beside its denoiser, as one object: a prior made of another one hands it on in
one call.

prior.know().error(sigma)                      what every prior answers
prior.know().exact("posterior").condition(...) what only a closed form answers; ``TypeError`` names
the prior that does not
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from posteriori.rng import Rng

if TYPE_CHECKING:
    from posteriori.covariances import NoiseCovariance
    from posteriori.priors.base import Prior
    from posteriori.priors.error_spectrum import Covariance
    from posteriori.priors.text import TextEncoder

# What else answers where a closed form does not.
REMEDIES = {"density": "; posteriori.priors.log_density integrates it"}


CovarianceOf = Callable[[Tensor | float, tuple[int, ...]], "Covariance | None"]
Sides = tuple[int | None, ...]
Predicted = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Guided = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]]


class Anisotropic(Protocol):
    """A denoiser under Gaussian noise that need not be white."""

    def refuses(self, covariance: NoiseCovariance) -> str | None:
        """Why there is none under noise of this covariance, in one sentence; None where there
        is."""

    def denoise(self, mu: Tensor, covariance: NoiseCovariance) -> Tensor:
        """E[x0 | x0 + Sigma^(1/2) z = mu] for mu (B, *E) and a covariance that is not refused:
        (B, *E)."""


class ClosedForm(Protocol):
    """A prior whose densities and conditionals are known exactly."""

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """log density of x0 + sigma z at x: (B, *E) -> (B,)."""

    def draw_given(self, x: Tensor, sigma: Tensor, rng: Rng) -> Tensor:
        """An exact draw of x0 given x = x0 + sigma z: (B, *E)."""

    def condition(self, matrix: Tensor, y: Tensor, sigma: float) -> tuple[Prior, float]:
        """The posterior given y = matrix x0 + sigma z as a prior, and log p(y). Raises
        ``TypeError`` where it has no closed form."""

    def sample(
        self, n: int, seed: int = 0, *, steps: int = 50, shape: tuple[int, ...] | None = None
    ) -> Tensor:
        """n exact draws, (n, *E), the k-th a function of (seed, k) alone, whatever ``steps``."""


@dataclass(frozen=True)
class Knowledge:
    """What a prior knows. Levels sigma are numbers or 0-d tensors.

    Attributes
    ----------
    name: the class of the prior, for errors.
    variance: of one number of an image, averaged over the image.
    max_std: standard deviation along the direction in which images differ most.
    sigma_min, sigma_max: where a sampling grid should end and may start.
    error: sigma -> E ||x0 - D(x, sigma)||^2 / d, the mean variance of x0 given x.
    ladder: () -> noise levels at equal distances in the time of training, rising, (K,) float64:
        what a "ddpm" grid chooses from.
    spectrum: sigma -> E (F (x0 - D(x, sigma)))^2 of each frequency, F being ``linalg.cosine``:
        shape E; None where it is not known.
    covariance: (sigma, E) -> E (x0 - D)(x0 - D)^T by colour and frequency for images of shape E, or
        None; None where it has not been measured.
    predicted: (x, sigma) -> D(x, sigma), and the variance of each number of x0 given x that the
        prior predicts beside it, both (B, *E); None where it predicts none.
    anisotropic: the denoiser under noise that need not be white; white noise alone for most
        networks.
    closed: log_prob, draw_given, condition and sample in closed form; None where there is none.
    leaves: () -> what ``Prior.at`` takes, by name, with its shape.
    patch: the side of the patches of a partition that ``Prior.at(offset=...)`` moves; None for a
        prior of whole images.
    views: the priors of the same images whose weighted mean the denoiser is; none for any other.
    adjustable: () -> the leaves that may be any real numbers, by name, at their values: what a
        method adapts to a measurement, as the weights of a network.
    text: what turns a sentence into leaves; None for a prior that reads none.
    passes: how often the network runs for one call of the denoiser; 2 under guidance.
    guided: (x, sigma) -> D(x, sigma), the denoised image without the condition, and the map u ->
        (dD/dx)^T u, at two network passes; None for a prior without guidance.
    """

    name: str
    variance: float
    max_std: float
    sigma_min: float
    sigma_max: float
    error: Callable[[Tensor | float], float]
    ladder: Callable[[], Tensor]
    anisotropic: Anisotropic
    spectrum: Callable[[Tensor | float], Tensor] | None = None
    covariance: CovarianceOf | None = None
    predicted: Predicted | None = None
    closed: ClosedForm | None = None
    leaves: Callable[[], dict[str, Sides]] = dict
    patch: int | None = None
    views: tuple[Prior, ...] = ()
    adjustable: Callable[[], dict[str, Tensor]] = dict
    text: TextEncoder | None = None
    passes: int = 1
    guided: Guided | None = None

    def max_variance(self, sigma: Tensor | float) -> float:
        """c sigma^2 / (c + sigma^2), c = max_std^2: the variance of x0 given x along the direction
        in which images differ most, as if the prior were Gaussian. A bound of its mean over x;
        between the modes of a mixture it may be exceeded at single x."""
        return white_error(self.max_std**2, sigma)

    def open_variance(self, sigma: Tensor | float) -> float:
        """(2 w + error(sigma)) / 3, w = c sigma^2 / (c + sigma^2), c = variance: the variance of x0
        given x where images are open, of priors that know no more than ``error``.

        Edges and strokes are open, with variances up to w; what surrounds them is known, and lowers
        the mean error and nothing else. The mean of a variance that lies evenly in [0, w], weighted
        by itself, is 2 w / 3; where all is equally open, as of white images, error(sigma) is w, and
        so is this.
        """
        return (2 * white_error(self.variance, sigma) + self.error(sigma)) / 3

    def spectral_error(self, sigma: Tensor | float) -> Tensor:
        """``spectrum`` at sigma. Raises ``TypeError`` where it is not known."""
        if self.spectrum is None:
            raise TypeError(
                f"a {self.name} prior does not know its error at each frequency; "
                "closed-form priors do"
            )
        return self.spectrum(sigma)

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """``predicted`` at x and sigma. Raises ``TypeError`` for a prior that predicts no
        variance."""
        if self.predicted is None:
            raise TypeError(f"a {self.name} prior predicts no variance beside the denoised image")
        return self.predicted(x, sigma)

    def denoise_under(self, mu: Tensor, covariance: NoiseCovariance) -> Tensor:
        """E[x0 | x0 + Sigma^(1/2) z = mu], ``anisotropic``'s: (B, *E). Raises ``TypeError`` for a
        prior that has no denoiser under noise of this covariance."""
        refusal = self.anisotropic.refuses(covariance)
        if refusal is not None:
            raise TypeError(refusal)
        return self.anisotropic.denoise(mu, covariance)

    def exact(self, what: str) -> ClosedForm:
        """``closed``, which is asked for ``what``: "density", "p(x0 | x)", "posterior". Raises
        ``TypeError`` where there is none."""
        if self.closed is None:
            raise TypeError(
                f"a {self.name} prior has no closed-form {what}{REMEDIES.get(what, '')}"
            )
        return self.closed

    def without_closed_form(self) -> Knowledge:
        return replace(self, closed=None)


def white_error(variance: float, sigma: Tensor | float) -> float:
    """c sigma^2 / (c + sigma^2): the error of the exact denoiser of white images of variance c."""
    s2 = float(sigma) ** 2
    return variance * s2 / (variance + s2)


def levels_within(levels: Tensor, sigma_min: float, sigma_max: float) -> Tensor:
    """The levels that lie between a prior's sigma_min and sigma_max. Raises ``ValueError`` where
    none does."""
    inside = levels[(levels >= sigma_min * (1 - 1e-6)) & (levels <= sigma_max * (1 + 1e-6))]
    if not len(inside):
        raise ValueError(
            f"none of the levels {float(levels[0]):.3g} to {float(levels[-1]):.3g} "
            f"of a ddpm grid lies between {sigma_min:.3g} and {sigma_max:.3g}, "
            "the limits of the prior; use grid='karras'"
        )
    return inside
