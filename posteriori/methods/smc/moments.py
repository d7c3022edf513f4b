"""MomentSMC: the reverse kernel, its conditioning on y and its weights all know the first two moments of x0 given x.

With S = sigma^2 J, a = 1 - s^2 / sigma^2, tau^2 = s^2 / a, K = S A^T, V = sigma_y^2 I + A K:

    chain   x0 | x ~ N(D, S),  x' | x0, x = a x0 + (1 - a) x + sqrt(a) s z        its reverse kernel, of covariance a^2 S + a s^2 I
    move    x0 = u + K V^-1 (y + sigma_y z - A u),  u = D + S^(1/2) z              a draw of x0 given x and y; then x' as above
    weight  w' = w N(y; A D', V') / N(y; m, V2)                                    what x' says of y, over what (x, x') said of it:
            m = A D + R^T ((x' - (1 - a) x) / a - D),  V2 = sigma_y^2 I + tau^2 A R,   R = (S + tau^2 I)^-1 K

All densities live among the numbers of y. The last step, to s = 0, is the draw of x0 itself and needs no weight.

Reference: this library's own; twisted diffusion sampling (Wu et al. 2023) with second-order kernels, and the moments of Rozet et al. 2024.
Cost per step: one denoiser, two when it resamples; at most m (1 + ``solves``) + ``roots`` vector-Jacobian products for m numbers of y,
fewer where the solves converge. Before the first step a pilot of 64 particles and 64 levels, which is counted.
Assumes: linear A, Gaussian noise, few numbers of y; J symmetric, as it is for an exact denoiser.
Exact when: the prior is Gaussian, for any number of steps and particles; else for many particles, up to the chain's own kernels, which
err only by the third moments of x0 given x. ``levels`` puts the steps where these matter (see ``pilots``) and ends above the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import cg, root_product
from posteriori.methods import clouds
from posteriori.methods.base import Info, Method
from posteriori.methods.clouds import Cloud, Scheme
from posteriori.methods.pilots import adapted
from posteriori.methods.twists import columns, gaussian, spread
from posteriori.rng import Noise

MOST = 512


@dataclass(frozen=True)
class MomentSMC(Method[Cloud]):
    """See the module. ``single`` returns one sample of each cloud of ``particles``, so that samples are independent."""

    particles: int = 256
    share: float = 0.5
    scheme: Scheme = "systematic"
    solves: int = 8
    roots: int = 8
    pilot: int = 64
    single: bool = False

    reference: ClassVar[str] = "wu2023tds"
    family: ClassVar[str] = "smc"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "noisy"})
    cost: ClassVar[str] = "1 or 2 denoisers, about 5 VJPs per number of y and 5 more, per particle"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @property
    def group(self) -> int:
        return self.particles

    @property
    def returned(self) -> int:
        return 1 if self.single else self.particles

    def refuses(self, post: Posterior) -> str | None:
        y = post.likelihood.y
        if y.is_complex() or post.prior.complex or y.numel() > MOST:
            kind = "complex numbers" if y.is_complex() or post.prior.complex else f"{y.numel()} numbers of y"
            return f"MomentSMC: keeps a real covariance of at most {MOST} numbers of y for each particle, got {kind}; try MMPS or TDS"
        return super().refuses(post)

    def levels(self, post: Posterior, steps: int) -> Tensor:
        # A few times the prior's width: the start, Gaussian with the prior's mean and covariance, is then as good as exact.
        return adapted(post, replace(self, particles=self.pilot, share=0.0), steps, 4 * post.prior.spread)

    def init(self, post: Posterior, x: Tensor, rng: Noise) -> Cloud:
        return clouds.start(x, self.particles)

    def step(self, post: Posterior, state: Cloud, sigma: Tensor, s: Tensor, rng: Noise) -> tuple[Cloud, Info]:
        A, y, noise2, s2 = post.likelihood.linear, post.likelihood.y, post.likelihood.std**2, float(sigma) ** 2
        x0, pull = post.prior.linearize(state.x, sigma)
        K = columns(A, lambda u: s2 * pull(u), state.x, y)
        V = spread(A, K, noise2)
        clean = A(x0)
        log_p = gaussian((y - clean).flatten(1), V)[1]
        axis, along = clouds.leading(x0, self.particles)
        cloud, source, info = clouds.resample(clouds.weigh(state, log_p), rng, self.share, self.scheme, along)
        x = cloud.x
        if not bool((source == torch.arange(len(x), device=source.device)).all()):
            x0, clean, K, V = x0[source], clean[source], K[:, source], V[source]
            _, pull = post.prior.linearize(x, sigma)
        even = partial(clouds.spread_evenly, axis=axis, along=along[source], rng=rng)
        u = x0 + float(sigma) * root_product(pull, even(rng.normal(x), base=2), iterations=self.roots)
        miss = y + noise2**0.5 * rng.normal(clean) - A(u)
        gain = gaussian(miss.flatten(1), V)[0].to(x)
        drawn = u + torch.einsum("bm,mb...->b...", gain, K)
        if not bool(s > 0):
            return clouds.moved(cloud, drawn), info
        a = 1 - float(s) ** 2 / s2
        z = even(rng.normal(x), base=3)
        ahead = a * drawn + (1 - a) * x + a**0.5 * float(s) * z
        tau2 = float(s) ** 2 / a
        R = torch.stack([cg(lambda v: s2 * pull(v) + tau2 * v, k, max_iter=self.solves, rtol=1e-6).x for k in K])
        seen = drawn + (tau2**0.5) * z - x0
        expected = clean.flatten(1) + torch.stack([(r * seen).flatten(1).sum(1) for r in R], 1)
        past = gaussian(y.flatten() - expected, spread(A, tau2 * R, noise2))[1]
        return clouds.weigh(clouds.moved(cloud, ahead), -past), info

    def rows(self, state: Cloud) -> Tensor:
        return state.x

    def finish(self, post: Posterior, state: Cloud, rng: Noise) -> tuple[Tensor, Tensor]:
        return clouds.collect(state, rng, self.returned, self.scheme, clouds.leading(state.x, self.particles)[1])

    def log_evidence(self, post: Posterior, state: Cloud) -> Tensor:
        return clouds.log_evidence(state) + clouds.units(post)
