"""State dictionaries of guided-diffusion and improved-diffusion: the network from their shapes.

The number of levels, blocks, channels, attentions, classes, the way of resampling and whether a
variance is predicted follow from names and shapes. Heads, their order and the schedule do not:
they are those of the published network with the same shapes, or stated by the caller.

    width                  output channels of the first convolution
    levels - 1             blocks on the way up that end with a resampling
    blocks                 stages on the way up over levels, less one
    multipliers            output channels of the first block of each level over width
    scaled                 the embedding's layer has twice the channels of its block
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from posteriori.priors.architectures.adm import ADM
from posteriori.priors.diffusers import labelled
from posteriori.priors.foreign.found import Found, Stated, Weights, parameters
from posteriori.priors.network import Network
from posteriori.priors.schedule import DiscreteVP, Schedule
from posteriori.priors.state_dicts import load_weights

_STATED = ("range", "variance", "schedule", "sigma_min", "sigma_max", "train_size", "heads",
          "head_channels", "new_order", "label", "autocast")  # fmt: skip


class Published(NamedTuple):
    """What a file does not say of a published network."""

    name: str
    size: int
    heads: dict[str, int]
    schedule: str = "linear"
    new_order: bool = False


# width, multipliers, blocks, attention -> the network of those shapes. Source: the flags in the
# read-me of guided-diffusion, and the configurations of DPS, whose FFHQ-256 network others share.
PUBLISHED_SHAPES = {
    (128, (1, 1, 2, 2, 4, 4), 1, (16,)): Published("FFHQ-256", 256, {"head_channels": 64}),
    (256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32)): Published(
        "ImageNet-256", 256, {"head_channels": 64}
    ),
    (256, (0.5, 1, 1, 2, 2, 4, 4), 2, (16, 32, 64)): Published(
        "ImageNet-512", 512, {"head_channels": 64}
    ),
    (256, (1, 1, 2, 3, 4), 2, (4, 8, 16)): Published("ImageNet-128", 128, {"heads": 4}),
    (192, (1, 2, 3, 4), 3, (2, 4, 8)): Published(
        "ImageNet-64", 64, {"head_channels": 64}, "cosine", True
    ),
}


def recognises(names: Mapping[str, Tensor]) -> bool:
    return {"input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "out.2.weight"} <= set(
        names
    )


def arguments(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Arguments of ``ADM``, less heads and their order. Raises ``ValueError`` naming what no
    network of this family has."""
    text = next((name for name in state if "transformer_blocks" in name), None)
    if text is not None:
        raise ValueError(
            f"{source} is conditioned on a text or another embedding ({text}): "
            "build its network and wrap it in Network(net, ..., conditions=...)"
        )
    first, last = state["input_blocks.0.0.weight"], state["out.2.weight"]
    if first.ndim != 4:
        raise ValueError(
            f"{source} is a network of {first.ndim - 2}-d images "
            f"(input_blocks.0.0.weight {tuple(first.shape)}); only 2-d ones are known"
        )
    levels, blocks = _levels(state, source)
    width = int(state["time_embed.0.weight"].shape[1])
    emb, inner = (
        state[f"middle_block.0.{name}.weight"].shape[0] for name in ("emb_layers.1", "out_layers.3")
    )
    heads = [f"input_blocks.{1 + level * (blocks + 1)}" for level in range(levels)]
    classes = state.get("label_emb.weight")
    return {
        "channels": int(first.shape[1]),
        "out_channels": int(last.shape[0]),
        "width": width,
        "multipliers": tuple(_multiplier(state, stage, width, source) for stage in heads),
        "blocks": blocks,
        "attention": tuple(
            2**level for level, stage in enumerate(heads) if f"{stage}.1.qkv.weight" in state
        ),
        "scaled": emb == 2 * inner,
        "residual_resampling": any(_ends(state, "in_layers.2.weight")),
        "learned_resampling": any(_ends(state, "conv.weight")),
        "classes": None if classes is None else int(classes.shape[0]),
    }


def _levels(state: Mapping[str, Tensor], source: str) -> tuple[int, int]:
    """Levels, and blocks of each."""
    down = {int(name.split(".")[1]) for name in state if name.startswith("input_blocks.")}
    ups = 1 + max(
        (int(name.split(".")[1]) for name in state if name.startswith("output_blocks.")), default=0
    )
    pairs = zip(_ends(state, "in_layers.2.weight"), _ends(state, "conv.weight"), strict=True)
    grown = sum(a or b for a, b in pairs)
    # Resampling without weights leaves no trace on the way up; going down its stage is missing.
    levels = 1 + (grown or max(down) + 1 - len(down))
    blocks = ups // levels - 1
    if blocks < 1 or max(down) + 1 != levels * (blocks + 1) or ups != levels * (blocks + 1):
        raise ValueError(
            f"{source} has {max(down) + 1} stages down and {ups} up with {levels} levels, "
            "which no ADM network has: these are not all of its weights"
        )
    return levels, blocks


