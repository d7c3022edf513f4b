"""What a caller says about a file, and what was found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from posteriori.priors.base import Prior
from posteriori.priors.network import Network, Parametrization, Precision
from posteriori.priors.schedule import DiscreteVP, Schedule

Named = Literal["linear", "cosine", "scaled-linear"]
_NAMED = {
    "linear": DiscreteVP.linear,
    "cosine": DiscreteVP.cosine,
    "scaled-linear": DiscreteVP.scaled_linear,
}


@dataclass(frozen=True)
class Stated:
    """What the caller of ``load`` states; None where the file is to say it. Fields as the
    parameters of ``load``."""

    shape: tuple[int | None, ...] | None = None
    range: tuple[float, float] | None = None
    variance: float | None = None
    parametrization: Parametrization | None = None
    schedule: Schedule | Named | None = None
    sigma_data: float | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    train_size: int | tuple[int, int] | None = None
    heads: int | None = None
    head_channels: int | None = None
    new_order: bool | None = None
    label: int | None = None
    autocast: Precision | None = None
    config: str | Path | None = None

    def only(self, what: str, *known: str) -> None:
        """Raise ``ValueError`` naming what was stated beside the ``known``, for a file that has no
        use for it."""
        foreign = [
            f.name
            for f in fields(self)
            if getattr(self, f.name) is not None and f.name not in known
        ]
        if foreign:
            raise ValueError(f"{what} does not take {', '.join(foreign)}: the file says it, or has "
                             f"nothing of the kind; it takes {', '.join(known)}")  # fmt: skip

    def given(self, *names: str) -> dict[str, Any]:
        """Those of the named fields that were stated."""
        return optional(**{name: getattr(self, name) for name in names})

    def levels(self, usual: Schedule | None) -> Schedule | None:
        """The schedule that was stated, by name or as one; ``usual`` otherwise."""
        if isinstance(self.schedule, str):
            if self.schedule not in _NAMED:
                raise ValueError(
                    f"unknown schedule {self.schedule!r}; known are {', '.join(_NAMED)}, "
                    "or an object such as priors.ContinuousVP()"
                )
            return _NAMED[self.schedule]()
        return usual if self.schedule is None else self.schedule

    @property
    def size(self) -> tuple[int, int] | None:
        """``train_size`` of a square by its side."""
        side = self.train_size
        return (side, side) if isinstance(side, int) else side


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, by their names within the network.

    source: the file, for messages. origin: in which precision they are kept. notes: what
    was decided on the way. told: what a pickled module around the network says, its "class" among
    it.
    """

    state: Mapping[str, Tensor]
    source: str
    origin: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A prior, and what it was taken for.

    architecture: the network in words. weights: where they lay, in which precision. notes: what was
    decided that the file does not say.
    """

    prior: Prior
    architecture: str
    weights: str = ""
    notes: tuple[str, ...] = ()

    def lines(self) -> list[tuple[str, str]]:
        """Title and text of each thing that was recognised."""
        rows = [("architecture", self.architecture)]
        if isinstance(self.prior, Network):
            rows += _of_network(self.prior)
        if self.weights:
            rows.append(("weights", self.weights))
        return rows + [("note", text) for text in self.notes]


def _of_network(prior: Network) -> list[tuple[str, str]]:
    levels = f"sigma {prior.sigma_min:.4g} to {prior.sigma_max:.4g}"
    shape = ", ".join("any" if n is None else str(n) for n in prior.shape)
    sizes = f"({shape})"
    if prior.train_size is not None:
        sizes += f", trained on {prior.train_size[0]} x {prior.train_size[1]}"
    if prior.multiple > 1:
        sizes += f", sides padded to multiples of {prior.multiple}"
    rows = [
        ("parametrisation", prior.parametrization
         + ("" if prior.schedule else f", sigma_data {prior.sigma_data:g}")),
        ("schedule", f"{'none' if prior.schedule is None else prior.schedule.name}; {levels}"),
        ("range", "not stated" if prior.range is None else f"[{prior.range[0]:g}, "
                                                           f"{prior.range[1]:g}]"),
        ("sizes", sizes),
    ]  # fmt: skip
    if prior.conditions:
        given = {name: value.tolist() for name, value in prior.given.items()}
        rows.append(("conditions", ", ".join(
            f"{name} = {given[name]}" if name in given else f"{name} (give it by prior.at)"
            for name in prior.conditions)))  # fmt: skip
    return rows


def parameters(net: nn.Module) -> str:
    """ "93.6 M parameters"."""
    count = sum(p.numel() for p in net.parameters())
    return f"{count / 1e6:.3g} M parameters" if count >= 1e5 else f"{count} parameters"


def optional(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
