"""The ``prior`` of a problem file.

photos | digits | digits_noise_maps ...     shipped with the package
chest-ct                                    shipped as well, Hounsfield units
brain-mri                                   shipped as well, magnitudes
text-digits                                 shipped as well, handwritten digits by way of latents
{path: PLACE}                               a folder written by ``save_pretrained``, by
                                            ``posteriori train --export`` or ``posteriori import``;
                                            a diffusers folder, or a file of weights of a network
                                            that ``priors.load`` recognises
{diffusers: FOLDER}                         a folder of the diffusers library on this machine
{grey: photos}                              grey images by a prior of colour images: one of the
                                            kinds above
{slices: chest-ct}                          volumes and videos of independent slices: one of the
                                            kinds above
{tiles: {prior: digits, size: 32,           images larger than a prior's by overlapping tiles
         overlap: 8}}
{conditioned: {prior: text-digits,          a prior that is told what its images show, under
               text: a bold nine,           classifier-free guidance: one of the kinds above, with
               guidance: 2.0,               a text encoder
               negative: a four}}
{ambient: {path: FOLDER, mask: m.png}}      a prior that ``objective: ambient`` trained, seen
                                            through a mask like those of its data
{gaussian: {mean: 0.5, std: 0.2,            N(mean, std^2) in every pixel, known in closed form
            shape: [1, 16, 16]}}
{name: my_prior.py:load, weights: net.pt}   a class of the user's own, or a function that makes
                                            one: ``posteriori.problem_file.own``
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, InstanceOf, ValidationInfo, model_validator

from posteriori import priors
from posteriori.priors.arithmetic import quickest
from posteriori.priors.pretrained import read_network
from posteriori.problem_file import own, patterns
from posteriori.problem_file.types import (
    Count,
    File,
    Number,
    Part,
    Positive,
    RisingPair,
    suggestion,
)
from posteriori.settings import Natural

_KINDS = ("path", "diffusers", "grey", "slices", "tiles", "conditioned", "ambient", "gaussian")
SHIPPED = (
    "photos",
    "photos_noise_maps",
    "digits",
    "digits_noise_maps",
    "chest-ct",
    "brain-mri",
    "text-digits",
)
Arithmetic = Literal["float32", "bfloat16", "float16"]
# Of which it is known what bfloat16 costs.
MEASURED = ("photos", "photos_noise_maps")


class White(Part):
    """Independent pixels N(mean, std^2), in ``range``."""

    mean: Number
    std: Positive
    shape: Annotated[tuple[Count, ...], Field(min_length=1)]
    range: RisingPair = (0.0, 1.0)


class Through(Part):
    """A network trained on masked images, and the mask through which it sees, bright where it
    does."""

    path: File
    mask: File

    def build(self, autocast: Literal["bfloat16", "float16"] | None) -> priors.Prior:
        seen = patterns.mask(self.mask, None)[0]
        return priors.Ambient(read_network(self.path, autocast=autocast), seen)


class Larger(Part):
    """Images larger than those of a prior, by averaged overlapping tiles."""

    prior: Belief
    size: Count
    overlap: Natural | None = None

    def build(self, precision: Arithmetic) -> priors.Prior:
        overlap = self.size // 4 if self.overlap is None else self.overlap
        return priors.Tiles(self.prior.build(precision), self.size, overlap)


class Condition(Part):
    """A prior told a text, by ``Prior.conditioned``."""

    prior: Belief
    text: str
    guidance: Number = 1.0
    negative: str = ""

    def build(self, precision: Arithmetic) -> priors.Prior:
        prior = self.prior.build(precision)
        return prior.conditioned(self.text, guidance=self.guidance, negative=self.negative)


class PriorSection(Part):
    """Exactly one of ten kinds."""

    shipped: (
        Literal[
            "photos",
            "photos_noise_maps",
            "digits",
            "digits_noise_maps",
            "chest-ct",
            "brain-mri",
            "text-digits",
        ]
        | None
    ) = None
    path: File | None = None
    diffusers: File | None = None
    grey: Belief | None = None
    slices: Belief | None = None
    tiles: Larger | None = None
    conditioned: Condition | None = None
    ambient: Through | None = None
    gaussian: White | None = None
    maker: InstanceOf[own.Own] | None = None

    @model_validator(mode="after")
    def one(self) -> PriorSection:
        if len(self.model_fields_set) != 1:
            raise ValueError(
                "give exactly one of photos, digits, chest-ct, brain-mri, text-digits, "
                "{path: ...}, {diffusers: ...}, {grey: ...}, {slices: ...}, {tiles: ...}, "
                "{conditioned: ...}, {ambient: ...}, {gaussian: ...}, {name: mypackage:MyPrior}"
            )
        return self

    def quickest(self, device: str) -> Arithmetic:
        """What ``precision: auto`` stands for: ``priors.arithmetic.quickest`` for the priors of
        photographs, whose loss by bfloat16 was measured (docs/results/engine.md), float32 for all
        others."""
        within = [self.grey, self.slices, self.tiles, self.conditioned]
        for part in within:
            if part is not None:
                inner = part if isinstance(part, PriorSection) else part.prior
                return inner.quickest(device)
        return quickest(device) if self.shipped in MEASURED else "float32"

    def build(self, precision: Arithmetic) -> priors.Prior:
        """``precision`` is that of a network's inner arithmetic. Raises as the loading functions of
        ``posteriori.priors``."""
        if self.gaussian is not None:
            if precision != "float32":
                raise ValueError(
                    f"a Gaussian prior has no network to run in {precision}; leave `precision` out"
                )
            return priors.Gaussian(
                torch.full(self.gaussian.shape, self.gaussian.mean),
                self.gaussian.std**2,
                range=self.gaussian.range,
            )
        if self.grey is not None:
            return priors.GreyImages(self.grey.build(precision))
        if self.slices is not None:
            return priors.Slices(self.slices.build(precision))
        if self.tiles is not None:
            return self.tiles.build(precision)
        if self.conditioned is not None:
            return self.conditioned.build(precision)
        if self.maker is not None:
            if precision != "float32" and "autocast" not in self.maker.arguments:
                raise ValueError(
                    f"{self.maker.path} chooses its own precision; "
                    "leave `precision` out, or let it take `autocast`"
                )
            return self.maker.make(**({} if precision == "float32" else {"autocast": precision}))
        autocast = None if precision == "float32" else precision
        if self.shipped is not None:
            if self.shipped.startswith("photos"):
                return priors.photos(
                    autocast=autocast, noise_maps=self.shipped == "photos_noise_maps"
                )
            if self.shipped == "chest-ct":
                return priors.chest_ct(autocast=autocast)
            if self.shipped == "brain-mri":
                return priors.brain_mri(autocast=autocast)
            if self.shipped == "text-digits":
                return priors.text_digits(autocast=autocast)
            return priors.digits(autocast=autocast, noise_maps=self.shipped == "digits_noise_maps")
        if self.diffusers is not None:
            return priors.from_diffusers(self.diffusers, autocast=autocast)
        if self.ambient is not None:
            return self.ambient.build(autocast)
        assert self.path is not None  # one of the ten is given
        return priors.load(self.path, autocast=autocast)


def _by_name(raw: Any, info: ValidationInfo) -> Any:
    raw = {"name": raw} if isinstance(raw, str) else raw
    if isinstance(raw, dict) and own.is_path(raw.get("name")):
        return {"maker": own.find(raw, own.PRIOR, info.context)}
    if isinstance(raw, dict) and raw.keys() == {"name"}:
        name = raw["name"]
        if name not in SHIPPED:
            raise ValueError(
                f"unknown prior {name!r}; {suggestion(name, SHIPPED)}; "
                f"or a folder as {{path: {name}}}{own.hint(name)}"
            )
        return {"shipped": name}
    for key in raw if isinstance(raw, dict) else ():
        if key not in _KINDS:
            raise ValueError(
                f"unknown setting {key!r}; {suggestion(key, _KINDS)}, "
                "or the name photos, digits, chest-ct, brain-mri or text-digits alone"
            )
    return raw


Belief = Annotated[PriorSection, BeforeValidator(_by_name)]
Larger.model_rebuild()
Condition.model_rebuild()
PriorSection.model_rebuild()
