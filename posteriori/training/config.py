"""What a training run is made from: one YAML file, checked field by field; unknown keys are
refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from posteriori.measurements.files import checked
from posteriori.yaml_file import read_yaml

_Positive = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(gt=0, strict=True)]


class _ConfigPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_rising(window: tuple[float, float]) -> None:
    if not window[0] < window[1]:
        raise ValueError(f"window is [lowest, highest] with lowest < highest, got {list(window)}")


def _by_name(value: Any) -> Any:
    """An objective by its name alone has its default settings."""
    return {"name": value} if isinstance(value, str) else value


class NetworkShape(_ConfigPart):
    """Arguments of ``posteriori.priors.unet.UNet``."""

    channels: _Count
    widths: tuple[_Count, ...]
    blocks: tuple[_Count, ...]
    unshuffle: _Count = 1
    embedding: _Count = 256


class AutoencoderShape(_ConfigPart):
    """Arguments of ``posteriori.priors.architectures.autoencoder.ConvAutoencoder``."""

    channels: _Count
    latent_channels: _Count
    widths: tuple[_Count, ...]
    blocks: tuple[_Count, ...]
    unshuffle: _Count = 1


class Images(_ConfigPart):
    """Folders of photographs, read at several scales."""

    kind: Literal["images"]
    folders: tuple[Path, ...]
    scales: tuple[_Positive, ...] = (1.0,)
    crop: _Count
    turns: bool = True


class Digits(_ConfigPart):
    """One array (N, h, w) of an .npz file, centred in squares."""

    kind: Literal["npz"]
    file: Path
    key: str
    crop: _Count
    turns: bool = False


class Arrays(_ConfigPart):
    """Measured numbers in files or folders, see ``training.arrays``. window: the numbers that
    become -1 and 1, such as [-1000, 1500] for Hounsfield units; for complex images (two channels)
    it lies evenly around 0. clip: cut what lies outside, instead of refusing it."""

    kind: Literal["arrays"]
    paths: Annotated[tuple[Path, ...], Field(min_length=1)]
    window: tuple[float, float]
    crop: _Count
    key: str | None = None
    clip: Annotated[bool, Field(strict=True)] = False
    turns: bool = True

    @model_validator(mode="after")
    def rising(self) -> Arrays:
        _check_rising(self.window)
        return self


class MaskedImages(_ConfigPart):
    """Images that were measured in part, (N, H, W) or (N, channels, H, W) of a .npy or .npz file.

    masks: the array (N, H, W) of the file that is true or 1 where a pixel was measured; none, and
    the numbers that are NaN were not. key: the array of the images where the file holds several.
    window: the numbers that become -1 and 1. noise: the standard deviation of the noise of a
    measured number, in the units of the file.
    """

    kind: Literal["masked"]
    file: Path
    window: tuple[float, float]
    crop: _Count
    key: str | None = None
    masks: str | None = None
    noise: Annotated[float, Field(ge=0)] = 0.0
    turns: bool = True

    @model_validator(mode="after")
    def rising(self) -> MaskedImages:
        _check_rising(self.window)
        return self

    @property
    def std(self) -> float:
        """``noise`` in images of [-1, 1]."""
        return 2 * self.noise / (self.window[1] - self.window[0])


class Described(_ConfigPart):
    """Images with descriptions of each, in an .npz file.

    ``images`` (N, C, H, W): numbers of any range, float. ``described`` (N, J): which descriptions
    fit each image, of which a step draws one. ``embeddings`` (K, width): those of the descriptions.
    """

    kind: Literal["described"]
    file: Path
    crop: _Count


class ScoreMatchingObjective(_ConfigPart):
    """Complete images without noise; see ``objectives.score_matching``."""

    name: Literal["score-matching"] = "score-matching"


class NoiseMapsObjective(_ConfigPart):
    """Complete images without noise, denoised under levels that differ from pixel to pixel; see
    ``objectives.noise_maps``. share: of the images of a batch that are seen a second time at some
    of their pixels, through noise t with ln(t) ~ N(log_mean, log_std^2)."""

    name: Literal["noise-maps"]
    share: Annotated[float, Field(gt=0, le=1)]
    log_mean: float
    log_std: _Positive


class ColouredNoiseObjective(_ConfigPart):
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
    seen: tuple[_Positive, _Positive] = (0.01, 0.4)
    widths: tuple[_Positive, _Positive] = (0.5, 4.0)
    shown: bool = False
    filled: bool = False

    @model_validator(mode="after")
    def shared(self) -> ColouredNoiseObjective:
        """Shares are at most all, ranges rise."""
        if self.masks + self.blurs + self.blocks > 1:
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


class AmbientObjective(_ConfigPart):
    """Masked images without noise; see ``objectives.ambient``. further: with which probability one
    more pixel is hidden."""

    name: Literal["ambient"]
    further: Annotated[float, Field(gt=0, lt=1)] = 0.1


class GsureObjective(_ConfigPart):
    """Masked images with noise; see ``objectives.gsure``."""

    name: Literal["gsure"]


class EMObjective(_ConfigPart):
    """Masked images with noise; see ``training.em`` and ``training.laps``.

    lap: steps that are trained on one set of images, before they are drawn anew. sampling: noise
    levels of an image that is drawn. iterations: of the solver of its method, MMPS. start: the
    prior of the first lap, a "gaussian" with ``start_iterations`` of expectation maximisation
    (images of at most 2048 numbers), or independent "pixels".
    """

    name: Literal["em"]
    lap: _Count
    sampling: _Count = 64
    iterations: _Count = 5
    start: Literal["gaussian", "pixels"] = "gaussian"
    start_iterations: _Count = 10


class ConditionalObjective(_ConfigPart):
    """Images with a description of each; see ``objectives.conditional``. width: of its embedding.
    dropout: with which probability the network is not told it."""

    name: Literal["conditional"]
    width: _Count
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class AutoencoderObjective(_ConfigPart):
    """Complete images; see ``objectives.autoencoder``."""

    name: Literal["autoencoder"]
    noise: Annotated[float, Field(ge=0)] = 0.05
    penalty: Annotated[float, Field(ge=0)] = 5e-4


class HeldOut(_ConfigPart):
    """The share of the images, drawn by the seed of the run, that are not trained on; and the crops
    of them on which the loss is told."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    crops: _Count = 64


