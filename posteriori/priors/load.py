"""One function for whatever holds a network: folders, other people's checkpoints, objects.

    our folder               card.json or latent.json: ``from_pretrained``
    diffusers folder         model_index.json or config.json: ``from_diffusers``, and for latents
                             that are told a text ``from_diffusers_pipeline``
    owner/model              the same, in the hub's cache on this machine
    a file of weights        .safetensors, .pt, .pth, .ckpt, .pkl: the network is recognised by
                             names and shapes of its tensors, see ``posteriori.priors.foreign``
    D(x, sigma)              a denoiser: a deepinv object, an nn.Module, any callable
    a ``Prior``              returned as it is

Nothing that a file names is imported or run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posteriori import places
from posteriori.priors.architectures.library import DiffusersNet
from posteriori.priors.base import Prior
from posteriori.priors.diffusers import from_diffusers
from posteriori.priors.foreign import adm, edm, edm2, kdiffusion, monai, reading, score_sde
from posteriori.priors.foreign.found import Found, Named, Stated, Weights, parameters
from posteriori.priors.latent import Latent
from posteriori.priors.network import Network, Parametrization, Precision
from posteriori.priors.pipelines import (
    from_diffusers_pipeline,
    is_hub_name,
    pipeline_folder,
    pipeline_kind,
)
from posteriori.priors.pretrained import from_pretrained, read_card
from posteriori.priors.schedule import VE, Schedule

_Build = Callable[[Weights, Stated], Found]
# What each family is called, how it is recognised, and what makes a prior of it.
RECOGNISERS: dict[str, tuple[reading.Recogniser, _Build]] = {
    "ADM (guided-diffusion, improved-diffusion)": (adm.recognises, adm.build),
    "EDM (DDPM++, NCSN++, ADM)": (edm.recognises, edm.build),
    "EDM2": (edm2.recognises, edm2.build),
    "k-diffusion (U-Net, transformers)": (kdiffusion.recognises, kdiffusion.build),
    "MONAI (DiffusionModelUNet)": (monai.recognises, monai.build),
    "score_sde (NCSN++, DDPM++)": (score_sde.recognises, score_sde.build),
}
# What tells a diffusers folder from one of ours, or from any other.
_DIFFUSERS = ("model_index.json", "unet", "transformer", "scheduler", "scheduler_config.json")
_FOLDER = ("range", "variance", "sigma_min", "sigma_max", "label", "autocast")
_PIPELINE = ("sigma_min", "sigma_max", "autocast")
_OBJECT = ("shape", "range", "variance", "sigma_min", "sigma_max", "train_size", "autocast")


def load(
    source: str | Path | Prior | Callable[[Tensor, Tensor], Any],
    device: str | torch.device | None = None,
    *,
    shape: tuple[int | None, ...] | None = None,
    range: tuple[float, float] | None = None,
    variance: float | None = None,
    parametrization: Parametrization | None = None,
    schedule: Schedule | Named | None = None,
    sigma_data: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    train_size: int | tuple[int, int] | None = None,
    heads: int | None = None,
    head_channels: int | None = None,
    new_order: bool | None = None,
    label: int | None = None,
    autocast: Precision | None = None,
    config: str | Path | None = None,
) -> Prior:
    """The prior that a file, a folder or an object holds; ``recognise`` also says what it was taken
    for.

    Parameters
    ----------
    source: see the module. An object is called with x (B, *E) and sigma, the standard deviation of
        the noise in the units of x: (B,) where it is an nn.Module, () where it is another callable.
        It returns the denoised x, and needs ``shape``, ``range``, ``sigma_min`` and ``sigma_max``,
        which nothing else can tell.
    device: where to put it; the CPU when None.
    shape, range, variance, parametrization, sigma_data, sigma_min, sigma_max, train_size, autocast:
        as for ``Network``, where the source does not say them.
    schedule: "linear", "cosine", "scaled-linear" (of 1000 steps), or an object.
    heads, head_channels: heads of every attention, or channels of every head, of an ADM network
        that is none of the published ones; of a MONAI network head_channels.
    new_order: whether it was trained with ``use_new_attention_order``.
    label: the class of a network that is conditioned on one; without it the prior is given one by
        ``prior.at``.
    config: the JSON file that a network of k-diffusion was trained with, where its own file does
        not hold it.

    Raises ``FileNotFoundError``; ``ValueError`` for a source that is not recognised, with what it
    looks like, for one that does not say what is needed, naming that, for one of which not all
    weights fit, and for a statement that the source has no use for.
    """
    stated = Stated(
        shape,
        range,
        variance,
        parametrization,
        schedule,
        sigma_data,
        sigma_min,
        sigma_max,
        train_size,
        heads,
        head_channels,
        new_order,
        label,
        autocast,
        config,
    )
    prior = recognise(source, stated).prior
    return prior if device is None else prior.to(device)


def recognise(
    source: str | Path | Prior | Callable[[Tensor, Tensor], Any], stated: Stated | None = None
) -> Found:
    """What ``source`` is taken for, with its prior. Raises as ``load``."""
    stated = stated or Stated()
    if isinstance(source, Prior):
        stated.only("a Prior", "")
        return Found(source, f"a {type(source).__name__} of this package")
    if not isinstance(source, str | Path):
        return _object(source, stated)
    path = Path(source)
    if path.is_dir() or not path.exists():
        return _folder(path, stated)
    if path.suffix.lower() not in places.ARRAYS:
        raise ValueError(f"{path} is no prior{places.place_description(path)}")
    weights = reading.read_weights(path)
    for family, (recognises, build) in RECOGNISERS.items():
        inner = reading.within(weights, recognises)
        if inner is None:
            continue
        try:
            return build(inner, stated)
        except (LookupError, ArithmeticError) as error:  # of names and shapes that were not there
            raise ValueError(
                f"{path} has tensors by the names of {family}, and they do not make a network "
                f"({type(error).__name__}: {error}): it is damaged, or of another version"
            ) from error
    raise reading.unknown(weights, ", ".join(RECOGNISERS))


def _folder(path: Path, stated: Stated) -> Found:
    ours = any((path / name).is_file() for name in ("card.json", "latent.json"))
    if not path.exists() and is_hub_name(str(path)):
        path = pipeline_folder(str(path))
    if not ours and pipeline_kind(path) is not None:
        return _pipeline(path, stated)
    if ours or not any((path / name).exists() for name in _DIFFUSERS):
        stated.only(f"{path}, a folder with a card,", "autocast")
        prior = from_pretrained(path, autocast=stated.autocast)
        if isinstance(prior, Latent):
            card = read_card(path / "prior")
            size = parameters(prior.autoencoder)
            text = f"latents of this package: {card.network}, and an autoencoder of {size}"
            return Found(prior, text, card.storage, (card.description,) if card.description else ())
        card = read_card(path)
        assert isinstance(prior.net, nn.Module)
        text = f"{card.network} of this package: {parameters(prior.net)}"
        return Found(prior, text, card.storage, (card.description,) if card.description else ())
    stated.only(f"{path}, a diffusers folder,", *_FOLDER)
    prior = from_diffusers(path, **stated.given(*_FOLDER))
    net = prior.net
    assert isinstance(net, DiffusersNet)
    notes = []
    if net.no_class is not None and stated.label is None:
        notes.append(f"no class is given: its images are those of any of its {net.classes} classes")
    kind = net.arguments["kind"]
    return Found(prior, f"{kind} of diffusers: {parameters(net)}", "", tuple(notes))


def _pipeline(path: Path, stated: Stated) -> Found:
    """``autocast`` is the precision of its weights."""
    stated.only(f"{path}, a pipeline of latents,", *_PIPELINE)
    given = stated.given(*_PIPELINE)
    weights = given.pop("autocast", "float32")
    prior = from_diffusers_pipeline(path, weights=weights, **given)
    size = parameters(prior.prior), parameters(prior.autoencoder)
    text = f"{pipeline_kind(path)}: a denoiser of latents of {size[0]}, an autoencoder of {size[1]}"
    return Found(prior, text, weights, ("it reads text: prior.conditioned(text=...)",))


class OneLevel:
    """A function of x and of one number: all rows of a batch have the same sigma, and a function
    that multiplies x by it would take a list of them for a side of the image."""

    def __init__(self, denoise: Callable[[Tensor, Tensor], Any]) -> None:
        self.denoise = denoise

    def __call__(self, x: Tensor, sigma: Tensor) -> Any:
        return self.denoise(x, sigma[0])


def _object(source: Any, stated: Stated) -> Found:
    """A denoiser D(x, sigma) as a prior: an x0 network without scaling that is told sigma."""
    what = type(source).__name__
    if not callable(source):
        raise TypeError(f"a prior is made of a path or of a denoiser D(x, sigma), got {source!r}")
    stated.only(f"the denoiser {what}", *_OBJECT)
    needed = {
        "shape": "(channels, height, width), None for any",
        "range": "(low, high) of images",
        "sigma_min": "the smallest noise level it knows",
        "sigma_max": "the largest",
    }
    missing = [f"{name}= {text}" for name, text in needed.items() if getattr(stated, name) is None]
    if missing:
        raise ValueError(f"the denoiser {what} says nothing of itself; state {', '.join(missing)}")
    assert stated.shape is not None
    assert stated.sigma_min is not None
    assert stated.sigma_max is not None
    prior = Network(
        source if isinstance(source, nn.Module) else OneLevel(source),
        shape=stated.shape,
        parametrization="x0",
        schedule=VE(stated.sigma_min, stated.sigma_max),
        range=stated.range,
        train_size=stated.size,
        autocast=stated.autocast,
        **stated.given("variance"),
    )
    count = f": {parameters(source)}" if isinstance(source, nn.Module) else ""
    return Found(prior, f"the denoiser {what}{count}, called with x and sigma")
