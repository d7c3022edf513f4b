"""Where the images of a training lie: ``data`` of its file, by kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0, strict=True)]


class ConfigPart(BaseModel):
    """A section of a training file: of known keys, whose numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _check_rising(window: tuple[float, float]) -> None:
    if not window[0] < window[1]:
        raise ValueError(f"window is [lowest, highest] with lowest < highest, got {list(window)}")


class Images(ConfigPart):
    """Folders of photographs, read at several scales."""

    kind: Literal["images"]
    folders: tuple[Path, ...]
    scales: tuple[Positive, ...] = (1.0,)
    crop: Count
    turns: bool = True


class Digits(ConfigPart):
    """One array (N, h, w) of an .npz file, centred in squares."""

    kind: Literal["npz"]
    file: Path
    key: str
    crop: Count
    turns: bool = False


class Arrays(ConfigPart):
    """Measured numbers in files or folders, see ``training.arrays``. window: the numbers that
    become -1 and 1, such as [-1000, 1500] for Hounsfield units; for complex images (two channels)
    it lies evenly around 0. clip: cut what lies outside, instead of refusing it."""

    kind: Literal["arrays"]
    paths: Annotated[tuple[Path, ...], Field(min_length=1)]
    window: tuple[float, float]
    crop: Count
    key: str | None = None
    clip: Annotated[bool, Field(strict=True)] = False
    turns: bool = True

    @model_validator(mode="after")
    def rising(self) -> Arrays:
        _check_rising(self.window)
        return self


class MaskedImages(ConfigPart):
    """Images that were measured in part, (N, H, W) or (N, channels, H, W) of a .npy or .npz file.

    masks: the array (N, H, W) of the file that is true or 1 where a pixel was measured; none, and
    the numbers that are NaN were not. key: the array of the images where the file holds several.
    window: the numbers that become -1 and 1. noise: the standard deviation of the noise of a
    measured number, in the units of the file.
    """

    kind: Literal["masked"]
    file: Path
    window: tuple[float, float]
    crop: Count
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


class Described(ConfigPart):
    """Images with descriptions of each, in an .npz file.

    ``images`` (N, C, H, W): numbers of any range, float. ``described`` (N, J): which descriptions
    fit each image, of which a step draws one. ``embeddings`` (K, width): those of the descriptions.
    """

    kind: Literal["described"]
    file: Path
    crop: Count


Data = Images | Digits | Arrays | MaskedImages | Described