class NoiseLevels(_ConfigPart):
    """ln(sigma) ~ N(log_mean, log_std^2)."""

    log_mean: float
    log_std: _Positive


class Optimizer(_ConfigPart):
    """AdamW, or Muon for the inner convolutions with AdamW for the rest.

    The rate rises over ``warmup`` steps, stays, and falls linearly to 0 over the last ``decay``
    steps: a run can be prolonged by raising ``steps`` as long as its decay has not begun.
    """

    name: Literal["adamw", "muon"] = "adamw"
    rate: _Positive
    warmup: _Count = 100
    decay: _Count
    clip: _Positive = 1.0


class Origin(_ConfigPart):
    """What a saved network says about itself, beside what the run knows."""

    description: str
    training_data: str
    licence: str


class PriorCard(Origin):
    """That of a prior: also the ends of its noise levels."""

    sigma_max: _Positive
    sigma_min: _Positive


Data = Images | Digits | Arrays | MaskedImages | Described
Objective = (
    ScoreMatchingObjective
    | NoiseMapsObjective
    | ColouredNoiseObjective
    | AmbientObjective
    | GsureObjective
    | EMObjective
    | ConditionalObjective
)


class _RunConfig(_ConfigPart):
    """What every run has."""

    name: str
    data: Annotated[Data, Field(discriminator="kind")]
    optimizer: Optimizer
    steps: _Count
    batch: _Count
    ema: Annotated[float, Field(gt=0, lt=1)] = 0.999
    autocast: Literal["none", "bfloat16"] = "bfloat16"
    threads: _Count = 2
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    checkpoint_every: _Count = 200
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
    sigma_data: _Positive = 0.5
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
