"""From the data of a configuration to what is trained on and what is held out."""

from __future__ import annotations

from posteriori.training.arrays import read_windowed
from posteriori.training.config import AnyConfig, ConditionalObjective
from posteriori.training.data import Crops, apart, read_folders, read_npz_pictures
from posteriori.training.data_kinds import Arrays, Described, Digits, MaskedImages
from posteriori.training.described import DescribedImages, read_described
from posteriori.training.masked import read_masked


def training_images(config: AnyConfig) -> tuple[Crops, Crops | None]:
    """The images that are trained on, and those that are held out: whole files with all their
    scales, None without any.

    Raises ``ValueError`` for images that do not fit the network or the crop, and as the readers do.
    """
    data, channels, weights, group = config.data, config.network.channels, None, 1
    if isinstance(data, Described):
        return _described(config, data)
    if isinstance(data, Digits):
        if channels != 1:
            raise ValueError(f"data of kind npz are grey, network.channels is {channels}")
        pictures = read_npz_pictures(data.file, data.key, data.crop)
    elif isinstance(data, MaskedImages):
        pictures = read_masked(data, channels)
    elif isinstance(data, Arrays):
        pictures = read_windowed(data.paths, channels, data.window, key=data.key, clip=data.clip)
    else:
        pictures, weights = read_folders(data.folders, channels, data.scales, data.crop)
        group = len(data.scales)
    parts = []
    # Images that are drawn anew in each lap have no loss that could be compared.
    share = 0.0 if config.objective.name == "em" else config.held_out.share
    for chosen in apart(len(pictures) // group, share, config.seed):
        rows = [group * k + j for k in chosen for j in range(group)]
        part = None if weights is None else [weights[k] for k in rows]
        parts.append(
            Crops([pictures[k] for k in rows], data.crop, part, data.turns) if rows else None
        )
    assert parts[0] is not None  # at least one image is kept
    return parts[0], parts[1]


def _described(config: AnyConfig, data: Described) -> tuple[Crops, Crops | None]:
    assert isinstance(config.objective, ConditionalObjective)
    images, described, embeddings = read_described(
        data.file, config.network.channels, data.crop, config.objective.width
    )
    kept, held = (
        DescribedImages(images[rows], described[rows], embeddings) if rows else None
        for rows in apart(len(images), config.held_out.share, config.seed)
    )
    assert kept is not None
    return kept, held


def crops(config: AnyConfig) -> Crops:
    """What is trained on."""
    return training_images(config)[0]
