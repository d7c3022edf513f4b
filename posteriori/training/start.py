"""The weights that a training begins with, of a prior that was trained before."""

from __future__ import annotations

import torch

from posteriori.priors.network import Network
from posteriori.priors.pretrained import read_card, read_network
from posteriori.priors.state_dicts import load_weights
from posteriori.priors.unet import UNet
from posteriori.training.config import TrainingConfig

_SHAPE = ("channels", "widths", "blocks", "unshuffle", "embedding")
# What a network may be given beside image and level, and the objective that trains it so.
_GIVEN = {
    "masked": "ambient",
    "condition": "conditional",
    "coloured": "coloured-noise",
    "estimates": "{name: coloured-noise, shown: true}",
    "filled": "{name: coloured-noise, shown: true, filled: true}",
}
# Of these a network may begin to be given more than the prior: at no weight.
_ADDED = ("coloured", "estimates", "filled")


def started(network: UNet, config: TrainingConfig) -> str | None:
    """Fill a network with the weights that it starts from, and tell their sha256; None where there
    are none. What it is given beside those of the prior, and its part of the output, begins at no
    weight. Raises ``ValueError`` for a prior of another network or preconditioning."""
    if config.start is None:
        return None
    prior, card = read_network(config.start), read_card(config.start)
    if (why := _unlike(prior, network, config)) is not None:
        raise ValueError(f"start: the prior in {config.start} is {why}")
    assert isinstance(prior.net, UNet)  # as ``_unlike`` has found
    own, weights = network.state_dict(), prior.net.state_dict()
    weights = {name: t for name, t in own.items() if name.startswith("embed.colour.")} | weights
    for name in ("enter.weight", "leave.weight", "leave.bias"):
        first, begun = weights[name], torch.zeros_like(own[name])
        begun[tuple(map(slice, first.shape))] = first
        weights[name] = begun
    load_weights(network, weights, config.start)
    return card.sha256


def _unlike(prior: Network, network: UNet, config: TrainingConfig) -> str | None:
    """Why a network cannot begin with the weights of a prior, and what to do."""
    if prior.sigma_data != config.sigma_data:
        kind, ours = "with a schedule", f"this run trains one of sigma_data {config.sigma_data}"
        if prior.sigma_data is None:
            return f"a network {kind}, {ours}: begin without start"
        kind = f"of sigma_data {prior.sigma_data}"
        return f"a network {kind}, {ours}: state sigma_data as the prior has it"
    if not isinstance(prior.net, UNet):
        return f"no UNet, as this run trains, but {type(prior.net).__name__}: begin without start"
    theirs, own = prior.net.arguments, network.arguments
    for name in _SHAPE:
        if theirs[name] != own[name]:
            return (
                f"a network of {name} {theirs[name]}, this run trains one of {own[name]}: state "
                f"network.{name} as the prior has it, or begin without start"
            )
    for name, goal in _GIVEN.items():
        then, now = theirs.get(name), own.get(name)
        if then != now and (then or name not in _ADDED):
            return (
                f"a network with {name}: {then}, this run trains one with {name}: {now}; "
                f"{'train it on' if then else 'start from a prior that was trained'} with "
                f"objective: {goal}, or begin without start"
            )
    return None
