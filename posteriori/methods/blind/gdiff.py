"""Gibbs diffusion: image, instrument and noise level are drawn in turn, each given the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import real_view
from posteriori.methods.base import Info, Method
from posteriori.methods.blind.beliefs import belief_refusal, drawn_beliefs, move_parameters
from posteriori.methods.blind.collapsed import collapses, move_collapsed
from posteriori.methods.blind.pair import BlindPair, blind_pair, linear_pair_refusal
from posteriori.methods.decoupled.pnpdm import PnPDM
from posteriori.packing import in_a_row
from posteriori.rng import Rng
from posteriori.settings import Count, Natural, NonNegative


class GibbsState(NamedTuple):
    """u (B, d) and the noise level of y for each row, (B,)."""

    u: Tensor
    noise: Tensor


@dataclass(frozen=True)
class GibbsDiffusion(Method[GibbsState]):
    """Gibbs sampling of image, instrument and noise level: the image, the parameters of the
    instrument and the noise level are drawn in turn, each given the others.

        z     ~ p(z) N(z; x, rho^2 I)               the diffusion prior, run from rho down to 0
        phi   ~ p(phi) N(y; A(z; phi), S)           elliptical slices, x being integrated over
        x     ~ N(x; z, rho'^2 I) p(y | x, phi, s)  a Gaussian draw
        s^-2  ~ Gamma((t + m) / 2, (t s_0^2 + ||y - A(x; phi)||^2) / 2)
        rho   = max(sigma, floor)
        rho'  = the same of the next level
        S     = s^2 I + rho'^2 A A^T                A at phi

    Where y is linear in phi, or S has no closed form, phi is drawn given x and after it:

        phi   ~ p(phi) p(y | x, phi, s)             a Gaussian draw where y is linear in phi,
                                                    elliptical slices otherwise

    x and z are the two images, phi the parameters, sigma the noise level of the run, s that of y,
    m the count of real numbers in y.

    s_0 is the stated noise level, which counts as much as ``trust`` = t measured numbers: its prior
    is an inverse gamma law of s^2. trust 0 takes it for known. At a fixed rho this is a Gibbs
    sampler of p(z) N(x; z, rho^2 I) p(y | x, phi, s) p(phi) p(s), whose law of phi and s is that of
    the posterior up to the spring: y ~ N(A z, S) in the place of N(A z, s^2 I).

    A width hardly moves given x, since a wide blur of a rough image measures as a narrow one of a
    smooth image; with x integrated over it does. At the last step it is drawn given z.

    prior: how z is drawn, "diffusion" or "exact" as of ``PnPDM``; "diffusion" by default.
    prior_steps: levels of the prior's grid as of ``PnPDM``, >= 1; 20 by default.
    trust: how many measured numbers the stated noise level counts as, 0 (default) for a level that
        is known.
    sweeps: over all unknowns at each level, >= 1; 1 by default.
    moves: of the parameters in a sweep, >= 1; 2 by default.
    floor: the smallest rho as of ``PnPDM``, >= 0; 0 by default.
    collapsed: whether phi is drawn with x integrated over where S has a closed form, which it has
        for a blur that repeats the image beyond its border, and for real images of at most 100
        numbers; true by default.

    The trace "noise" holds the noise level of each row at each step.

    Raises ``ValueError`` for a setting out of its range.

    Reference: Heurtel-Depeiges, Margossian, Ohana, Regaldo-Saint Blancard, Listening to the noise:
        blind denoising with Gibbs diffusion, 2024, algorithm 1; the split of the image's draw is
        that of ``PnPDM``.
    Cost per step: ``sweeps`` times as many denoisers of the pair as ``prior_steps`` levels lie
        below rho, one solve by row, ``moves`` times a few operators.
    Assumes: a ``Parametric`` instrument that is linear in the image, Gaussian noise, a ``Joint``
        prior whose belief in the parameters is one Gaussian, or a mixture where y is linear in
        them.
    Exact when: rho tends to 0 slowly, with enough ``prior_steps`` and sweeps: image and parameters
        move each other by little where rho is far below the noise, so that most sweeps belong
        around the level of the noise, and ``floor`` stops there.
    Departs from the paper: the image's conditional sampler is a split Gibbs step rather than a
        whole run of a conditional network, the chain for phi has no step size, and the instrument,
        not only the noise, has parameters, which are drawn without x where that is possible.
    """

    prior: Literal["diffusion", "exact"] = "diffusion"
    prior_steps: Count = 20
    trust: Natural = 0
    sweeps: Count = 1
    moves: Count = 2
    floor: NonNegative = 0.0
    collapsed: bool = True

    reference: ClassVar[str] = "heurtel2024gdiff"
    family: ClassVar[str] = "blind"
    needs: ClassVar[frozenset[str]] = frozenset({"gaussian", "noisy"})
    cost: ClassVar[str] = "up to 20 denoisers, 1 solve"

    @property
    def requires(self) -> frozenset[str]:
        return self.needs | ({"closed form"} if self.prior == "exact" else set())

    def refuses(self, post: Posterior) -> str | None:
        said = linear_pair_refusal(post, "GibbsDiffusion")
        return said or belief_refusal(post, "GibbsDiffusion") or super().refuses(post)

    def rows(self, state: GibbsState) -> Tensor:
        return state.u

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> GibbsState:
        pair = blind_pair(post)
        image, phi = pair.split(x)
        drawn = drawn_beliefs(pair, phi, rng)
        return GibbsState(in_a_row((image, drawn / pair.units[1])), pair.noise(len(x)))

    def step(
        self, post: Posterior, state: GibbsState, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[GibbsState, Info]:
        pair, priors = blind_pair(post), PnPDM(prior=self.prior, prior_steps=self.prior_steps)
        rho, ahead = sigma.clamp(min=self.floor), s.clamp(min=self.floor)
        for k in range(self.sweeps):
            drawn = priors.draw_prior(post, state.u, rho, rng)
            z, phi = pair.split(drawn)[0], pair.split(state.u)[1]
            last = not float(s) > 0 and k == self.sweeps - 1
            if last:
                u = in_a_row((z, phi))
                if self._collapses(pair):
                    u = self._moved(pair, u, state.noise, rng)
                return GibbsState(u, state.noise), {"noise": state.noise}
            # The spring is loosened for the next level, where there is one, by the last sweep.
            spring = float(ahead if k == self.sweeps - 1 else rho)
            state = self._data(pair, z, phi, state.noise, spring, rng)
        return state, {"noise": state.noise}

    def _data(
        self, pair: BlindPair, z: Tensor, phi: Tensor, noise: Tensor, rho: float, rng: Rng
    ) -> GibbsState:
        """x, phi and the noise level given z, phi as it lies in u."""
        c, d = pair.units
        r2, collapses = (c * rho) ** 2, self._collapses(pair)
        if collapses:
            phi = move_collapsed(pair, c * z, d * phi, r2, noise, rng, self.moves) / d
        told = pair.told(in_a_row((z, phi)))[1]
        u = in_a_row((pair.draw_images(c * z, told, r2, noise, rng) / c, phi))
        if not collapses:
            u = self._moved(pair, u, noise, rng)
        return GibbsState(u, draw_noise(pair, u, noise, self.trust, rng))

    def _collapses(self, pair: BlindPair) -> bool:
        return self.collapsed and collapses(pair)

    def _moved(self, pair: BlindPair, u: Tensor, noise: Tensor, rng: Rng) -> Tensor:
        """u with its parameters moved given its image."""
        d, (image, phi) = pair.units[1], pair.split(u)
        seen = pair.told(u)[0]
        return in_a_row((image, move_parameters(pair, seen, d * phi, noise, rng, self.moves) / d))


def draw_noise(pair: BlindPair, u: Tensor, noise: Tensor, trust: int, rng: Rng) -> Tensor:
    """The noise level of each row given image and parameters, (B,); as it was where it is known."""
    if trust == 0:
        return noise
    like = pair.post.likelihood
    residual = real_view(like.y - like.A(u)).flatten(1)
    # A sum of n squared normal numbers is twice a Gamma(n / 2).
    n, stated = trust + residual.shape[1], like.std
    square = trust * stated**2 + residual.square().sum(1)
    return (square / rng.normal(torch.zeros_like(u[:, :1]).expand(-1, n)).square().sum(1)).sqrt()
