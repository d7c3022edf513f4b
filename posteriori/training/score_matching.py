"""Denoising score matching: train a network to be E[x0 | x0 + sigma z].

    minimise  E_{x0, ln sigma ~ N, z}  w(sigma) ||D(x0 + sigma z, sigma) - x0||^2,   w = (sigma^2 + d^2) / (sigma d)^2

w makes every noise level's target a unit-variance regression for the raw network. Step k draws its crops and its noise from
(seed, k) alone, so a run that was killed and resumed passes through the same states as one that was not.

Reference: Vincent, A connection between score matching and denoising autoencoders, 2011; weighting of Karras et al. 2022, table 1.
"""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from posteriori.files import write_bytes
from posteriori.priors import edm
from posteriori.priors.unet import UNet
from posteriori.training.config import Digits, Optimizer, Training
from posteriori.training.data import Crops, read_folders, read_npz


class Rates:
    """The optimiser(s) of a run behind one call: set the rate, clip, step."""

    def __init__(self, network: nn.Module, config: Optimizer) -> None:
        self.config, self.network = config, network
        inner = []
        if config.name == "muon":
            if not hasattr(torch.optim, "Muon"):
                raise RuntimeError(f"optimizer 'muon' needs torch >= 2.9, this is {torch.__version__}; use 'adamw' or upgrade")
            inner = [p for name, p in network.named_parameters() if p.ndim == 4 and name.split(".")[0] not in ("enter", "leave")]
        chosen = {id(p) for p in inner}
        # Muon works on matrices: these share the memory of the convolution kernels, one row per output channel.
        self.kernels = [(p, nn.Parameter(p.detach().flatten(1))) for p in inner]
        rest = [p for p in network.parameters() if id(p) not in chosen]
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=config.rate, weight_decay=0.0)]
        if inner:
            matrices = [m for _, m in self.kernels]
            self.parts.append(torch.optim.Muon(matrices, lr=config.rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))

    def step(self, fraction: float) -> None:
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        for kernel, matrix in self.kernels:
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.config.rate * fraction
            part.step()
        self.network.zero_grad()


def crops(config: Training) -> Crops:
    data = config.data
    if isinstance(data, Digits):
        return Crops(read_npz(data.file, data.key, data.crop), data.crop, turns=data.turns)
    images, weights = read_folders(data.folders, config.network.channels, data.scales, data.crop)
    return Crops(images, data.crop, weights, data.turns)


def loss(network: nn.Module, x0: Tensor, config: Training, step: int) -> Tensor:
    """The weighted loss of one batch (0-d), with noise drawn from (seed, step)."""
    rng = np.random.default_rng([config.seed, step, 1])
    level = torch.from_numpy(np.exp(config.noise.log_mean + config.noise.log_std * rng.standard_normal(len(x0)))).float()
    z = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
    autocast = torch.bfloat16 if config.autocast == "bfloat16" else None
    rows = level.view(-1, 1, 1, 1)
    out = edm.denoise(network, x0 + rows * z, level, config.sigma_data, autocast)
    weight = (rows**2 + config.sigma_data**2) / (rows * config.sigma_data) ** 2
    return (weight * (out - x0).square()).mean()


def save_atomically(state: dict[str, object], file: Path) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    write_bytes(file, content.getvalue())


def train(config: Training, folder: str | Path, *, progress: bool = True) -> nn.Module:
    """Run (or go on with) a training run in ``folder``; returns the network with averaged weights.

    ``folder/checkpoint.pt`` holds network, average, optimiser and step, replaced atomically every ``checkpoint_every`` steps.
    Raises ``FloatingPointError`` when the loss stops being finite; the last checkpoint is then still good.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    network = UNet(**config.network.model_dump())
    average = copy.deepcopy(network)
    rates = Rates(network, config.optimizer)
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        for part, saved in zip(rates.parts, state["optimizer"], strict=True):
            part.load_state_dict(saved)
        start = state["step"]
    source = crops(config)
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, disable=not progress, desc=config.name, mininterval=5)
    smooth = None
    for step in bar:
        value = loss(network, source.batch(config.batch, config.seed, step), config, step)
        if not bool(value.isfinite()):
            raise FloatingPointError(f"the loss is {value.item()} at step {step}; lower optimizer.rate and go on from {checkpoint}")
        value.backward()
        rates.step(min(1.0, (step + 1) / config.optimizer.warmup, (config.steps - step) / config.optimizer.decay))
        # The average warms up, so that the first steps are forgotten quickly.
        keep = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - keep)
        smooth = value.item() if smooth is None else 0.99 * smooth + 0.01 * value.item()
        bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            optimizers = [part.state_dict() for part in rates.parts]
            save_atomically(
                {"network": network.state_dict(), "average": average.state_dict(), "optimizer": optimizers, "step": step + 1}, checkpoint
            )
    return average.eval()
