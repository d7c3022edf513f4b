"""From a training folder to a prior that others can load: averaged weights, a card, a sheet of
samples."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from posteriori.priors.ambient import Ambient
from posteriori.priors.architectures.autoencoder import ConvAutoencoder
from posteriori.priors.base import Prior
from posteriori.priors.error_spectrum import measure
from posteriori.priors.network import Network
from posteriori.priors.pretrained import read_network, save_pretrained
from posteriori.priors.state_dicts import load_weights
from posteriori.rng import Streams
from posteriori.storage import write_bytes
from posteriori.training.config import AmbientObjective, AutoencoderConfig, TrainingConfig
from posteriori.training.data_kinds import Described, Digits, MaskedImages
from posteriori.training.objectives.conditional import image_and_embedding
from posteriori.training.objectives.noise import numbers_and_mask
from posteriori.training.sources import crops
from posteriori.training.trainer import network_of, trained_module


def export(
    config: TrainingConfig,
    folder: str | Path,
    target: str | Path,
    *,
    storage: Literal["float32", "float16"] = "float16",
    samples: int = 16,
    steps: int = 32,
) -> Network:
    """Write the averaged weights of the training run in ``folder`` as a prior in ``target``;
    returns it as loaded from there.

    ``target`` gets card.json, weights.safetensors and, for ``samples`` > 0, samples.png: samples of
    the prior at the size of a training crop, by Heun's rule with ``steps`` steps. The variance in
    the card is measured on 1024 training crops, the sigma limits are the config's. The run may
    still be under way: the card says how many steps it has made.
    Raises ``FileNotFoundError`` when there is no checkpoint, ``ValueError`` when it belongs to
    another network than the config's.
    """
    net = network_of(config)
    state = _averaged(net, folder)
    data, channels = config.data, config.network.channels
    prior = Network(
        net,
        shape=(channels, None, None),
        sigma_data=config.sigma_data,
        variance=variance(config),
        sigma_max=config.card.sigma_max,
        sigma_min=config.card.sigma_min,
        range=None if isinstance(data, Described) else (-1.0, 1.0),
        multiple=net.multiple,
        # Crops of photographs say nothing of the size of a picture; centred digits fill theirs.
        train_size=(data.crop, data.crop) if isinstance(data, Digits | Described) else None,
        conditions=net.conditions,
    )
    if not isinstance(data, MaskedImages):  # the error of a denoiser is measured on complete images
        prior.errors = errors(prior, config)
        prior.spectrum = measure(prior, _images(config, 64, 1), seed=config.seed)
    save_pretrained(
        prior,
        target,
        storage=storage,
        description=config.card.description,
        training_data=config.card.training_data,
        licence=config.card.licence,
        training={"steps": state["step"], "config": _portable(config)},
    )
    saved = read_network(target)
    if samples > 0:
        shown = _as_trained(saved, config)
        sheet(
            shown.sample(samples, steps=steps, shape=(channels, data.crop, data.crop)),
            Path(target) / "samples.png",
        )
    return saved


def averaged_autoencoder(config: AutoencoderConfig, folder: str | Path) -> ConvAutoencoder:
    """The autoencoder with the averaged weights of the training run in ``folder``. Raises as
    ``export``."""
    net = trained_module(config)
    _averaged(net, folder)
    assert isinstance(net, ConvAutoencoder)
    return net.eval()


def _averaged(net: nn.Module, folder: str | Path) -> dict[str, Any]:
    """The state of a run, with whose averaged weights the network is filled."""
    checkpoint = Path(folder) / "checkpoint.pt"
    if not checkpoint.is_file():
        raise FileNotFoundError(f"no training run in {folder}: checkpoint.pt is missing")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    load_weights(net, state["average"], checkpoint)
    return state


def _images(config: TrainingConfig, count: int, step: int) -> Tensor:
    """A batch of training crops, without what is said of them."""
    batch = crops(config).batch(count, config.seed, step)
    return image_and_embedding(batch, config)[0] if isinstance(config.data, Described) else batch


def _as_trained(prior: Network, config: TrainingConfig) -> Prior:
    """The prior as it was trained; under "ambient" seen through the mask of one crop, of which a
    share is hidden."""
    if not isinstance(config.objective, AmbientObjective):
        return prior
    rng = np.random.default_rng([config.seed, 4])
    masks = crops(config).batch(64, config.seed, 0)[:, -1].bool()
    mask = masks[int(masks.flatten(1).sum(1).argmax())]
    kept = torch.from_numpy(rng.random(tuple(mask.shape)) >= config.objective.further)
    return Ambient(prior, mask & kept)


def variance(config: TrainingConfig, count: int = 1024) -> float:
    """Variance of one number of a training crop in [-1, 1], averaged over the crop, from ``count``
    crops; of masked images over the measured numbers, less the variance of their noise."""
    batch = _images(config, count, 0).double()
    if not isinstance(config.data, MaskedImages):
        return float(batch.var(0).mean())
    y, mask = numbers_and_mask(batch)
    seen = mask.sum(0)
    centred = mask * (y - y.sum(0) / seen.clamp_min(1))
    spread = centred.square().sum(0) / (seen - 1).clamp_min(1)
    total = float(spread[(seen > 1).expand_as(spread)].mean())
    if not total > config.data.std**2:
        raise ValueError(
            f"the measured numbers have variance {total:.4g} in images of [-1, 1], no more than "
            f"their noise, {config.data.std**2:.4g}: data.noise is too large"
        )
    return total - config.data.std**2


def errors(
    prior: Network, config: TrainingConfig, count: int = 64, levels: int = 17
) -> tuple[tuple[float, float], ...]:
    """(sigma, mean squared error per number) of the denoiser on ``count`` training crops, at levels
    even in log sigma."""
    x0 = _images(config, count, 1)
    table = []
    with torch.no_grad():
        for k, sigma in enumerate(
            torch.logspace(
                math.log10(prior.sigma_min),
                math.log10(prior.sigma_max),
                levels,
                dtype=torch.float64,
            )
        ):
            z = Streams(config.seed, range(k * count, (k + 1) * count)).normal(x0)
            out = prior.denoise(x0 + float(sigma) * z, sigma)
            table.append((float(sigma), float((out - x0).double().square().mean())))
    return tuple(table)


def sheet(images: Tensor, file: Path) -> None:
    """Images (n, C, H, W) in [-1, 1] side by side in one PNG; values outside are cut off. Of two
    channels, |x(0) + i x(1)|."""
    if images.shape[1] == 2:
        images = 2 * images.square().sum(1, keepdim=True).sqrt() - 1
    if images.shape[1] not in (1, 3):
        images = images.flatten(0, 1)[:, None]
    n, C, H, W = images.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    canvas = np.full((rows * (H + 2) - 2, columns * (W + 2) - 2, C), 255, dtype=np.uint8)
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for k, picture in enumerate(pixels):
        top, left = (k // columns) * (H + 2), (k % columns) * (W + 2)
        canvas[top : top + H, left : left + W] = picture
    content = BytesIO()
    Image.fromarray(canvas[..., 0] if C == 1 else canvas).save(content, format="PNG")
    write_bytes(file, content.getvalue())


def _portable(config: TrainingConfig) -> dict[str, Any]:
    """The config as JSON values, with the names of its data and not the place where they lay on one
    machine."""
    values = config.model_dump(mode="json")
    if config.start is not None:
        values["start"] = config.start.name
    data = values["data"]
    for key in ("file", "folders", "paths"):
        if key in data:
            data[key] = (
                Path(data[key]).name
                if key == "file"
                else [Path(folder).name for folder in data[key]]
            )
    return values
