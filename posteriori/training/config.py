"""What a training run is made from: one YAML file, checked field by field; unknown keys are
refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from posteriori.covariances.told import BLOCKS
from posteriori.measurements.files import checked
from posteriori.training.data_kinds import (
    ConfigPart,
    Count,
    Data,
    Described,
    Digits,
    Images,
    MaskedImages,
    Positive,
)
from posteriori.yaml_file import read_yaml


def _by_name(value: Any) -> Any:
    """An objective by its name alone has its default settings."""
    return {"name": value} if isinstance(value, str) else value


class NetworkShape(ConfigPart):
    """Arguments of ``posteriori.priors.unet.UNet``."""

    channels: Count
    widths: tuple[Count, ...]
    blocks: tuple[Count, ...]
    unshuffle: Count = 1
    embedding: Count = 256


class AutoencoderShape(ConfigPart):
    """Arguments of ``posteriori.priors.architectures.autoencoder.ConvAutoencoder``."""

    channels: Count
    latent_channels: Count
    widths: tuple[Count, ...]
    blocks: tuple[Count, ...]
    unshuffle: Count = 1


class ScoreMatchingObjective(ConfigPart):
    """Complete images without noise; see ``objectives.score_matching``."""

    name: Literal["score-matching"] = "score-matching"


class NoiseMapsObjective(ConfigPart):
    """Complete images without noise, denoised under levels that differ from pixel to pixel; see
    ``objectives.noise_maps``. share: of the images of a batch that are seen a second time at some
    of their pixels, through noise t with ln(t) ~ N(log_mean, log_std^2)."""

    name: Literal["noise-maps"]
    share: Annotated[float, Field(gt=0, le=1)]
    log_mean: float
    log_std: Positive


class ColouredNoiseObjective(ConfigPart):
    """Complete images without noise, denoised under white noise and under noise that masks, round
    blurs and box downsampling leave; see ``objectives.coloured_noise``.

    masks, blurs, blocks: the shares of a batch under each; the rest is white. seen: the least and
    the greatest noise of a measurement, drawn even in its logarithm. widths: those of the blurs.
    shown: whether the network is shown first estimates and the level of each pixel beside the
    image (``estimates`` of ``priors.UNet``), as one that folds blocks of pixels into channels
    (``unshuffle``) needs them to tell seen pixels from noise. filled: whether, shown these, it is
    given badly seen pixels filled from better seen neighbours under masks, with the level of that
    guess (``priors.first_estimates.filled``): better under single pixels.
    """

    name: Literal["coloured-noise"]
    masks: Annotated[float, Field(ge=0, le=1)] = 0.25
    blurs: Annotated[float, Field(ge=0, le=1)] = 0.3
    blocks: Annotated[float, Field(ge=0, le=1)] = 0.25
    seen: tuple[Positive, Positive] = (0.01, 0.4)
    widths: tuple[Positive, Positive] = (0.5, 4.0)
    shown: bool = False
    filled: bool = False

    @model_validator(mode="after")
    def shared(self) -> ColouredNoiseObjective:
        """Shares are at most all, ranges rise."""
        if math.fsum((self.masks, self.blurs, self.blocks)) > 1:
            raise ValueError(
                f"masks, blurs and blocks are shares of a batch, of sum at most 1, got "
                f"{self.masks:g}, {self.blurs:g} and {self.blocks:g}"
            )
        for name, pair in (("seen", self.seen), ("widths", self.widths)):
            if not pair[0] < pair[1]:
                raise ValueError(f"{name} is [least, greatest] with least < greatest, got {pair}")
        if self.filled and not self.shown:
            raise ValueError("filled: true goes with shown: true, got shown: false")
        return self


class AmbientObjective(ConfigPart):
    """Masked images without noise; see ``objectives.ambient``. further: with which probability one
    more pixel is hidden."""

    name: Literal["ambient"]
    further: Annotated[float, Field(gt=0, lt=1)] = 0.1


class GsureObjective(ConfigPart):
    """Masked images with noise; see ``objectives.gsure``."""

    name: Literal["gsure"]


class EMObjective(ConfigPart):
    """Masked images with noise; see ``training.em`` and ``training.laps``.

    lap: steps that are trained on one set of images, before they are drawn anew. sampling: noise
    levels of an image that is drawn. iterations: of the solver of its method, MMPS. start: the
    prior of the first lap, a "gaussian" with ``start_iterations`` of expectation maximisation
    (images of at most 2048 numbers), or independent "pixels".
    """

    name: Literal["em"]
    lap: Count
    sampling: Count = 64
    iterations: Count = 5
    start: Literal["gaussian", "pixels"] = "gaussian"
    start_iterations: Count = 10


class ConditionalObjective(ConfigPart):
    """Images with a description of each; see ``objectives.conditional``. width: of its embedding.
    dropout: with which probability the network is not told it."""

    name: Literal["conditional"]
    width: Count
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class AutoencoderObjective(ConfigPart):
    """Complete images; see ``objectives.autoencoder``."""

    name: Literal["autoencoder"]
    noise: Annotated[float, Field(ge=0)] = 0.05
    penalty: Annotated[float, Field(ge=0)] = 5e-4


class HeldOut(ConfigPart):
    """The share of the images, drawn by the seed of the run, that are not trained on; and the crops
    of them on which the loss is told."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    crops: Count = 64


