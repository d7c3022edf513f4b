"""What a method is: a frozen set of hyper-parameters and one pure step from a noise level to a
lower one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.courses import course_of
from posteriori.operators.base import closed_spectrum
from posteriori.rng import Rng, Streams
from posteriori.settings import Checked

S = TypeVar("S")
HEEDED = "DAPS, PnPDM, DPS, FreeDoM, LGDMC, MGPS and Bootstrap do as they are by default"
Info = dict[str, Tensor]


@dataclass(frozen=True)
class Method(Generic[S], metaclass=Checked):
    """A posterior sampler, driven by ``posteriori.sample``. Sub-classes are final: frozen
    dataclasses of hyper-parameters.

    Settings are checked when a method is constructed, see ``posteriori.settings``. Only ``step``
    must be written. Of the class attributes below a method of the library states all, which
    ``check_method`` asks for, and one of your own as many as you like.

    The state S is a tensor, or a (named) tuple or dataclass of tensors; the driver saves and
    restores it without knowing it. Rows of different groups must not influence each other. ``Info``
    holds what a person may want to see of a step, one number per row; an "ess" of 0 tells the
    driver that a cloud has lost all its weight.

    Class attributes
    ----------------
    reference: BibTeX key in posteriori/references.bib.
    family: the room it lives in.
    needs: what the problem must offer.
        "linear"          an A that is linear
        "gaussian"        Gaussian noise of any level
        "noisy"           Gaussian noise of a level > 0
        "density"         noise of any law but a level of 0
        "unbounded"       a law that knows every A x; photon counts, which know none below 0, do not
                          where A is linear
        "closed form"     a prior in closed form
        "spectrum"        of the operator, in closed form
        "pseudo-inverse"  of the operator, linear or not
        "images"          nothing; the measurement is also met on images as the user states them, so
                          that ``sample_each`` draws one measurement after another
    cost: calls per step, in words.
    claims: what is proven and tested of the default setting: keys of ``posteriori.testing.CLAIMS``.
    """

    reference: ClassVar[str] = ""
    family: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    cost: ClassVar[str] = ""
    claims: ClassVar[frozenset[str]] = frozenset()

    @property
    def group(self) -> int:
        """Rows that may interact (the particles of one cloud); the driver never splits a group."""
        return 1

    @property
    def returned(self) -> int:
        """Samples that a group of rows gives, at most ``group``; all of its rows by default."""
        return self.group

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> S:
        """The state at the largest noise level, from images x (B, *E) drawn there. By default the
        images themselves."""
        return x  # type: ignore[return-value]

    @abstractmethod
    def step(self, post: Posterior, state: S, sigma: Tensor, s: Tensor, rng: Rng) -> tuple[S, Info]:
        """From noise level sigma to s < sigma (0-d tensors); s = 0 is the last step."""

    def rows(self, state: S) -> Tensor:
        """The images of a state, (B, *E)."""
        assert isinstance(state, Tensor)
        return state

    def weights(self, post: Posterior, state: S) -> Tensor:
        """Log-weights of the final rows, (B,); 0 for a method whose rows count alike."""
        return self.rows(state).new_zeros(len(self.rows(state)), dtype=torch.float64)

    def levels(self, post: Posterior, steps: int) -> Tensor | None:
        """The noise levels that this method asks for when the user names none: sigmas that fall and
        end at 0, or None to leave it.

        Those of its paper for a published setting, see ``posteriori.methods.courses``.
        """
        course = course_of(self)
        return None if course is None else course.levels(post, steps)

    def phase(self, post: Posterior, sigma: Tensor, s: Tensor) -> Hashable:
        """What tells apart steps from sigma to s that take different calls, of each of which a
        ``plan`` times one. One phase by default."""
        return None

    def finish(self, post: Posterior, state: S, rng: Rng) -> tuple[Tensor, Tensor]:
        """The samples, ``returned`` of each group in the order of the groups, and their
        log-weights. The rows themselves by default."""
        return self.rows(state), self.weights(post, state)

    def log_evidence(self, post: Posterior, state: S) -> Tensor | None:
        """An estimate of log p(y), or a lower bound of it, from each group: (groups,) float64. None
        for a method that makes none."""
        return None

    @property
    def requires(self) -> frozenset[str]:
        """``needs`` of this setting; larger for some settings of some methods."""
        return self.needs

    def refuses(self, post: Posterior) -> str | None:
        """Why this method cannot work on a posterior, in one sentence; None when it can."""
        name, needs, given = type(self).__name__, self.requires, post.likelihood
        try:
            if "linear" in needs:
                post.given.linear, given.linear  # noqa: B018
            if "spectrum" in needs:
                closed_spectrum(given.linear)
            if "pseudo-inverse" in needs:
                given.A.pseudo_inverse(given.each)
            if needs & {"gaussian", "noisy"}:
                given.std  # noqa: B018
            if needs & {"density", "noisy"} and given.noise.std == 0:
                return (
                    f"{name}: the noise level is 0; give the smallest level you trust, for "
                    f"example 1e-3 of the range"
                )
            low, high = given.noise.support
            if (
                "unbounded" in needs
                and post.given.A.affine
                and not (math.isinf(low) and math.isinf(high))
            ):
                law = type(given.noise).__name__
                return (
                    f"{name}: {law} noise knows only A x in [{low:g}, {high:g}], which this "
                    f"setting does not heed; {HEEDED}"
                )
            if "closed form" in needs:
                x = given.A.probe(torch.zeros, dtype=given.y.real.dtype)
                post.prior.know().exact("p(x0 | x)").draw_given(
                    x, torch.tensor(1.0), Streams(0, [0])
                )
        except TypeError as error:
            return f"{name}: {error}"
        return None


def method_settings(method: Method[Any]) -> dict[str, Any]:
    """Hyper-parameters by name, nested dataclasses included; one without fields is its name, so
    that two of them differ."""
    parts = {field.name: getattr(method, field.name) for field in fields(method)}
    bare = {
        name: type(part).__name__
        for name, part in parts.items()
        if is_dataclass(part) and not fields(part)
    }
    return asdict(method) | bare
