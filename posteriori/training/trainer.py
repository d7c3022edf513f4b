"""The loop of a training run: one objective, its optimisers, averaged weights, checkpoints.

What a network is trained to be is a loss of ``training.objectives``. A run that was killed and
resumed passes through the same states as one that was not: batch, noise and whatever else is random
in step k are drawn from (seed, k) alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from posteriori.priors.architectures.autoencoder import ConvAutoencoder
from posteriori.priors.unet import UNet
from posteriori.training import session
from posteriori.training.config import (
    AnyConfig,
    AutoencoderConfig,
    ColouredNoiseObjective,
    ConditionalObjective,
    Optimizer,
    TrainingConfig,
)
from posteriori.training.data import Crops
from posteriori.training.data_kinds import Images
from posteriori.training.laps import LapImages
from posteriori.training.objectives import LOSSES
from posteriori.training.sources import training_images
from posteriori.training.start import started

# The noise of the held-out loss is that of steps which no run reaches.
_HELD = 2**40
HELD_DRAWS = 4


class Rates:
    """The optimiser(s) of a run behind one call: set the rate, clip, step."""

    def __init__(self, network: nn.Module, config: Optimizer) -> None:
        self.config, self.network = config, network
        inner = []
        if config.name == "muon":
            if not hasattr(torch.optim, "Muon"):
                raise RuntimeError(
                    f"optimizer 'muon' needs torch >= 2.9, this is {torch.__version__}; use "
                    f"'adamw' or upgrade"
                )
            inner = [
                p
                for name, p in network.named_parameters()
                if p.ndim == 4 and name.split(".")[0] not in ("enter", "leave")
            ]
        chosen = {id(p) for p in inner}
        # Muon works on matrices: these share the memory of the convolution kernels, one row per
        # output channel.
        self.kernels = [(p, nn.Parameter(p.detach().flatten(1))) for p in inner]
        rest = [p for p in network.parameters() if id(p) not in chosen]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=config.rate, weight_decay=0.0)
        ]
        if inner:
            matrices = [m for _, m in self.kernels]
            self.parts.append(
                torch.optim.Muon(
                    matrices, lr=config.rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
                )
            )

    def step(self, fraction: float) -> None:
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        for kernel, matrix in self.kernels:
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.config.rate * fraction
            part.step()
        self.network.zero_grad()


def loss(network: nn.Module, batch: Tensor, config: AnyConfig, step: int) -> Tensor:
    """The loss of one batch (0-d) under the objective of the configuration; what is random in it is
    drawn from (seed, step)."""
    return LOSSES[config.objective.name](network, batch, config, step)


def network_of(config: TrainingConfig) -> UNet:
    """A network as the configuration describes it; one that is given masks for "ambient", levels
    by pixel for "noise-maps", these and colours for "coloured-noise", an embedding for
    "conditional"."""
    goal = config.objective
    coloured = goal if isinstance(goal, ColouredNoiseObjective) else None
    return UNet(
        **config.network.model_dump(),
        masked=goal.name == "ambient",
        noise_maps=goal.name in ("noise-maps", "coloured-noise"),
        coloured=coloured is not None,
        estimates=config.sigma_data if coloured and coloured.shown else None,
        filled=coloured is not None and coloured.filled,
        condition=goal.width if isinstance(goal, ConditionalObjective) else 0,
    )


def trained_module(config: AnyConfig) -> UNet | ConvAutoencoder:
    """What the configuration trains, at its start."""
    if isinstance(config, AutoencoderConfig):
        return ConvAutoencoder(**config.network.model_dump())
    return network_of(config)


def held_out_loss(
    network: nn.Module, held: Crops, config: AnyConfig, device: torch.device
) -> float:
    """The loss on crops of images that were not trained on: the same crops and the same noise
    whenever it is asked for."""
    x0 = held.batch(config.held_out.crops, config.seed, _HELD).to(device)
    total, parts = 0.0, x0.split(config.batch)
    with torch.no_grad():
        for k, part in enumerate(parts):
            for draw in range(HELD_DRAWS):
                total += (
                    len(part) * loss(network, part, config, _HELD + HELD_DRAWS * k + draw).item()
                )
    return total / (HELD_DRAWS * len(x0))


def device_named(name: str) -> torch.device:
    """The device of a name; "auto" is a CUDA GPU where there is one, else the CPU. Raises
    ``ValueError`` for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # torch without CUDA raises the second
        raise ValueError(
            f"device {name!r} is not available here: {str(error).splitlines()[0]}"
        ) from None


