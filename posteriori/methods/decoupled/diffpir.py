"""DiffPIR: denoise, move the estimate towards the data by a proximal step, put noise back.

    D_y = argmin_u ||y - A u||^2 / sigma_y^2 + lam ||u - D||^2 / sigma^2
        = D + r2 A^T (r2 A A^T + sigma_y^2 I)^-1 (y - A D),     r2 = sigma^2 / lam
    x'  = D_y + s ( sqrt(1 - zeta) (x - D_y) / sigma + sqrt(zeta) z )

Reference: Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool, Denoising diffusion models for plug-and-play image restoration, 2023,
algorithm 1.
Cost per step: one denoiser, one solve; no back-propagation through the denoiser.
Assumes: linear A, Gaussian noise.
Exact when: never; nearly so for a white prior with lam = 1 and small zeta. With zeta = 1 the variance halves (see ConstantFraction).
Departs from the authors' code: sigma_y and sigma are in the same unit (theirs differ by a factor 2, so that their lam = 1 is 1/4
here), and the run ends with D_y rather than with an image that still holds the last noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.kernels import ConstantFraction, Transition
from posteriori.rng import Noise


@dataclass(frozen=True)
class DiffPIR(Method[Tensor]):
    """Plug-and-play restoration with weight ``lam`` on the prior and a share ``zeta`` of fresh noise (in ``transition``)."""

    lam: float = 1.0
    transition: Transition = ConstantFraction(zeta=0.1)

    reference: ClassVar[str] = "zhu2023diffpir"
    family: ClassVar[str] = "decoupled"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 denoiser, 1 solve"
    claims: ClassVar[frozenset[str]] = frozenset({"moves only in the range of A^T"})

    def __post_init__(self) -> None:
        if not self.lam > 0:
            raise ValueError(f"DiffPIR: lam must be > 0, got {self.lam}")

    @classmethod
    def published(cls) -> DiffPIR:
        """The authors' deblurring setting (their lam = 1, zeta = 0.1), in consistent units; meant for 100 steps and ``grid="ddpm"``."""
        return cls(lam=0.25, transition=ConstantFraction(zeta=0.1))

    def step(self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Noise) -> tuple[Tensor, Info]:
        return self.transition(lambda x, level: self.denoise(post, x, level), state, sigma, s, rng), {}

    def denoise(self, post: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        """D_y(x, sigma): (B, *E)."""
        x0 = post.prior.denoise(x, sigma)
        r2 = sigma**2 / self.lam
        return x0.add(post.likelihood.widen(r2).score(x0), alpha=float(r2))
