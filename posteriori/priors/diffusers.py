"""Unconditional image networks saved by the ``diffusers`` library, from a folder on this machine.

    folder/unet/config.json, folder/unet/diffusion_pytorch_model.safetensors, folder/scheduler/scheduler_config.json     a pipeline
    folder/config.json, folder/diffusion_pytorch_model.safetensors, folder/scheduler_config.json                         a plain folder

The scheduler file says what the network predicts and with which noise it was trained; the sampler that it names is not used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posteriori.priors.network import Network, Parametrization, Precision
from posteriori.priors.schedule import DiscreteVP, RectifiedFlow, Schedule
from posteriori.priors.state_dicts import load_state_dict_file, load_weights

PREDICTIONS: dict[str, Parametrization] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin")


def from_diffusers(
    folder: str | Path,
    device: str | torch.device | None = None,
    *,
    range: tuple[float, float] = (-1.0, 1.0),
    variance: float = 0.25,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    autocast: Precision | None = None,
) -> Network:
    """A ``UNet2DModel`` with its scheduler as a prior; parameters as for ``Network``. Nothing is downloaded.

    Raises ``ImportError`` without the diffusers library, ``FileNotFoundError`` naming the missing file, ``ValueError`` for a network or a
    scheduler that is not an unconditional image diffusion this package knows, and for weights that do not fit.
    """
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise ImportError(f"from_diffusers needs the diffusers library: pip install posteriori[diffusers] ({error})") from None
    folder = Path(folder)
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    config, scheduler = _read(unet / "config.json"), _read(_scheduler_file(folder))
    _check_unet(config, unet)
    net = UNet2DModel.from_config(config)
    weights = next((unet / name for name in WEIGHTS if (unet / name).is_file()), unet / WEIGHTS[0])
    load_weights(net, load_state_dict_file(weights), weights)
    parametrization, schedule = _noise(scheduler, integer=config.get("time_embedding_type") == "learned")
    side = config.get("sample_size")
    prior = Network(
        net.float(),
        shape=(config.get("in_channels", 3), None, None),
        parametrization=parametrization,
        schedule=schedule,
        range=range,
        variance=variance,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        multiple=2 ** (len(net.config.block_out_channels) - 1),
        autocast=autocast,
        train_size=None if side is None else ((side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))),
    )
    return prior.to(device) if device is not None else prior


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(
            f"no {file.name} in {file.parent}; a diffusers folder has unet/config.json and scheduler/scheduler_config.json"
        )
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None


def _scheduler_file(folder: Path) -> Path:
    inner = folder / "scheduler" / "scheduler_config.json"
    return inner if inner.is_file() else folder / "scheduler_config.json"


def _check_unet(config: dict[str, Any], folder: Path) -> None:
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise ValueError(f"{folder} holds a {kind}; only the unconditional UNet2DModel is a prior of images by itself")
    for name in ("class_embed_type", "num_class_embeds"):
        if config.get(name) is not None:
            raise ValueError(
                f"the network in {folder} is conditioned on a class ({name}={config[name]!r}); wrap it in Network with the class fixed"
            )
    if config.get("time_embedding_type") == "fourier":
        raise ValueError(
            f"the network in {folder} is told sigma through Fourier features; wrap it in Network(parametrization='score', schedule=VE)"
        )


def _noise(config: dict[str, Any], *, integer: bool) -> tuple[Parametrization, Schedule]:
    """What the network predicts, and the noise it was trained with. Absent keys have the defaults of diffusers."""
    kind, steps = config.get("_class_name", "DDPMScheduler"), config.get("num_train_timesteps", 1000)
    if kind.startswith("FlowMatch"):
        return "flow", RectifiedFlow(label_scale=steps)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(f"{kind} has prediction_type {prediction!r}; known are {', '.join(PREDICTIONS)}")
    first, last, name = config.get("beta_start", 1e-4), config.get("beta_end", 0.02), config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        schedule = DiscreteVP.from_betas(config["trained_betas"], integer=integer, name="trained_betas")
    elif name == "linear":
        schedule = DiscreteVP.linear(steps, first, last, integer=integer)
    elif name == "scaled_linear":
        schedule = DiscreteVP.scaled_linear(steps, first, last, integer=integer)
    elif name == "squaredcos_cap_v2":
        schedule = DiscreteVP.cosine(steps, integer=integer)
    elif name == "sigmoid":
        schedule = DiscreteVP.from_betas(first + (last - first) / (1 + np.exp(-np.linspace(-6, 6, steps))), integer=integer, name="sigmoid")
    else:
        raise ValueError(
            f"{kind} has beta_schedule {name!r}; known are linear, scaled_linear, squaredcos_cap_v2, sigmoid and trained_betas"
        )
    return PREDICTIONS[prediction], schedule.zero_terminal() if config.get("rescale_betas_zero_snr") else schedule