class Trainer:
    """A network with its average, its optimisers, the step that it has reached and the losses on
    the way."""

    def __init__(self, config: AnyConfig, source: Crops, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.network = trained_module(config)
        settings = config.model_dump(mode="json")
        if isinstance(config, TrainingConfig):
            assert isinstance(self.network, UNet)
            settings["start"] = started(self.network, config)
        self.network.to(device)
        if config.data.crop % self.network.multiple:
            raise ValueError(
                f"data.crop is {config.data.crop}, this network takes sides that are multiples of "
                f"{self.network.multiple}"
            )
        self.average = copy.deepcopy(self.network)
        self.rates = Rates(self.network, config.optimizer)
        self.record = session.comparable(settings, source.record())
        self.reached = 0
        self.smooth: float | None = None
        self.history: list[dict[str, Any]] = []

    def load(self, file: Path) -> None:
        state = session.load_session(file, self.device, self.record)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for part, saved in zip(self.rates.parts, state["optimizer"], strict=True):
            part.load_state_dict(saved)
        self.reached, self.smooth, self.history = state["step"], state["smooth"], state["history"]

    def save(self, file: Path) -> None:
        optimizers = [part.state_dict() for part in self.rates.parts]
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": optimizers,
        }
        session.save_session(
            state
            | {
                "step": self.reached,
                "smooth": self.smooth,
                "history": self.history,
                "record": self.record,
            },
            file,
        )

    def step(self, x0: Tensor) -> None:
        """One step on a batch. Raises ``FloatingPointError`` when the loss is not finite."""
        config, step = self.config, self.reached
        value = loss(self.network, x0.to(self.device), config, step)
        if not bool(value.isfinite()):
            raise FloatingPointError(
                f"the loss is {value.item()} at step {step}; lower optimizer.rate and go on from "
                f"the last checkpoint"
            )
        value.backward()
        self.rates.step(
            min(
                1.0,
                (step + 1) / config.optimizer.warmup,
                (config.steps - step) / config.optimizer.decay,
            )
        )
        # The average warms up, so that the first steps are forgotten quickly.
        keep = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.network.parameters()), 1 - keep
            )
        self.smooth = (
            value.item() if self.smooth is None else 0.99 * self.smooth + 0.01 * value.item()
        )
        self.reached = step + 1

    def measure(self, held: Crops | None) -> str:
        """Enter the losses of this step into the history, once; a sentence with them."""
        if not self.history or self.history[-1]["step"] != self.reached:
            value = (
                None
                if held is None
                else held_out_loss(self.average, held, self.config, self.device)
            )
            self.history.append({"step": self.reached, "loss": self.smooth, "held_out": value})
        last = self.history[-1]
        held_out = (
            "" if last["held_out"] is None else f", on held-out images {last['held_out']:.4f}"
        )
        return f"step {last['step']} of {self.config.steps}: loss {last['loss']:.4f}{held_out}"


def train(
    config: AnyConfig,
    folder: str | Path,
    *,
    progress: bool = True,
    device: str = "cpu",
    say: Callable[[str], None] = lambda text: None,
) -> nn.Module:
    """Run (or go on with) a training run in ``folder``; returns the network with averaged weights.

    ``folder/checkpoint.pt`` is replaced atomically every ``checkpoint_every`` steps, at which the
    loss on held-out images is measured; see ``training.session`` for what it is gone on with.
    Ctrl-C ends the run after its step, with a checkpoint, as ``KeyboardInterrupt``.
    device: "auto", or a name of torch. say: told what is held out, and the losses.
    Raises ``FloatingPointError`` when the loss stops being finite; the last checkpoint is then
    still good.
    """
    folder, where = Path(folder), device_named(device)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    torch.set_num_threads(config.threads)
    source, held = training_images(config)
    say(_split(source, held, config))
    run = Trainer(config, source, where)
    if checkpoint.exists():
        run.load(checkpoint)
    laps = (
        LapImages(config, source, folder, run.record, say)
        if config.objective.name == "em"
        else None
    )
    bar = tqdm(
        range(run.reached, config.steps),
        initial=run.reached,
        total=config.steps,
        disable=not progress,
        desc=config.name,
        mininterval=5,
    )
    with session.at_a_keystroke() as stop:
        for step in bar:
            run.step(
                laps.batch(step, run.average)
                if laps
                else source.batch(config.batch, config.seed, step)
            )
            bar.set_postfix(loss=f"{run.smooth:.4f}", refresh=False)
            if run.reached % config.checkpoint_every == 0 or run.reached == config.steps:
                said = run.measure(held)
                run.save(checkpoint)
                say(said)
            if stop.asked and run.reached < config.steps:
                run.save(checkpoint)
                raise KeyboardInterrupt(
                    f"stopped after step {run.reached} of {config.steps}, kept in {checkpoint}; "
                    f"train goes on from there"
                )
    return run.average.eval()


def _split(source: Crops, held: Crops | None, config: AnyConfig) -> str:
    total = len(source.images) + (len(held.images) if held else 0)
    if held is None:
        return f"{total} images, none of them held out"
    scales = (
        " (all scales of a file together)"
        if isinstance(config.data, Images) and len(config.data.scales) > 1
        else ""
    )
    return (
        f"{len(source.images)} images to train on, {len(held.images)} of {total} held out by "
        f"seed {config.seed}{scales}"
    )