class NoiseLevels(ConfigPart):
    """ln(sigma) ~ N(log_mean, log_std^2)."""

    log_mean: float
    log_std: Positive


class Optimizer(ConfigPart):
    """AdamW, or Muon for the inner convolutions with AdamW for the rest.

    The rate rises over ``warmup`` steps, stays, and falls linearly to 0 over the last ``decay``
    steps: a run can be prolonged by raising ``steps`` as long as its decay has not begun.
    """

    name: Literal["adamw", "muon"] = "adamw"
    rate: Positive
    warmup: Count = 100
    decay: Count
    clip: Positive = 1.0


class Origin(ConfigPart):
    """What a saved network says about itself, beside what the run knows."""

    description: str
    training_data: str
    licence: str


class PriorCard(Origin):
    """That of a prior: also the ends of its noise levels."""

    sigma_max: Positive
    sigma_min: Positive

    @model_validator(mode="after")
    def rising(self) -> PriorCard:
        """The ends are in order."""
        if not self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min is below sigma_max, got {self.sigma_min:g} and {self.sigma_max:g}"
            )
        return self


Objective = (
    ScoreMatchingObjective
    | NoiseMapsObjective
    | ColouredNoiseObjective
    | AmbientObjective
    | GsureObjective
    | EMObjective
    | ConditionalObjective
)


class _RunConfig(ConfigPart):
    """What every run has."""

    name: str
    data: Annotated[Data, Field(discriminator="kind")]
    optimizer: Optimizer
    steps: Count
    batch: Count
    ema: Annotated[float, Field(gt=0, lt=1)] = 0.999
    autocast: Literal["none", "bfloat16"] = "bfloat16"
    threads: Count = 2
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    checkpoint_every: Count = 200
    held_out: HeldOut = HeldOut()


class AutoencoderConfig(_RunConfig):
    """A run that trains an autoencoder; of data of any kind but masked and described."""

    objective: Annotated[AutoencoderObjective, BeforeValidator(_by_name)]
    network: AutoencoderShape
    card: Origin

    @model_validator(mode="after")
    def fitting(self) -> AutoencoderConfig:
        """Data and objective fit each other."""
        if isinstance(self.data, MaskedImages | Described):
            raise ValueError(
                "objective autoencoder learns from complete images alone, got data of kind: "
                f"{self.data.kind}"
            )
        return self


class TrainingConfig(_RunConfig):
    """A run that trains a prior. start: the folder of a saved prior whose weights the network
    begins with."""

    objective: Annotated[Objective, Field(discriminator="name"), BeforeValidator(_by_name)] = (
        ScoreMatchingObjective()
    )
    network: NetworkShape
    noise: NoiseLevels
    card: PriorCard
    sigma_data: Positive = 0.5
    start: Path | None = None

    @model_validator(mode="after")
    def fitting(self) -> TrainingConfig:
        """Data and objective fit each other."""
        if (why := _misfit(self)) is not None:
            raise ValueError(why)
        return self


