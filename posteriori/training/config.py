"""What a training run is made from: one YAML file, checked field by field; unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0, strict=True)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(Part):
    """Arguments of ``posteriori.priors.unet.UNet``."""

    channels: Count
    widths: tuple[Count, ...]
    blocks: tuple[Count, ...]
    unshuffle: Count = 1
    embedding: Count = 256


class Images(Part):
    """Folders of photographs, read at several scales."""

    kind: Literal["images"]
    folders: tuple[Path, ...]
    scales: tuple[Positive, ...] = (1.0,)
    crop: Count
    turns: bool = True


class Digits(Part):
    """One array (N, h, w) of an .npz file, centred in squares."""

    kind: Literal["npz"]
    file: Path
    key: str
    crop: Count
    turns: bool = False


class NoiseLevels(Part):
    """ln(sigma) ~ N(log_mean, log_std^2)."""

    log_mean: float
    log_std: Positive


class Optimizer(Part):
    """AdamW, or Muon for the inner convolutions with AdamW for the rest.

    The rate rises over ``warmup`` steps, stays, and falls linearly to 0 over the last ``decay`` steps: a run can be prolonged by
    raising ``steps`` as long as its decay has not begun.
    """

    name: Literal["adamw", "muon"] = "adamw"
    rate: Positive
    warmup: Count = 100
    decay: Count
    clip: Positive = 1.0


class Card(Part):
    """What the saved prior says about itself, beside what the run knows."""

    description: str
    training_data: str
    licence: str
    sigma_max: Positive
    sigma_min: Positive


class Training(Part):
    name: str
    network: Network
    data: Annotated[Images | Digits, Field(discriminator="kind")]
    noise: NoiseLevels
    optimizer: Optimizer
    card: Card
    sigma_data: Positive = 0.5
    steps: Count
    batch: Count
    ema: Annotated[float, Field(gt=0, lt=1)] = 0.999
    autocast: Literal["none", "bfloat16"] = "bfloat16"
    threads: Count = 2
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    checkpoint_every: Count = 200


def read(file: str | Path) -> Training:
    """Read and check a training file. Relative data paths are taken from the file's own folder.

    Raises ``ValueError`` naming each bad field, or ``FileNotFoundError``.
    """
    file = Path(file)
    raw = yaml.safe_load(file.read_text())
    if not isinstance(raw, dict):
        raise ValueError(f"{file}: expected a mapping of settings, got {type(raw).__name__}")
    config = Training.model_validate(raw)
    data: Images | Digits = config.data
    if isinstance(data, Images):
        data = data.model_copy(update={"folders": tuple(file.parent / f for f in data.folders)})
    else:
        data = data.model_copy(update={"file": file.parent / data.file})
    return config.model_copy(update={"data": data})
