"""What we believe about images, seen only as a denoiser: D(x, sigma) = E[x0 | x0 + sigma z = x]."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from posteriori import identity
from posteriori.chart import AffineChart, Chart
from posteriori.priors.schedule import DiscreteVP
from posteriori.rng import Noise
from posteriori.settings import Checked

if TYPE_CHECKING:
    from posteriori.priors.frequencies import Covariance

Pull = Callable[[Tensor], Tensor]


class Prior(nn.Module, metaclass=Checked):
    """A distribution of images in VE coordinates. A prior author writes ``denoise``.

    Attributes
    ----------
    shape: E, with None for a side of any length (a fully convolutional network).
    range: the range its images are expressed in, for example (-1, 1); None when the numbers have no such meaning.
    variance: variance of one number of an image, averaged over the image.
    spread: standard deviation along the direction in which images differ most; sigma_max where it is not known.
    sigma_max, sigma_min: where a sampling grid may start and should end. sigma_max must drown the prior's largest spread in *any*
        direction; sigma_min must be small against its smallest.
    complex: whether images are complex tensors.
    """

    def __init__(
        self,
        shape: tuple[int | None, ...],
        *,
        range: tuple[float, float] | None = None,
        variance: float,
        sigma_max: float,
        sigma_min: float,
        spread: float | None = None,
        complex: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.range, self.variance = tuple(shape), range, float(variance)
        self.sigma_max, self.sigma_min, self.complex = float(sigma_max), float(sigma_min), complex
        self.spread = float(sigma_max if spread is None else spread)
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"a prior needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")

    def chart(self, range: tuple[float, float] | None, shape: tuple[int, ...]) -> Chart:
        """The map from this prior's coordinates to a user's images of ``shape``, in the range that
        a likelihood states. Raises ``ValueError`` where only the prior has a range."""
        if self.range is None:
            return AffineChart(1.0, 0.0, shape, range)
        if range is None:
            raise ValueError(
                f"the prior models images in the range {self.range}; say in which range the "
                "measurement is expressed, for example Likelihood(..., range=(0, 1)) or "
                f"range={self.range}"
            )
        return AffineChart.between(self.range, range, shape)

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] for x (B, *E) at the noise level sigma (0-d): (B, *E)."""

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        """D(x, sigma), and the map u -> J^T u with J = dD/dx, which may be called several times.

        The map keeps the denoiser's graph alive until it is dropped.
        """
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            x0 = self.denoise(leaf, sigma)
        if not x0.requires_grad:  # a constant denoiser
            return x0, torch.zeros_like

        def pull(u: Tensor) -> Tensor:
            return torch.autograd.grad(x0, leaf, u, retain_graph=True)[0]

        return x0.detach(), pull

    def error(self, sigma: Tensor | float) -> float:
        """E ||x0 - D(x, sigma)||^2 / d: the mean variance of x0 given x. By default that of white images, c sigma^2 / (c + sigma^2)."""
        s2 = float(sigma) ** 2
        return self.variance * s2 / (self.variance + s2)

    def widest_error(self, sigma: Tensor | float) -> float:
        """c sigma^2 / (c + sigma^2), c = spread^2: the variance of x0 given x along the direction in which images differ most, as if the
        prior were Gaussian. A bound of its mean over x; between the modes of a mixture it may be exceeded at single x."""
        c, s2 = self.spread**2, float(sigma) ** 2
        return c * s2 / (c + s2)

    def spectral_error(self, sigma: Tensor | float) -> Tensor:
        """E (F (x0 - D(x, sigma)))^2 of each frequency, F being ``linalg.cosine``: shape E. Raises ``TypeError`` where it is not known."""
        raise TypeError(f"a {type(self).__name__} prior does not know its error at each frequency; closed-form priors do")

    def covariance_of_error(self, sigma: Tensor | float, shape: tuple[int, ...]) -> Covariance | None:
        """E (x0 - D)(x0 - D)^T by colour and frequency for images of ``shape``; None where it has not been measured."""
        return None

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """D(x, sigma), and the variance of each number of x0 given x that the prior predicts beside it: both (B, *E).

        Raises ``TypeError`` for a prior that predicts none.
        """
        raise TypeError(f"a {type(self).__name__} prior predicts no variance beside the denoised image")

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """log density of x0 + sigma z at x: (B, *E) -> (B,). Raises ``TypeError`` for a prior that is not known in closed form."""
        raise TypeError(f"a {type(self).__name__} prior has no closed-form density; posteriori.priors.log_density integrates it")

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Images at the noise level sigma, as a function of standard normal numbers z (B, *E)."""
        return sigma * z

    def ladder(self) -> Tensor:
        """Noise levels at equal distances in the time of training, rising, (K,) float64: what a "ddpm" grid chooses from. A linear-beta
        DDPM's by default, those between sigma_min and sigma_max."""
        return self.within(DiscreteVP.linear().ladder())

    def within(self, levels: Tensor) -> Tensor:
        """The levels that lie between sigma_min and sigma_max. Raises ``ValueError`` where none does."""
        inside = levels[(levels >= self.sigma_min * (1 - 1e-6)) & (levels <= self.sigma_max * (1 + 1e-6))]
        if not len(inside):
            raise ValueError(
                f"none of the levels {float(levels[0]):.3g} to {float(levels[-1]):.3g} of a ddpm grid lies between {self.sigma_min:.3g} "
                f"and {self.sigma_max:.3g}, the limits of the prior; use grid='karras'"
            )
        return inside

    def draw_given(self, x: Tensor, sigma: Tensor, rng: Noise) -> Tensor:
        """An exact draw of x0 given x = x0 + sigma z. Raises ``TypeError`` for a prior that is not known in closed form."""
        raise TypeError(f"a {type(self).__name__} prior has no closed-form p(x0 | x)")

    def condition(self, matrix: Tensor, y: Tensor, sigma: float) -> tuple[Prior, float]:
        """The posterior given y = matrix x0 + sigma z as a prior, and log p(y). Raises ``TypeError`` where that is not closed form."""
        raise TypeError(f"a {type(self).__name__} prior has no closed-form posterior")

    def sample(self, n: int, seed: int = 0, *, steps: int = 50, shape: tuple[int, ...] | None = None) -> Tensor:
        """n images of the prior itself, in its own range: (n, *E), the k-th a function of (seed, k).

        By the probability-flow ODE in ``steps`` steps of Heun's rule, at two denoiser calls a step; closed-form priors draw exactly.
        shape: E, for a prior of images of any size. Raises ``ValueError`` when it is missing, or no shape of this prior.
        """
        from posteriori.sample import draw_prior

        return draw_prior(self, n, seed, steps, shape)

    def record(self) -> dict[str, Any]:
        """What this prior is by content, as JSON values; see ``posteriori.identity``. To be overridden where numbers live elsewhere."""
        return identity.content(self)

    def __repr__(self) -> str:
        sides = ", ".join("any" if n is None else str(n) for n in self.shape)
        where = f", range [{self.range[0]:g}, {self.range[1]:g}]" if self.range is not None else ""
        kind = ", complex" if self.complex else ""
        return f"{type(self).__name__}([{sides}]{kind}{where}, sigma {self.sigma_min:.3g} to {self.sigma_max:.3g})"

    def at_work(self, device: torch.device, dtype: torch.dtype) -> Prior:
        """This prior on a device, for images of the precision ``dtype`` (float32 or float64): itself where nothing changes, else a copy."""
        tensors = [*self.parameters(), *self.buffers()]
        same = all(t.device == device and (t.dtype.to_real() == dtype or not t.is_floating_point()) for t in tensors)
        return self if same else copy.deepcopy(self).to(device=device, dtype=dtype)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.denoise(x, sigma)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise ``ValueError`` naming both shapes when this prior has no images of that shape."""
        if len(shape) != len(self.shape) or any(want not in (None, got) for want, got in zip(self.shape, shape, strict=True)):
            wanted = tuple("any" if n is None else n for n in self.shape)
            raise ValueError(f"the operator takes images of shape {shape}, the prior models images of shape {wanted}")
