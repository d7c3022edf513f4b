"""Image networks saved by the ``diffusers`` library, from a folder on this machine.

    a pipeline       folder/unet/config.json             or folder/transformer/config.json
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
from typing import Any, cast

import torch
from torch import Tensor, nn

from posteriori import places
from posteriori.priors.architectures.library import NETWORK_KINDS, DiffusersNet, NetworkKind
from posteriori.priors.network import Network, Precision
from posteriori.priors.schedulers import training
from posteriori.priors.state_dicts import load_state_dict_file, load_weights

# The names of attention weights before 2023, when each block had its own class for them.
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
AUTOENCODERS = ("vae", "vqvae", "movq")
_PARTS = ("unet", "transformer")
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
    label: int | None = None,
    autocast: Precision | None = None,
) -> Network:
    """A ``UNet2DModel`` or a ``DiTTransformer2DModel`` with its scheduler as a prior; parameters as
    for ``Network``. Nothing is downloaded.

    sigma_min, sigma_max: ends of sampling grids; those of the scheduler file when None.
    label: the class, of a network that is conditioned on one; without it the prior is given one by
    ``prior.at(class_labels=...)``, and a transformer takes no class.
    Raises ``ImportError`` without the diffusers library, ``FileNotFoundError`` naming the missing
    file, ``ValueError`` for a network or a scheduler that is not an image diffusion this package
    knows, and for weights that do not fit. Warns of a scheduler for distilled networks.
    """
    try:
        import diffusers  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "from_diffusers needs the diffusers library: "
            f"pip install posteriori[diffusers] ({error})"
        ) from None
    folder = Path(folder)
    _check_folder(folder)
    inner = next((folder / part for part in _PARTS if (folder / part).is_dir()), folder)
    config, told = _read(inner / "config.json"), _scheduler_file(folder)
    scheduler = _read(told)
    kind = _kind(config, inner)
    made = training(scheduler, told, integer=config.get("time_embedding_type") == "learned")
    net = DiffusersNet(kind, config, made.negative)
    state, source = _weights(inner)
    load_weights(net.net, _renamed(state, net.net), source)
    side = config.get("sample_size")
    if side is not None:
        side = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
    channels = config.get("in_channels", 3)
    fixed = kind == "DiTTransformer2DModel"  # it has a place for each patch of one square
    model: Any = net.net
    prior = Network(
        net.float(),
        shape=(channels, *side) if fixed and side else (channels, None, None),
        parametrization=made.parametrization,
        schedule=made.schedule,
        sigma_data=made.sigma_data,
        range=range,
        variance=variance,
        sigma_min=made.sigma_min if sigma_min is None else sigma_min,
        sigma_max=made.sigma_max if sigma_max is None else sigma_max,
        multiple=1 if fixed else 2 ** (len(model.config.block_out_channels) - 1),
        autocast=autocast,
        train_size=side,
        conditions=net.conditions,
    )
    if label is not None:
        prior = labelled(prior, "class_labels", label, net.classes, str(folder))
    return prior.to(device) if device is not None else prior


def labelled(prior: Network, name: str, label: int, classes: int | None, source: str) -> Network:
    """The prior of one class. Raises ``ValueError`` for a class that the network does not have."""
    if classes is None:
        raise ValueError(f"{source} is not conditioned on a class; leave label out")
    if not 0 <= label < classes:
        raise ValueError(f"label must lie in 0 .. {classes - 1}, got {label}")
    twin = prior.at(**{name: torch.tensor(label)})
    assert isinstance(twin, Network)  # only a condition was given
    return twin


def _weights(folder: Path) -> tuple[dict[str, Tensor], Path]:
    """The tensors of a network's folder, from one file or from those that an index names."""
    index = folder / f"{WEIGHTS[0]}.index.json"
    if not index.is_file():
        file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
        file = file or folder / WEIGHTS[0]
        return load_state_dict_file(file), file
    state: dict[str, Tensor] = {}
    for name in sorted(set(_read(index).get("weight_map", {}).values())):
        if Path(name).name != name:
            raise ValueError(f"{index} names a file outside its folder: {name!r}")
        state |= load_state_dict_file(folder / name)
    return state, index


def _renamed(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
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
        for name in (*_PARTS, "config.json", "scheduler", "scheduler_config.json", "card.json")
    ):
        raise FileNotFoundError(
            f"no model of the diffusers library in {folder}{places.place_description(folder)}"
        )
    latent = next((part for part in AUTOENCODERS if (folder / part).is_dir()), None)
    if latent is not None:
        raise ValueError(
            f"the network in {folder} models the latents of an autoencoder "
            f"({latent}/), which are no images; from_diffusers_pipeline makes priors of pipelines"
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


def _kind(config: dict[str, Any], folder: Path) -> NetworkKind:
    """The class that a configuration is of. Raises ``ValueError`` where a network is told more than
    image, level and class."""
    kind = config.get("_class_name", "UNet2DModel")
    if kind == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero":
        kind = "DiTTransformer2DModel"  # the name of the class before 2024
    if kind not in NETWORK_KINDS:
        raise ValueError(
            f"{folder} holds a {kind}; only UNet2DModel and DiTTransformer2DModel are priors of "
            "images by themselves"
        )
    if config.get("class_embed_type") is not None:
        raise ValueError(
            f"the network in {folder} is conditioned on a class "
            f"(class_embed_type={config['class_embed_type']!r}); "
            "wrap it in Network with the class fixed"
        )
    if config.get("time_embedding_type") == "fourier":
        raise ValueError(
            f"the network in {folder} is told sigma through Fourier features; "
            "wrap it in Network(parametrization='score', schedule=VE)"
        )
    return cast(NetworkKind, kind)
