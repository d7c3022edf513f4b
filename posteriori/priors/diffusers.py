"""Unconditional image networks saved by the ``diffusers`` library, from a folder on this machine.

    a pipeline       folder/unet/config.json
                     folder/unet/diffusion_pytorch_model.safetensors
                     folder/scheduler/scheduler_config.json
    a plain folder   folder/config.json
                     folder/diffusion_pytorch_model.safetensors
                     folder/scheduler_config.json

The scheduler file says what the network predicts and with which noise it was trained
(``posteriori.priors.schedulers``); the sampler that it names is not used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posteriori import places
from posteriori.priors.network import Network, Precision
from posteriori.priors.schedulers import training
from posteriori.priors.state_dicts import load_state_dict_file, load_weights

# The names of attention weights before 2023, when each block had its own class for them.
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
AUTOENCODERS = ("vae", "vqvae", "movq")
WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)


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
    """A ``UNet2DModel`` with its scheduler as a prior; parameters as for ``Network``. Nothing is
    downloaded.

    sigma_min, sigma_max: ends of sampling grids; those of the scheduler file when None.
    Raises ``ImportError`` without the diffusers library, ``FileNotFoundError`` naming the missing
    file, ``ValueError`` for a network or a scheduler that is not an unconditional image diffusion
    this package knows, and for weights that do not fit. Warns of a scheduler for distilled
    networks.
    """
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise ImportError(
            "from_diffusers needs the diffusers library: "
            f"pip install posteriori[diffusers] ({error})"
        ) from None
    folder = Path(folder)
    _check_folder(folder)
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    config, told = _read(unet / "config.json"), _scheduler_file(folder)
    scheduler = _read(told)
    _check_unet(config, unet)
    made = training(scheduler, told, integer=config.get("time_embedding_type") == "learned")
    net = UNet2DModel.from_config(config)
    weights = next((unet / name for name in WEIGHTS if (unet / name).is_file()), unet / WEIGHTS[0])
    load_weights(net, renamed(load_state_dict_file(weights), net), weights)
    side = config.get("sample_size")
    if side is not None:
        side = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
    prior = Network(
        Negative(net.float()) if made.negative else net.float(),
        shape=(config.get("in_channels", 3), None, None),
        parametrization=made.parametrization,
        schedule=made.schedule,
        sigma_data=made.sigma_data,
        range=range,
        variance=variance,
        sigma_min=made.sigma_min if sigma_min is None else sigma_min,
        sigma_max=made.sigma_max if sigma_max is None else sigma_max,
        multiple=2 ** (len(net.config.block_out_channels) - 1),
        autocast=autocast,
        train_size=side,
    )
    return prior.to(device) if device is not None else prior


class Negative(nn.Module):
    """A network with the other sign."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return -self.net(x, label).sample


def renamed(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """The tensors under the names of today, as the library itself renames them on loading."""
    wanted, new = set(net.state_dict()), {}
    for name, tensor in state.items():
        block, _, kind = name.removesuffix(".weight").removesuffix(".bias").rpartition(".")
        today = f"{block}.{RENAMED[kind]}.{name.rpartition('.')[2]}" if kind in RENAMED else name
        new[today if name not in wanted and today in wanted else name] = tensor
    return new


def _check_folder(folder: Path) -> None:
    """Raise ``ValueError`` where the folder is a file, of another kind, a pipeline of latents, or a
    prior of this package."""
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file; name the folder that has unet/config.json "
            "and scheduler/scheduler_config.json"
        )
    if not any(
        (folder / name).exists()
        for name in ("unet", "config.json", "scheduler", "scheduler_config.json", "card.json")
    ):
        raise FileNotFoundError(
            f"no model of the diffusers library in {folder}{places.place_description(folder)}"
        )
    latent = next((part for part in AUTOENCODERS if (folder / part).is_dir()), None)
    if latent is not None:
        raise ValueError(
            f"the network in {folder} models the latents of an autoencoder "
            f"({latent}/), which are no images"
        )
    if (folder / "card.json").is_file():
        raise ValueError(
            f"{folder} is a prior of this package (card.json): "
            f"load it by from_pretrained, or prior: {{path: {folder}}}"
        )


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(
            f"no {file.name} in {file.parent}; "
            "a diffusers folder has unet/config.json and scheduler/scheduler_config.json"
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
        raise ValueError(
            f"{folder} holds a {kind}; "
            "only the unconditional UNet2DModel is a prior of images by itself"
        )
    for name in ("class_embed_type", "num_class_embeds"):
        if config.get(name) is not None:
            raise ValueError(
                f"the network in {folder} is conditioned on a class ({name}={config[name]!r}); "
                "wrap it in Network with the class fixed"
            )
    if config.get("time_embedding_type") == "fourier":
        raise ValueError(
            f"the network in {folder} is told sigma through Fourier features; "
            "wrap it in Network(parametrization='score', schedule=VE)"
        )
