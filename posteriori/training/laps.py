"""What a run of expectation maximisation trains on: images drawn anew at the beginning of each lap.

Lap 0 draws with a Gaussian learned from the measurements, later laps with the averaged network at
the step on which they begin. ``lap-000.npz`` and so on hold the images beside the checkpoint. They
are a function of the checkpoint at that step alone: a run that was killed, in whatever step or
while a lap was drawn, goes on to the same bits.
"""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posteriori.likelihood import Likelihood
from posteriori.methods.explicit.mmps import MMPS
from posteriori.noise import Gaussian as GaussianNoise
from posteriori.operators.mask import Mask
from posteriori.priors.base import Prior
from posteriori.priors.mixture import Gaussian
from posteriori.priors.network import Network
from posteriori.priors.unet import UNet
from posteriori.storage import write_bytes
from posteriori.training.config import EMObjective, TrainingConfig
from posteriori.training.data import Crops
from posteriori.training.data_kinds import MaskedImages
from posteriori.training.em import expectation
from posteriori.training.gaussian_family import fit_gaussian

_RANGE = (-1.0, 1.0)


class LapImages:
    """Batches of a run in ``folder`` from the measurements ``source``, whose last channel is their
    mask. record: of the run, which the images kept in the folder must have."""

    def __init__(
        self,
        config: TrainingConfig,
        source: Crops,
        folder: Path,
        record: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        assert isinstance(config.data, MaskedImages)
        self.config, self.folder, self.say = config, folder, say
        self.record = {name: value for name, value in record.items() if name != "steps"}
        self.stack = torch.from_numpy(np.stack(source.images)).permute(0, 3, 1, 2)
        self.likelihoods = measurements(self.stack, config.data.std)
        self.number, self.crops = -1, source

    def batch(self, step: int, average: nn.Module) -> Tensor:
        """That of a step, (batch, C, crop, crop), from the images of its lap. average: the network
        at that step, with which a lap that begins there is drawn."""
        objective = self.config.objective
        assert isinstance(objective, EMObjective)
        number = step // objective.lap
        if number != self.number:
            images = self._images(number, step, average)
            data = self.config.data
            assert isinstance(data, MaskedImages)
            self.crops = Crops(list(images.transpose(0, 2, 3, 1)), data.crop, None, data.turns)
            self.number = number
        return self.crops.batch(self.config.batch, self.config.seed, step)

    def _images(self, number: int, step: int, average: nn.Module) -> np.ndarray:
        file = self.folder / f"lap-{number:03d}.npz"
        if file.exists():
            return _read(file, self.record)
        objective, config = self.config.objective, self.config
        assert isinstance(objective, EMObjective)
        if step != number * objective.lap:
            raise ValueError(
                f"{file} is missing, which the run has trained on since step "
                f"{number * objective.lap}; choose another folder to begin anew"
            )
        prior = self._start(objective) if number == 0 else self._network(average, number - 1)
        count = len(self.likelihoods)
        self.say(f"lap {number}: one image for each of {count} measurements")
        images = expectation(
            prior,
            self.likelihoods,
            MMPS(iterations=objective.iterations),
            steps=objective.sampling,
            seed=config.seed + number * count,
        ).numpy()
        content = io.BytesIO()
        np.savez(content, images=images, record=np.array(json.dumps(self.record, sort_keys=True)))
        write_bytes(file, content.getvalue())
        return images

    def _start(self, objective: EMObjective) -> Prior:
        start = pixels(self.stack, self.config.data.std)  # type: ignore[union-attr]
        if objective.start == "pixels":
            return start
        fit = fit_gaussian(self.likelihoods, start, iterations=objective.start_iterations)
        self.say(
            f"Gaussian start: log-likelihood {fit.log_likelihood[0]:.6g} to "
            f"{fit.log_likelihood[-1]:.6g} in {objective.start_iterations} iterations"
        )
        return fit.prior

    def _network(self, average: nn.Module, before: int) -> Prior:
        net, card = copy.deepcopy(average), self.config.card
        assert isinstance(net, UNet)
        spread = _read(self.folder / f"lap-{before:03d}.npz", self.record).var(0).mean()
        return Network(
            net,
            shape=(self.config.network.channels, None, None),
            sigma_data=self.config.sigma_data,
            variance=float(spread),
            sigma_min=card.sigma_min,
            sigma_max=card.sigma_max,
            multiple=net.multiple,
        )


def measurements(stack: Tensor, std: float) -> list[Likelihood]:
    """Of images (N, C + 1, H, W) in [-1, 1] whose last channel is their mask: the numbers that were
    measured of each. Images of one mask have one operator."""
    masks: dict[bytes, Mask] = {}
    noise, likelihoods = GaussianNoise(std), []
    shape = (stack.shape[1] - 1, *stack.shape[2:])
    for image in stack:
        seen = image[-1] > 0
        A = masks.setdefault(seen.numpy().tobytes(), Mask(seen, shape))
        likelihoods.append(Likelihood(A(image[None, :-1])[0], A, noise, range=_RANGE, check=False))
    return likelihoods


def pixels(stack: Tensor, std: float) -> Gaussian:
    """Independent numbers with the mean and variance of those that were measured, less that of
    their noise; of a number that shows none, a thousandth of the average."""
    y, mask = stack[:, :-1].double(), stack[:, -1:].double()
    seen = mask.sum(0).expand(y.shape[1:])
    known = seen.clamp_min(1)
    mean = (mask * y).sum(0) / known
    variance = (mask * (y - mean).square()).sum(0) / known - std**2
    least = variance.mean().clamp_min(1e-3) * 1e-3
    return Gaussian(mean, variance.clamp_min(least).flatten(), range=_RANGE)


def _read(file: Path, record: dict[str, Any]) -> np.ndarray:
    try:
        with np.load(file, allow_pickle=False) as kept:
            images, then = kept["images"], json.loads(str(kept["record"]))
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}; choose another folder") from None
    if then != json.loads(json.dumps(record)):
        raise ValueError(
            f"{file} was drawn in a run with other settings or other data; choose another folder"
        )
    return images
