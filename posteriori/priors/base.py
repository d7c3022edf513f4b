"""What we believe about images, seen only as a denoiser: D(x, sigma) = E[x0 | x0 + sigma z = x]."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from posteriori import identity
from posteriori.chart import AffineChart, Chart
from posteriori.memo import kept
from posteriori.priors.anisotropic import WhiteOnly
from posteriori.priors.knowledge import Knowledge, levels_within, white_error
from posteriori.priors.pulls import through_graph
from posteriori.priors.schedule import linear_ddpm
from posteriori.settings import Checked

Pull = Callable[[Tensor], Tensor]
# Beyond the seeds that people give to runs, so that no sample is an image of a bank.
BANK_SEED = 2**41


class Prior(nn.Module, metaclass=Checked):
    """A distribution of images in VE coordinates. A prior author writes ``denoise``.

    Attributes
    ----------
    shape: E, with None for a side of any length (a fully convolutional network).
    range: the range its images are expressed in, for example (-1, 1); None when the numbers have no
        such meaning.
    variance: variance of one number of an image, averaged over the image.
    max_std: standard deviation along the direction in which images differ most; sigma_max where it
        is not known.
    sigma_max, sigma_min: where a sampling grid may start and should end. sigma_max must drown the
        prior's largest spread in *any* direction; sigma_min must be small against its smallest.
    complex: whether images are complex tensors.
    own_precision: whether its tensors keep their precision whatever that of the images, as a
        network's do.

    What follows from these, and what else is known, is ``know()``.
    """

    own_precision: bool = False

    def __init__(
        self,
        shape: tuple[int | None, ...],
        *,
        range: tuple[float, float] | None = None,
        variance: float,
        sigma_max: float,
        sigma_min: float,
        max_std: float | None = None,
        complex: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.range, self.variance = tuple(shape), range, float(variance)
        self.sigma_max, self.sigma_min, self.complex = float(sigma_max), float(sigma_min), complex
        self.max_std = float(sigma_max if max_std is None else max_std)
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"a prior needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}"
            )

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
        """D(x, sigma), and the map u -> J^T u with J = dD/dx, which may be called several times,
        or with several u at once: see ``posteriori.priors.pulls``.

        The map keeps the denoiser's graph alive until it is dropped.
        """
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            x0 = self.denoise(leaf, sigma)
        if not x0.requires_grad:
            _check_constant(self, leaf.detach(), x0, sigma)
            return x0, torch.zeros_like

        return x0.detach(), through_graph(x0, leaf)

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Images at the noise level sigma, as a function of standard normal numbers z (B, *E)."""
        return sigma * z

    def know(self) -> Knowledge:
        """What this prior knows beside its denoiser. By default that images are white, of the
        stated variance and limits, and that it was trained on the levels of a linear-beta DDPM."""
        return Knowledge(
            name=type(self).__name__,
            variance=self.variance,
            max_std=self.max_std,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
            error=partial(white_error, self.variance),
            ladder=lambda: levels_within(linear_ddpm().ladder(), self.sigma_min, self.sigma_max),
            anisotropic=WhiteOnly(self),
            leaves=self._leaves_known,
            adjustable=lambda: {name: p.detach() for name, p in self.named_parameters()},
        )

    def _leaves_known(self) -> dict[str, tuple[int | None, ...]]:
        return {
            name: tuple(t.shape) for name, t in [*self.named_parameters(), *self.named_buffers()]
        }

    def at(self, /, **leaves: Tensor) -> Prior:
        """This prior with other values of its leaves, which ``know().leaves()`` names with their
        shapes: a view that shares all else.

        A leaf of shape (B, *shape) has a value for each row of a batch of B. By default the leaves
        are the parameters and buffers, by the names of ``named_parameters``, and rows with values
        of their own are denoised one by one. Raises ``ValueError`` for an unknown leaf or another
        shape. ``posteriori.priors.linearize_at`` differentiates with respect to leaves.
        """
        from posteriori.priors.leaves import PriorAt

        return PriorAt(self, leaves) if leaves else self

    def conditioned(
        self,
        text: str | None = None,
        *,
        guidance: float | tuple[float, float] = 1.0,
        negative: str | Mapping[str, Tensor] = "",
        **leaves: Tensor,
    ) -> Prior:
        """This prior given a condition c, with D = D_0 + guidance (D_c - D_0); see
        ``posteriori.priors.conditioned``.

        text: c in words, for a prior with a text encoder; or leaves: c as leaves of ``at``, such as
        ``embedding`` or ``class_labels``. guidance: 1 is D_c, 0 is D_0; other numbers take two
        network passes a call, and a pair is its values at noise and at data. negative: what D_0 is
        told, a text or leaves; the empty text is the prior that is told nothing.
        Raises ``ValueError`` for both or neither of text and leaves, a text where there is no
        encoder, and as ``at`` does.
        """
        from posteriori.priors.conditioned import conditioned

        return conditioned(self, text, guidance, negative, leaves)

    def _linearize_at(
        self, x: Tensor, sigma: Tensor, leaves: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Pull]]:
        """See ``posteriori.priors.linearize_at``."""
        with torch.enable_grad():
            smooth = {
                name: v
                for name, v in {"x": x, **leaves}.items()
                if v.is_floating_point() or v.is_complex()
            }
            tracked = {name: v.detach().requires_grad_() for name, v in smooth.items()}
            x0 = self.at(**{name: tracked.get(name, v) for name, v in leaves.items()}).denoise(
                tracked["x"], sigma
            )

        def pull(name: str, u: Tensor) -> Tensor:
            if not x0.requires_grad:
                return torch.zeros_like(tracked[name])
            grad = torch.autograd.grad(
                x0, tracked[name], u, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            return grad[0]

        return x0.detach(), {name: partial(pull, name) for name in tracked}

    def _linearize_leaves(
        self, x: Tensor, sigma: Tensor, leaves: dict[str, Tensor]
    ) -> tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]]:
        """See ``posteriori.priors.linearize_leaves``."""
        tracked = {name: value.detach().requires_grad_() for name, value in leaves.items()}
        with torch.enable_grad():
            x0 = self.at(**tracked).denoise(x.detach(), sigma)

        def pull(u: Tensor) -> dict[str, Tensor]:
            if not x0.requires_grad:
                return {name: torch.zeros_like(value) for name, value in tracked.items()}
            grads = torch.autograd.grad(
                x0,
                list(tracked.values()),
                u,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            return dict(zip(tracked, grads, strict=True))

        return x0.detach(), pull

    def sample(
        self, n: int, seed: int = 0, *, steps: int = 50, shape: tuple[int, ...] | None = None
    ) -> Tensor:
        """n images of the prior itself, in its own range: (n, *E), the k-th a function of
        (seed, k).

        By the probability-flow ODE in ``steps`` steps of Heun's rule, at two denoiser calls a step;
        closed-form priors draw exactly.
        shape: E, for a prior of images of any size. Raises ``ValueError`` when it is missing, or no
        shape of this prior.
        """
        from posteriori.driver import draw_prior

        closed = self.know().closed
        # A closed form that has no draws of its own inherits these
        if closed is not None and closed is not self:
            return closed.sample(n, seed, steps=steps, shape=shape)
        return draw_prior(self, n, seed, steps, shape)

    def _bank(self, n: int, shape: tuple[int, ...]) -> Tensor:
        return kept(self, ("bank", n, shape), lambda: self.sample(n, BANK_SEED, shape=shape))

    def record(self) -> dict[str, Any]:
        """What this prior is by content, as JSON values; see ``posteriori.identity``. To be
        overridden where numbers live elsewhere."""
        return identity.content(self)

    def __repr__(self) -> str:
        sides = ", ".join("any" if n is None else str(n) for n in self.shape)
        where = f", range [{self.range[0]:g}, {self.range[1]:g}]" if self.range is not None else ""
        kind = ", complex" if self.complex else ""
        return (
            f"{type(self).__name__}([{sides}]{kind}{where}, "
            f"sigma {self.sigma_min:.3g} to {self.sigma_max:.3g})"
        )

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.denoise(x, sigma)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """See ``check_shape``; a prior with more to ask of a shape asks it here."""
        if len(shape) != len(self.shape) or any(
            want not in (None, got) for want, got in zip(self.shape, shape, strict=True)
        ):
            wanted = tuple("any" if n is None else n for n in self.shape)
            raise ValueError(
                f"the operator takes images of shape {shape}, "
                f"the prior models images of shape {wanted}"
            )


def limits_of(prior: Prior) -> dict[str, float]:
    """What the constructor of a prior is told of noise levels and widths: those of another prior,
    for one that wraps it."""
    return {
        name: getattr(prior, name) for name in ("variance", "max_std", "sigma_min", "sigma_max")
    }


def check_shape(prior: Prior, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` naming both shapes when ``prior`` has no images of that shape."""
    prior._check_shape(shape)


def bank_images(prior: Prior, n: int, shape: tuple[int, ...]) -> Tensor:
    """n images of the prior, (n, *shape), made by ``sample`` at the first call and kept with it:
    always the same ones. Calls that make them are not those of a run: a network's images take
    99 n."""
    return prior._bank(n, shape)


def placed(prior: Prior, device: torch.device, dtype: torch.dtype) -> Prior:
    """``prior`` on a device, for images of the precision ``dtype`` (float32 or float64): itself
    where nothing changes, else a copy.

    Priors of ``own_precision``, and those inside others, change their device only.
    """
    fixed = [part for part in prior.modules() if getattr(part, "own_precision", False)]
    kept = {id(t) for part in fixed for t in [*part.parameters(), *part.buffers()]}

    def same(t: Tensor) -> bool:
        return id(t) in kept or t.dtype.to_real() == dtype or not t.is_floating_point()

    tensors = [*prior.parameters(), *prior.buffers()]
    if all(t.device == device and same(t) for t in tensors):
        return prior
    twin = copy.deepcopy(prior).to(device)
    _cast(twin, dtype)
    return twin


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    if not getattr(module, "own_precision", False):
        for part in module.children():
            _cast(part, dtype)
        module._apply(lambda t: t.to(dtype) if t.is_floating_point() else t, recurse=False)


def _check_constant(prior: Prior, x: Tensor, x0: Tensor, sigma: Tensor) -> None:
    """Raise ``TypeError`` where D(x, sigma) = x0 has no graph and is not the same for all x."""
    again = prior.denoise(x + sigma.to(x.real), sigma)
    if not torch.allclose(again, x0, rtol=0, atol=0, equal_nan=True):
        raise TypeError(
            f"{type(prior).__name__}.denoise returns a tensor without a derivative: make it of x "
            f"by torch alone, without detach, item, numpy, no_grad and inference_mode, or take a "
            f"method that asks for no vector-Jacobian products"
        )
