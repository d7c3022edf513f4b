"""What methods whose rows are clouds of weighted particles have in common: how many rows, what is
returned, the evidence."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Method
from posteriori.methods.smc import particles
from posteriori.methods.smc.particles import Particles, Scheme
from posteriori.rng import Rng

_S = TypeVar("_S")


class ParticleMethod(Method[_S]):
    """A method of clouds; its settings have at least the three names below. The state is the cloud,
    or holds it: see ``cloud``."""

    # Annotations only: each method declares its own settings, in its own order.
    particles: Any
    scheme: Scheme
    single: bool

    @property
    def group(self) -> int:
        return int(self.particles)

    @property
    def returned(self) -> int:
        return 1 if self.single else self.group

    def cloud(self, state: _S) -> Particles:
        """The cloud of a state; by default the state itself."""
        return cast(Particles, state)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> _S:
        return cast(_S, particles.start(x, self.particles))

    def rows(self, state: _S) -> Tensor:
        return self.cloud(state).x

    def finish(self, post: Posterior, state: _S, rng: Rng) -> tuple[Tensor, Tensor]:
        return particles.collect(self.cloud(state), rng, self.returned, self.scheme)

    def log_evidence(self, post: Posterior, state: _S) -> Tensor | None:
        """(G,) log of the unbiased estimate of p(y) by each cloud."""
        return particles.log_evidence(self.cloud(state)) + post.log_volume
