"""Checkpoints of EDM2: the network from names and shapes, sigma_data from the class around it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posteriori.priors.architectures.edm2 import EDM2Net
from posteriori.priors.diffusers import labelled
from posteriori.priors.foreign.found import Found, Stated, Weights, parameters
from posteriori.priors.network import Network
from posteriori.priors.state_dicts import load_weights

_STATED = ("range", "variance", "sigma_data", "sigma_min", "sigma_max", "train_size", "label",
          "autocast")  # fmt: skip
_LATENT = 4  # channels of the autoencoder's codes that its networks of 512 x 512 model
_BLOCK = re.compile(r"enc\.(\d+)x\1_block(\d+)\.conv_res0\.weight$")


def recognises(names: Mapping[str, Tensor]) -> bool:
    return {"emb_fourier.phases", "emb_noise.weight", "out_gain"} <= set(names) and any(
        _BLOCK.match(name) for name in names
    )


def arguments(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Arguments of ``EDM2Net``. Raises ``ValueError`` where levels lack."""
    found = [match for name in state if (match := _BLOCK.match(name))]
    sides = sorted({int(match[1]) for match in found}, reverse=True)
    side = sides[0]
    first = state.get(f"enc.{side}x{side}_conv.weight")
    firsts = [state.get(f"enc.{s}x{s}_block0.conv_res0.weight") for s in sides]
    if first is None or None in firsts or sides != [side >> k for k in range(len(sides))]:
        raise ValueError(f"{source} has blocks at the sides {sides}: these are not all its weights")
    classes = state.get("emb_label.weight")
    embedding, features = map(int, state["emb_noise.weight"].shape)
    return {
        "side": side,
        "channels": int(first.shape[1]) - 1,
        "widths": tuple(int(tensor.shape[0]) for tensor in firsts if tensor is not None),
        "blocks": sum(int(match[1]) == side for match in found),
        "attention": tuple(s for s in sides if f"enc.{s}x{s}_block0.attn_qkv.weight" in state),
        "features": features,
        "embedding": embedding,
        "classes": None if classes is None else int(classes.shape[1]),
    }


def build(weights: Weights, stated: Stated) -> Found:
    """The prior. Raises ``ValueError`` for weights that do not fit, for a network of latents, and
    for a file that does not tell its sigma_data."""
    source = weights.source
    stated.only(f"{source}, an EDM2 network,", *_STATED)
    made = arguments(weights.state, source)
    if made["channels"] == _LATENT:
        raise ValueError(
            f"{source} is an EDM2 network of {_LATENT} channels, which are the codes of an "
            "autoencoder, not images"
        )
    constant = stated.sigma_data or weights.told.get("sigma_data")
    if constant is None:
        raise ValueError(
            f"{source} holds an EDM2 network without the class around it, which has sigma_data: "
            "state sigma_data= (0.5 by its authors)"
        )
    net = EDM2Net(**made)
    load_weights(net, dict(weights.state), source)
    prior: Network = Network(
        net.float(),
        shape=(made["channels"], None, None),
        parametrization="edm",
        sigma_data=float(constant),
        conditions=net.conditions,
        multiple=net.multiple,
        train_size=stated.size or (made["side"], made["side"]),
        **stated.given("range", "variance", "sigma_min", "sigma_max", "autocast"),
    )
    if stated.label is not None:
        prior = labelled(prior, "y", stated.label, made["classes"], source)
    notes = list(weights.notes)
    if made["classes"] and stated.label is None:
        notes.append(f"no class is given: its images are those of any of its {made['classes']}")
    return Found(
        prior,
        f"EDM2: {parameters(net)}, {', '.join(map(str, made['widths']))} channels, "
        f"{made['blocks']} blocks a level, attention at "
        f"{', '.join(map(str, made['attention'])) or 'no level'}",
        weights.origin,
        tuple(notes),
    )
