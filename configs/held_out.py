"""The averaged weights of a training run as a prior whose errors, in its card, are measured on
images that the run has not seen: those on images that were trained on would be too small."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from posteriori.priors import Network, load_weights, save_pretrained
from posteriori.priors.error_spectrum import measure
from posteriori.rng import Streams
from posteriori.training.config import Digits, read_config
from posteriori.training.export import _portable, errors, variance
from posteriori.training.trainer import network_of


def export(
    name: str, run: Path, target: Path, place: Path, x: Tensor, told: dict[str, object]
) -> None:
    """Write the run of ``name``.yaml as a prior in ``target``, and print its held-out figures.

    place: the file of the held-out images, of the kind that the run was trained on. x: those, (N,
    1, H, W) in [-1, 1], of which the spectrum and the figures are taken. told: what the card says
    of them.
    """
    config = read_config(Path(__file__).with_name(f"{name}.yaml"))
    checkpoint = run / "checkpoint.pt"
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    net = network_of(config)
    load_weights(net, state["average"], checkpoint)
    prior = Network(
        net.eval(),
        shape=(1, None, None),
        sigma_data=config.sigma_data,
        variance=variance(config),
        sigma_max=config.card.sigma_max,
        sigma_min=config.card.sigma_min,
        multiple=net.multiple,
    )
    files = {"file": place} if isinstance(config.data, Digits) else {"paths": (place,)}
    held = config.model_copy(update={"data": config.data.model_copy(update=files)})
    prior.errors = errors(prior, held, count=24)
    prior.spectrum = measure(prior, x)
    told = {**told, "slices": len(x), "denoising_psnr": denoising_psnr(prior, x)}
    save_pretrained(
        prior,
        target,
        storage="float16",
        description=config.card.description,
        training_data=config.card.training_data,
        licence=config.card.licence,
        training={"steps": state["step"], "config": _portable(config), "held_out": told},
    )
    print(told)


def denoising_psnr(prior: Network, x: Tensor) -> dict[str, float]:
    """PSNR in dB of D(x0 + sigma z) by sigma, for images in [-1, 1]."""
    found = {}
    for sigma in (0.02, 0.05, 0.1, 0.2, 0.5):
        z = Streams(7, range(len(x))).normal(x)
        with torch.no_grad():
            gap = prior.denoise(x + sigma * z, torch.tensor(sigma)) - x
        error = gap.double().square().mean((1, 2, 3))
        found[str(sigma)] = round(float((10 * torch.log10(4 / error)).mean()), 2)
    return found