# Objectives that learn from complete images.
_COMPLETE = ("score-matching", "noise-maps", "coloured-noise")


def _misfit(config: TrainingConfig) -> str | None:
    name, data = config.objective.name, config.data
    if (name == "conditional") != isinstance(data, Described):
        return (
            "objective conditional and data of kind: described belong together, got objective "
            f"{name} and data of kind: {data.kind}"
        )
    if isinstance(data, Described):
        return None
    if isinstance(config.objective, ColouredNoiseObjective):
        greatest, end = config.objective.seen[1], config.card.sigma_max
        if greatest >= 3 * end:
            return (
                f"objective coloured-noise draws levels from a third of the noise of a measurement "
                f"to card.sigma_max, {end:g}: objective.seen must end below {3 * end:g}, got "
                f"{greatest:g}"
            )
        if config.objective.blocks and data.crop % max(BLOCKS):
            return (
                f"objective coloured-noise draws means of blocks of up to {max(BLOCKS)} pixels a "
                f"side: data.crop must be a multiple of {max(BLOCKS)}, got {data.crop}; or set "
                f"objective.blocks: 0"
            )
    if not isinstance(data, MaskedImages):
        if name in _COMPLETE:
            return None
        return f"objective {name} learns from data of kind: masked, got {data.kind}"
    if name in _COMPLETE:
        return (
            f"objective {name} learns from complete images without noise, got data of kind: "
            "masked; take ambient, gsure or em"
        )
    if name == "ambient" and data.noise > 0:
        return (
            f"objective ambient learns from measurements without noise, got data.noise "
            f"{data.noise:g}; take gsure or em"
        )
    if name == "em" and data.noise == 0:
        return (
            "objective em learns from measurements with noise, got data.noise 0; give the smallest "
            "level that you trust, for example 1e-3 of the window, or take ambient"
        )
    if name == "gsure" and config.card.sigma_min < data.std:
        return (
            f"objective gsure learns nothing of levels below the noise of the data: "
            f"card.sigma_min is {config.card.sigma_min:g}, data.noise is {data.std:g} in images of "
            f"[-1, 1]; raise sigma_min to at least that"
        )
    return None


AnyConfig = TrainingConfig | AutoencoderConfig


def read_config(file: str | Path) -> AnyConfig:
    """Read and check a training file. Relative data paths are taken from the file's own folder.

    Raises ``ValueError`` with one line for each bad field, or ``FileNotFoundError``.
    """
    file = checked(file)
    raw = read_yaml(file)
    if not isinstance(raw, dict):
        raise ValueError(f"{file}: expected a mapping of settings, got {type(raw).__name__}")
    if "prior" in raw and "operator" in raw:
        raise ValueError(
            f"{file} describes a problem, not a training: posteriori solve {file} --out FOLDER"
        )
    objective = _by_name(raw.get("objective"))
    autoencoder = isinstance(objective, dict) and objective.get("name") == "autoencoder"
    kind = AutoencoderConfig if autoencoder else TrainingConfig
    try:
        config = kind.model_validate(raw)
    except ValidationError as error:
        raise ValueError(
            f"{file}\n" + "\n".join(f"  {_told(item)}" for item in error.errors())
        ) from None
    moved: dict[str, object] = {"data": _beside(config.data, file.parent)}
    if isinstance(config, TrainingConfig) and config.start is not None:
        moved["start"] = file.parent / config.start
    return config.model_copy(update=moved)


def _beside(data: Data, folder: Path) -> Data:
    if isinstance(data, Digits | MaskedImages | Described):
        return data.model_copy(update={"file": folder / data.file})
    name = "folders" if isinstance(data, Images) else "paths"
    return data.model_copy(update={name: tuple(folder / path for path in getattr(data, name))})


def _told(item: Any) -> str:
    """One error of pydantic in one sentence, with its field in dots."""
    place = ".".join(map(str, item["loc"]))
    text = item["msg"].removeprefix("Value error, ")
    given = (
        ""
        if item["type"] in ("missing", "value_error", "union_tag_not_found")
        else f", got {item['input']!r}"
    )
    said = f"{text[:1].lower()}{text[1:]}{given}"
    return f"{place}: {said}" if place else said
