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
from torch import Tensor

from posteriori.priors.error_spectrum import measure
from posteriori.priors.network import Network
from posteriori.priors.pretrained import from_pretrained, save_pretrained
from posteriori.priors.state_dicts import load_weights
from posteriori.priors.unet import UNet
from posteriori.rng import Streams
from posteriori.storage import write_bytes
from posteriori.training.config import Digits, TrainingConfig
from posteriori.training.score_matching import crops


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
    checkpoint = Path(folder) / "checkpoint.pt"
    if not checkpoint.is_file():
        raise FileNotFoundError(f"no training run in {folder}: checkpoint.pt is missing")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    net = UNet(**config.network.model_dump())
    load_weights(net, state["average"], checkpoint)
    data, channels = config.data, config.network.channels
    prior = Network(
        net,
        shape=(channels, None, None),
        sigma_data=config.sigma_data,
        variance=variance(config),
        sigma_max=config.card.sigma_max,
        sigma_min=config.card.sigma_min,
        multiple=net.multiple,
        # Crops of photographs say nothing of the size of a picture; centred digits fill theirs.
        train_size=(data.crop, data.crop) if isinstance(data, Digits) else None,
    )
    prior.errors = errors(prior, config)
    prior.spectrum = measure(prior, crops(config).batch(64, config.seed, 1), seed=config.seed)
    save_pretrained(
        prior,
        target,
        storage=storage,
        description=config.card.description,
        training_data=config.card.training_data,
        licence=config.card.licence,
        training={"steps": state["step"], "config": _portable(config)},
    )
    saved = from_pretrained(target)
    if samples > 0:
        sheet(
            saved.sample(samples, steps=steps, shape=(channels, data.crop, data.crop)),
            Path(target) / "samples.png",
        )
    return saved


def variance(config: TrainingConfig, count: int = 1024) -> float:
    """Variance of one number of a training crop in [-1, 1], averaged over the crop, from ``count``
    crops."""
    return float(crops(config).batch(count, config.seed, 0).double().var(0).mean())


def errors(
    prior: Network, config: TrainingConfig, count: int = 64, levels: int = 17
) -> tuple[tuple[float, float], ...]:
    """(sigma, mean squared error per number) of the denoiser on ``count`` training crops, at levels
    even in log sigma."""
    x0 = crops(config).batch(count, config.seed, 1)
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
    data = values["data"]
    for key in ("file", "folders", "paths"):
        if key in data:
            data[key] = (
                Path(data[key]).name
                if key == "file"
                else [Path(folder).name for folder in data[key]]
            )
    return values
