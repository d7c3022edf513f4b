"""A latent prior as a folder.

latent.json               scale, shift, range, the autoencoder and its arguments, sha256
autoencoder.safetensors   its weights, and the probe images on which it is checked
prior/                    the prior of latents, as ``save_pretrained`` writes a network
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file

from posteriori.priors.architectures.autoencoder import ConvAutoencoder
from posteriori.priors.autoencoders import Autoencoder
from posteriori.priors.latent import Latent
from posteriori.priors.network import Network, Precision
from posteriori.priors.pretrained import file_digest, read_network, save_pretrained
from posteriori.priors.state_dicts import inspect, load_weights
from posteriori.storage import write_text, written_whole

LATENT_CARD = "latent.json"
# Autoencoders that a card may name: each keeps its ``arguments``, ``factor`` and channels.
_AUTOENCODERS: dict[str, Any] = {"ConvAutoencoder": ConvAutoencoder}
PROBE = "probe"
_Numbers = float | list[Any]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LatentCard(BaseModel):
    """The content of latent.json. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    autoencoder: str
    arguments: dict[str, Any]
    checkpointing: bool
    scale: _Numbers
    shift: _Numbers
    range: tuple[float, float] | None
    round_trip: _Positive
    variance_ratio: _Positive
    sha256: str
    description: str = ""
    training_data: str = ""
    licence: str = ""
    training: dict[str, Any] | None = None


def save_latent(
    latent: Latent,
    folder: str | Path,
    *,
    storage: Literal["float32", "float16"] = "float32",
    **told: Any,
) -> None:
    """Write a latent prior to a folder, its parts first. told: description, training_data, licence
    and training, as for ``save_pretrained``.

    Raises ``TypeError`` for an autoencoder that no card can name, or a prior of latents that is no
    ``Network``; ``ValueError`` for weights that are not finite.
    """
    coder = latent.autoencoder
    net: Any = coder.net if isinstance(coder, Autoencoder) else coder
    name = type(net).__name__
    if not isinstance(coder, Autoencoder) or _AUTOENCODERS.get(name) is not type(net):
        raise TypeError(
            f"a {name} cannot be rebuilt from a card; "
            f"autoencoders that can: {', '.join(sorted(_AUTOENCODERS))}"
        )
    folder = Path(folder)
    save_pretrained(latent.prior, folder / "prior", storage=storage)
    dtype = getattr(torch, storage)
    tensors = {
        f"net.{key}": value.detach().cpu().to(dtype).contiguous()
        for key, value in net.state_dict().items()
    }
    bad = [key for key, value in tensors.items() if not bool(value.isfinite().all())]
    if bad:
        raise ValueError(f"{len(bad)} weights are not finite in {storage} (first: {bad[0]})")
    if latent.probe is not None:
        tensors[PROBE] = latent.probe.detach().cpu().to(dtype).contiguous()
    place = folder / "autoencoder.safetensors"
    with written_whole(place, sum(tensor.nbytes for tensor in tensors.values())) as beside:
        save_file(tensors, str(beside))
        card = LatentCard(
            autoencoder=name,
            arguments=net.arguments,
            checkpointing=coder.checkpointing,
            scale=_numbers(latent.scale),
            shift=_numbers(latent.shift),
            range=latent.image_range,
            round_trip=latent.round_trip,
            variance_ratio=latent.variance_ratio,
            sha256=file_digest(beside),
            **told,
        )
    write_text(folder / LATENT_CARD, card.model_dump_json(indent=1))


def load_latent(
    folder: str | Path,
    device: str | torch.device | None = None,
    *,
    autocast: Precision | None = None,
) -> Latent:
    """The prior that ``save_latent`` wrote, in single precision, its round trip checked on the
    probe that was kept with it.

    Raises ``FileNotFoundError`` for a missing part; ``ValueError`` for a card of another format,
    for damaged weights, and where the check fails.
    """
    folder = Path(folder)
    card, weights = read_latent_card(folder), folder / "autoencoder.safetensors"
    inspect(weights)
    if file_digest(weights) != card.sha256:
        raise ValueError(
            f"{weights} ({weights.stat().st_size} bytes) is not the file that its card describes: "
            "the sha256 differs; fetch it again"
        )
    try:
        net = _AUTOENCODERS[card.autoencoder](**card.arguments)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ValueError(
            f"{folder / LATENT_CARD}: no {card.autoencoder} can be made from {card.arguments}: "
            f"{error}"
        ) from None
    tensors = load_file(weights)
    probe = tensors.pop(PROBE, None)
    state = {key.removeprefix("net."): value for key, value in tensors.items()}
    load_weights(net, state, weights)
    network: Network = read_network(folder / "prior", autocast=autocast)
    coder = Autoencoder(
        net.float(),
        factor=net.factor,
        channels=net.channels,
        latent_channels=net.latent_channels,
        checkpointing=card.checkpointing,
    )
    latent = Latent(
        network,
        coder,
        scale=_value(card.scale),
        shift=_value(card.shift),
        range=card.range,
        probe=None if probe is None else probe.float(),
        check=probe is not None,
        round_trip=card.round_trip,
        variance_ratio=card.variance_ratio,
    )
    return latent if device is None else latent.to(device)


def read_latent_card(folder: str | Path) -> LatentCard:
    """The card of a latent prior's folder. Raises as ``load_latent``."""
    place = Path(folder) / LATENT_CARD
    if not place.is_file():
        raise FileNotFoundError(f"no latent prior in {folder}: {LATENT_CARD} is missing")
    try:
        card = LatentCard.model_validate(json.loads(place.read_text()))
    except ValidationError as error:
        parts = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"{place}: {'; '.join(parts[:5])}") from None
    except ValueError as error:
        raise ValueError(f"{place} is not JSON: {error}") from None
    if card.autoencoder not in _AUTOENCODERS:
        raise ValueError(
            f"{place}: unknown autoencoder {card.autoencoder!r}; "
            f"known are {', '.join(sorted(_AUTOENCODERS))}"
        )
    return card


def _numbers(value: float | torch.Tensor) -> _Numbers:
    return value.tolist() if isinstance(value, torch.Tensor) else float(value)


def _value(numbers: _Numbers) -> float | torch.Tensor:
    return torch.tensor(numbers) if isinstance(numbers, list) else float(numbers)
