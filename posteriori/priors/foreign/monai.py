"""State dictionaries of MONAI's DiffusionModelUNet, and of MONAI Generative before it: the network
from their shapes.

Levels, blocks, channels, attentions, classes and the way of resampling follow from names and
shapes. The channels of a head and the schedule do not, and are to be stated; 32 groups and eps =
1e-6 are taken for the norms, which are MONAI's defaults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from posteriori.priors.architectures.monai import MonaiUNet
from posteriori.priors.diffusers import labelled
from posteriori.priors.foreign.found import Found, Stated, Weights, parameters
from posteriori.priors.network import Network
from posteriori.priors.state_dicts import load_weights

_STATED = ("range", "variance", "parametrization", "schedule", "sigma_min", "sigma_max",
          "train_size", "head_channels", "label", "autocast")  # fmt: skip
# Of MONAI Generative: what its attentions and its resampling are called now.
_RENAMED = (
    (re.compile(r"(attentions\.\d+|attention)\.(to_[qkv])\."), r"\1.attn.\2."),
    (re.compile(r"(attentions\.\d+|attention)\.proj_attn\."), r"\1.attn.out_proj."),
    (re.compile(r"upsampler\.conv\."), "upsampler.postconv."),
)


def recognises(names: Mapping[str, Tensor]) -> bool:
    return {"conv_in.conv.weight", "time_embed.0.weight", "out.2.conv.weight"} <= set(names)


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names of MONAI 1.4 and later."""

    def now(name: str) -> str:
        for old, new in _RENAMED:
            name = old.sub(new, name)
        return name

    return {now(name): tensor for name, tensor in state.items()}


def arguments(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Arguments of ``MonaiUNet``, less the channels of a head. Raises ``ValueError`` naming what is
    not known here."""
    first, last = state["conv_in.conv.weight"], state["out.2.conv.weight"]
    if first.ndim != 4:
        raise ValueError(
            f"{source} is a MONAI network of {first.ndim - 2}-d images (conv_in.conv.weight "
            f"{tuple(first.shape)}); only 2-d ones are read: build it with MONAI and wrap it in "
            "Network(net, parametrization='eps', schedule=...)"
        )
    if any("transformer_blocks" in name for name in state):
        raise ValueError(
            f"{source} is a MONAI network that is told an embedding (with_conditioning): build it "
            "with MONAI and wrap it in Network(net, ..., conditions=...)"
        )
    blocks = _counts(state, r"down_blocks\.(\d+)\.resnets\.(\d+)\.conv1\.conv\.weight$")
    ups = _counts(state, r"up_blocks\.(\d+)\.resnets\.(\d+)\.conv1\.conv\.weight$")
    if not blocks or [n + 1 for n in reversed(blocks)] != ups:
        raise ValueError(
            f"{source} has blocks {blocks} on the way down and {ups} up, which no network of MONAI "
            "has: these are not all of its weights"
        )
    widths = [
        int(state[f"down_blocks.{k}.resnets.0.conv1.conv.weight"].shape[0])
        for k in range(len(blocks))
    ]
    classes = state.get("class_embedding.weight")
    return {
        "channels": int(first.shape[1]),
        "out_channels": int(last.shape[0]),
        "widths": tuple(widths),
        "blocks": tuple(blocks),
        "attention": tuple(
            f"down_blocks.{k}.attentions.0.norm.weight" in state for k in range(len(blocks))
        ),
        "residual_resampling": "down_blocks.0.downsampler.conv1.conv.weight" in state,
        "combined": "middle_block.attention.attn.qkv.weight" in state,
        "projected": "middle_block.attention.attn.out_proj.weight" in state,
        "classes": None if classes is None else int(classes.shape[0]),
    }


def _counts(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    """Blocks of each level."""
    found = [m for name in state if (m := re.match(pattern, name))]
    levels = 1 + max((int(m[1]) for m in found), default=-1)
    return [sum(int(m[1]) == k for m in found) for k in range(levels)]


def build(weights: Weights, stated: Stated) -> Found:
    """The prior. Raises ``ValueError`` for weights that do not fit, and where the channels of a
    head or the schedule are not stated."""
    source = weights.source
    stated.only(f"{source}, a network of MONAI,", *_STATED)
    state = _renamed(weights.state)
    made = arguments(state, source)
    if stated.head_channels is None:
        raise ValueError(
            f"{source} is a network of MONAI; its shapes do not tell how many channels a head of "
            "its attentions has: state head_channels= (its num_head_channels, of which 8 is the "
            "default), or `posteriori import --head-channels N --schedule ...`"
        )
    schedule = stated.levels(None)
    if schedule is None:
        raise ValueError(
            f"{source}, a network of MONAI, does not say with which noise it was trained: state "
            "schedule='linear', 'scaled-linear' or 'cosine', or, for other betas than those of "
            "these, priors.DiscreteVP of yours"
        )
    if made["out_channels"] != made["channels"]:
        raise ValueError(
            f"{source} takes {made['channels']} channels and returns {made['out_channels']}: a "
            "network that is given more than the image; build it with MONAI and wrap it in "
            "Network(net, ..., conditions=...)"
        )
    with torch.device("meta"):
        net = MonaiUNet(**made, head_channels=stated.head_channels)
    load_weights(net, state, source)
    prior: Network = Network(
        net.float(),
        shape=(made["channels"], None, None),
        parametrization=stated.parametrization or "eps",
        schedule=schedule,
        conditions=net.conditions,
        multiple=net.multiple,
        train_size=stated.size,
        **stated.given("range", "variance", "sigma_min", "sigma_max", "autocast"),
    )
    if stated.label is not None:
        prior = labelled(prior, "y", stated.label, made["classes"], source)
    levels = [str(2**k) for k, there in enumerate(made["attention"]) if there]
    return Found(
        prior,
        f"DiffusionModelUNet of MONAI: {parameters(net)}, {', '.join(map(str, made['widths']))} "
        f"channels, {', '.join(map(str, made['blocks']))} blocks, attention at "
        + (", ".join(f"1/{level}" for level in levels) if levels else "the middle alone"),
        weights.origin,
        (
            *weights.notes,
            "norms of 32 groups and eps 1e-6, MONAI's defaults, as the file does not say them",
            *(() if stated.parametrization else ("taken to predict eps, MONAI's default",)),
        ),
    )
