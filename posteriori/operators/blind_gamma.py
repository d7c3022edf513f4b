"""A tone curve of unknown exponent."""

from __future__ import annotations

from torch import Tensor

from posteriori.linalg import per_row
from posteriori.operators.gamma import Gamma, tone_curve
from posteriori.operators.parametric import Parametric
from posteriori.settings import Positive

# |log exponent| is held to this: from a twentieth to the twentieth power.
STEEPEST_LOG = 3.0


class BlindGamma(Parametric):
    """y = x^g in every pixel, with the tangent of ``Gamma`` below ``toe``.

    shape: of the image, in linear light with black at 0. The parts are "image" and "log_gamma"
    (1,), the natural logarithm of g, held to [-3, 3]: any number is an exponent, and a Gaussian
    prior of it a log-normal one of g. y is linear in neither; ``at(log_gamma)`` is a ``Gamma``.
    """

    linear_in_image = False

    def __init__(self, shape: tuple[int, ...], toe: Positive = 0.01) -> None:
        super().__init__(shape, "log_gamma", (1,))
        self.toe = toe

    def exponent(self, phi: Tensor) -> Tensor:
        """g of log_gamma, of the same shape."""
        return phi.clamp(-STEEPEST_LOG, STEEPEST_LOG).exp()

    def apply(self, x: Tensor, phi: Tensor) -> Tensor:  # type: ignore[override]
        each = per_row(self.exponent(phi).expand(len(x), 1)[:, 0], x)
        return tone_curve(x, each, self.toe)

    def read(self, phi: Tensor) -> dict[str, Tensor]:
        return {"exponent": self.exponent(phi)}

    def at(self, phi: Tensor) -> Gamma:
        return Gamma(self.image_shape, float(self.exponent(phi.detach())), self.toe)