def _ends(state: Mapping[str, Tensor], name: str) -> list[bool]:
    """For each stage of the way up, whether it ends with a resampling that has this weight."""
    stages = {name.split(".")[1] for name in state if name.startswith("output_blocks.")}
    return [any(f"output_blocks.{k}.{i}.{name}" in state for i in (1, 2)) for k in sorted(stages)]


def _multiplier(state: Mapping[str, Tensor], stage: str, width: int, source: str) -> float:
    name = f"{stage}.0.out_layers.3.weight"
    if name not in state:
        raise ValueError(f"{source} lacks {name}: these are not all weights of an ADM network")
    share = state[name].shape[0] / width
    return int(share) if share == int(share) else share


def build(weights: Weights, stated: Stated) -> Found:
    """The prior. Raises ``ValueError`` for weights that do not fit, and where heads or schedule are
    neither published nor stated."""
    source = weights.source
    stated.only(f"{source}, an ADM network,", *_STATED)
    made = arguments(weights.state, source)
    kind = PUBLISHED_SHAPES.get(
        (made["width"], made["multipliers"], made["blocks"], made["attention"])
        if made["residual_resampling"] and made["scaled"]
        else None  # type: ignore[arg-type]
    )
    made |= _heads(stated, kind, made, source)
    if made["out_channels"] not in (made["channels"], 2 * made["channels"]):
        raise ValueError(
            f"{source} takes {made['channels']} channels and returns {made['out_channels']}: "
            "a network that is given more than the image, such as a super-resolution one; build it "
            "by architectures.adm.ADM and wrap it in Network(net, ..., conditions=...)"
        )
    with torch.device("meta"):
        net = ADM(**made)
    load_weights(net, dict(weights.state), source)
    net.float()
    notes = list(weights.notes)
    if kind is not None:
        notes.append(f"shapes of the published {kind.name} network; taken from it, as the file "
                     f"does not say them: {_taken(stated, kind)}")  # fmt: skip
    elif stated.new_order is None:
        notes.append("legacy order of attention channels, as the file does not say it")
    prior: Network = Network(
        net,
        shape=(made["channels"], None, None),
        parametrization="eps",
        schedule=_schedule(stated, kind, source),
        conditions=net.conditions,
        multiple=net.multiple,
        train_size=stated.size or ((kind.size, kind.size) if kind else None),
        **stated.given("range", "variance", "sigma_min", "sigma_max", "autocast"),
    )
    if stated.label is not None:
        prior = labelled(prior, "y", stated.label, made["classes"], source)
    variance = ", predicts a variance" if made["out_channels"] > made["channels"] else ""
    return Found(
        prior,
        f"ADM (guided-diffusion): {parameters(net)}, {made['width']} channels times "
        f"{made['multipliers']}, {made['blocks']} blocks a level, attention at 1/"
        f"{', 1/'.join(map(str, made['attention'])) or '(none)'}{variance}",
        weights.origin,
        tuple(notes),
    )


def _heads(
    stated: Stated, kind: Published | None, made: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """heads or head_channels, and new_order."""
    own = stated.given("heads", "head_channels")
    if len(own) > 1:
        raise ValueError(f"give one of heads and head_channels, got {own}")
    if own or kind:
        order = kind.new_order if kind and stated.new_order is None else bool(stated.new_order)
        return {**(own or kind.heads), "new_order": order}  # type: ignore[union-attr]
    raise ValueError(
        f"{source} is an ADM network of {made['width']} channels times {made['multipliers']}, "
        "which is none of the published ones; its shapes do not tell how many heads its attentions "
        "have: state heads= (num_heads of its flags) or head_channels= (num_head_channels), "
        "and new_order=True where it was trained with use_new_attention_order; or "
        "`posteriori import --head-channels N --schedule linear`, as far as you know them"
    )


def _schedule(stated: Stated, kind: Published | None, source: str) -> Schedule:
    usual = {"linear": DiscreteVP.linear, "cosine": DiscreteVP.cosine}
    made = stated.levels(usual[kind.schedule]() if kind else None)
    if made is None:
        raise ValueError(
            f"{source} does not say with which noise it was trained, and is none of the published "
            "networks: state schedule='linear' or 'cosine' (noise_schedule of its flags), "
            "or a Schedule"
        )
    return made


def _taken(stated: Stated, kind: Published) -> str:
    taken = []
    if stated.heads is None and stated.head_channels is None:
        taken += [f"{name} {value}" for name, value in kind.heads.items()]
    if stated.new_order is None:
        taken.append(f"{'new' if kind.new_order else 'legacy'} order of attention channels")
    if stated.schedule is None:
        taken.append(f"{kind.schedule} schedule")
    return ", ".join(taken) or "nothing"
