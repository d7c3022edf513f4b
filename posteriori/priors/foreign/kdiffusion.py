"""Checkpoints of k-diffusion: the network from names and shapes, and from the configuration what
they do not say.

    image_v1               widths, blocks, attention, skipped levels and a variance are seen; sides
                           of patches and channels only together
    image_transformer_v1   the same holds of patches; heads and layers are seen
    image_transformer_v2   also what the tokens of a level look at is in the configuration alone

The preconditioning is that of Karras et al. with the configuration's sigma_data, whatever loss it
was trained with; images are from -1 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posteriori.priors.architectures.hourglass import HourglassTransformer
from posteriori.priors.architectures.image_transformer import ImageTransformer
from posteriori.priors.architectures.kdiffusion import KDiffusionUNet
from posteriori.priors.architectures.tokens import AUGMENTATIONS
from posteriori.priors.diffusers import labelled
from posteriori.priors.foreign.found import Found, Stated, Weights, optional, parameters
from posteriori.priors.foreign.kdiffusion_config import Configuration, configuration
from posteriori.priors.network import Network
from posteriori.priors.state_dicts import load_weights

_STATED = ("shape", "range", "variance", "sigma_data", "sigma_min", "sigma_max", "train_size",
           "label", "autocast", "config")  # fmt: skip
_FIRST, _LAST = "blocks.0.self_attn", "mid_level.0.ff"
# What each type of model is told by.
_TELLING = {
    "image_v1": {"timestep_embed.weight", "proj_in.weight", "u_net.d_blocks.0.1.main.2.weight"},
    "image_transformer_v1": {"time_emb.weight", "in_proj.weight", f"{_FIRST}.qk_norm.scale"},
    "image_transformer_v2": {"time_emb.weight", "patch_in.proj.weight", f"{_LAST}.up_proj.weight"},
}
_NETWORKS = {
    "image_v1": KDiffusionUNet,
    "image_transformer_v1": ImageTransformer,
    "image_transformer_v2": HourglassTransformer,
}
OTHER = (
    "build it and its denoiser D(x, sigma) with that package, and give the denoiser to load, or "
    "wrap the network in Network(net, ..., conditions=...)"
)


def _kind(names: Mapping[str, Tensor]) -> str | None:
    return next((k for k, parts in _TELLING.items() if parts <= set(names)), None)


def recognises(names: Mapping[str, Tensor]) -> bool:
    return _kind(names) is not None


def arguments(
    weights: Weights, kind: str, config: Configuration | None, stated: Stated
) -> dict[str, Any]:
    """Arguments of the class for this ``kind``. Raises ``ValueError`` for a network that is given
    more than image and class, and for what neither weights, configuration nor statement say."""
    state, source = weights.state, weights.source
    beside = next((n for n in state if ".kv_proj." in n or n.startswith("mapping_cond_in")), None)
    numbers = state.get("mapping_cond.weight")
    if numbers is not None and numbers.shape[1] != AUGMENTATIONS:
        beside = f"mapping_cond.weight {tuple(numbers.shape)}"
    if beside is not None:
        raise ValueError(
            f"{source} is a network of k-diffusion that is told an embedding beside its noise "
            f"level ({beside}): {OTHER}"
        )
    if kind == "image_v1":
        return _unet(weights, config, stated)
    classes = state.get("class_emb.weight")
    told = {
        "depth": _count(state, "mapping.blocks.{}.up_proj.weight"),
        "classes": None if classes is None else int(classes.shape[0]) - 1,
        "dropped": config is None or config.drops_classes(),
    }
    return (_tokens if kind == "image_transformer_v1" else _hourglass)(
        weights, config, stated
    ) | told


def _count(state: Mapping[str, Tensor], name: str) -> int:
    count = 0
    while name.format(count) in state:
        count += 1
    return count


def _folded(
    folded: int, config: Configuration | None, stated: Stated, source: str, usual: int | None = None
) -> dict[str, int]:
    """Channels and the side of a patch, whose squares are ``folded`` numbers; ``usual``: the side
    where a configuration says none."""
    channels = stated.shape[0] if stated.shape else None
    patch = None
    if config is not None:
        patch = config.patch() or usual
        channels = channels or config.count("input_channels")
    ways = [
        (folded // side**2, side)
        for side in range(1, math.isqrt(folded) + 1)
        if folded % side**2 == 0 and patch in (None, side) and channels in (None, folded // side**2)
    ]
    if len(ways) == 1:
        return {"channels": ways[0][0], "patch": ways[0][1]}
    if not ways:
        raise ValueError(
            f"{source} has patches of {folded} numbers, which {channels or 'any'} channels and "
            f"sides of {patch or 'any'} pixels do not make"
        )
    listed = ", ".join(f"{c} channels in patches of {p} x {p}" for c, p in ways)
    raise ValueError(
        f"{source} has patches of {folded} numbers and does not say what they are ({listed}): give "
        "its configuration by config=, or state shape=(channels, None, None)"
    )


def _unet(weights: Weights, config: Configuration | None, stated: Stated) -> dict[str, Any]:
    state, source = weights.state, weights.source
    levels = _count(state, "u_net.d_blocks.{}.1.main.2.weight")
    firsts = [state[f"u_net.d_blocks.{k}.1.main.2.weight"] for k in range(levels)]
    attention, depths = [], []
    for k in range(levels):
        own = [n for n in state if n.startswith(f"u_net.d_blocks.{k}.")]
        attention.append(any(n.endswith(".qkv_proj.weight") for n in own))
        depths.append(sum(n.endswith(".main.2.weight") for n in own))
    whole = [k for k in range(levels) if f"u_net.d_blocks.{k}.0.kernel" not in state]
    into, out = (int(state[f"proj_{way}.weight"].shape[k]) for way, k in (("in", 1), ("out", 0)))
    if out not in (into, into + 1):
        raise ValueError(
            f"{source} is a network of k-diffusion that takes {into} numbers of a patch and "
            f"returns {out}: it is given a picture beside the image (unet_cond_dim); {OTHER}"
        )
    numbers = state.get("mapping_cond.weight")
    return {
        **_folded(into, config, stated, source, usual=1),
        "widths": tuple(int(tensor.shape[0]) for tensor in firsts),
        "depths": tuple(depths),
        "attention": tuple(attention),
        "features": 2 * int(state["timestep_embed.weight"].shape[0]),
        "skipped": len(whole) - 1,
        "variance": out == into + 1,
        "augmentations": 0 if numbers is None else int(numbers.shape[1]),
    }


def _tokens(weights: Weights, config: Configuration | None, stated: Stated) -> dict[str, Any]:
    state = weights.state
    width, folded = map(int, state["in_proj.weight"].shape)
    return {
        **_folded(folded, config, stated, weights.source),
        "width": width,
        "hidden": int(_tensor(weights, "blocks.0.ff.down_proj.weight").shape[1]),
        "layers": _count(state, "blocks.{}.self_attn.qk_norm.scale"),
        "heads": int(state["blocks.0.self_attn.qk_norm.scale"].shape[0]),
    }


def _hourglass(weights: Weights, config: Configuration | None, stated: Stated) -> dict[str, Any]:
    state, source = weights.state, weights.source
    if "skip_scales.0" in state:
        raise ValueError(
            f"{source} is an image_transformer_v2 of an earlier form, whose ways are not mixed "
            f"(skip_scales): {OTHER}"
        )
    count = _count(state, "down_levels.{}.0.ff.up_proj.weight")
    places = [f"down_levels.{k}" for k in range(count)] + ["mid_level"]
    looking = [f"{place}.0.self_attn.scale" in state for place in places]
    if config is None and any(looking):
        raise ValueError(
            f"{source} does not say what its tokens look at (self_attns of its configuration): "
            "give the JSON file that it was trained with by config= (import --config)"
        )
    sights = config.sights(count + 1) if config else [("none", 0)] * (count + 1)
    levels = []
    for place, (sight, reach), looks in zip(places, sights, looking, strict=True):
        if looks != (sight != "none"):
            raise ValueError(
                f"{source}: the configuration has the attention {sight!r} for {place}, and the "
                f"weights have {'one' if looks else 'none'}: these two do not belong together"
            )
        width, hidden = map(int, _tensor(weights, f"{place}.0.ff.down_proj.weight").shape)
        heads = int(state[f"{place}.0.self_attn.scale"].shape[0]) if looks else 1
        depth = _count(state, place + ".{}.ff.up_proj.weight")
        levels.append({"depth": depth, "width": width, "hidden": hidden, "sight": sight,
                       "heads": heads, "reach": reach})  # fmt: skip
    return {
        **_folded(int(state["patch_in.proj.weight"].shape[1]), config, stated, source),
        "levels": tuple(levels),
        "features": int(_tensor(weights, "time_in_proj.weight").shape[0]),
        "hidden": int(_tensor(weights, "mapping.blocks.0.down_proj.weight").shape[1]),
    }


def _tensor(weights: Weights, name: str) -> Tensor:
    if name not in weights.state:
        raise ValueError(f"{weights.source} lacks {name}: these are not all its weights")
    return weights.state[name]


def build(weights: Weights, stated: Stated) -> Found:
    """The prior. Raises ``ValueError`` for weights that do not fit, for a configuration of another
    network, and where neither says sigma_data; ``FileNotFoundError`` for a stated configuration
    that is not there."""
    source, kind = weights.source, _kind(weights.state)
    assert kind is not None  # it was recognised
    stated.only(f"{source}, a network of k-diffusion,", *_STATED)
    config = configuration(weights, stated, kind)
    made = arguments(weights, kind, config, stated)
    constant = stated.sigma_data or (config.number("sigma_data", 1.0) if config else None)
    if constant is None:
        raise ValueError(
            f"{source} holds a network of k-diffusion without its configuration: give that by "
            "config= (import --config), the JSON file of its training, or state sigma_data="
        )
    net = _NETWORKS[kind](**made)
    load_weights(net, dict(weights.state), source)
    ends = {
        name: getattr(stated, name) or (config.number(name) if config else None)
        for name in ("sigma_min", "sigma_max")
    }
    prior: Network = Network(
        net.float(),
        shape=(made["channels"], None, None),
        parametrization="edm",
        sigma_data=float(constant),
        conditions=net.conditions,
        multiple=net.multiple,
        train_size=stated.size or (config.size() if config else None),
        **stated.given("range", "variance", "autocast"),
        **optional(**ends),
    )
    if stated.label is not None:
        prior = labelled(prior, "y", stated.label, made.get("classes"), source)
    notes = (*weights.notes, *_notes(made, config, stated))
    return Found(prior, f"{_words(kind, made)}: {parameters(net)}", weights.origin, notes)


def _words(kind: str, made: Mapping[str, Any]) -> str:
    patch = f", patches of {made['patch']} x {made['patch']}" if made["patch"] > 1 else ""
    if kind == "image_v1":
        there = [str(k) for k, attends in enumerate(made["attention"]) if attends]
        return (
            f"U-Net of k-diffusion ({kind}), {', '.join(map(str, made['widths']))} channels, "
            f"{', '.join(map(str, made['depths']))} blocks, attention on "
            f"{'level ' + ', '.join(there) if there else 'no level'}{patch}"
        )
    if kind == "image_transformer_v1":
        return (
            f"transformer of k-diffusion ({kind}), {made['layers']} layers of {made['width']} "
            f"channels{patch}"
        )
    levels = ", ".join(
        f"{level['depth']} of {level['width']} ({level['sight']}"
        + (f" {level['reach']})" if level["reach"] else ")")
        for level in made["levels"]
    )
    return f"hourglass transformer of k-diffusion ({kind}), layers {levels}{patch}"


def _notes(made: Mapping[str, Any], config: Configuration | None, stated: Stated) -> list[str]:
    notes, classes = [], made.get("classes")
    if classes and stated.label is None:
        notes.append(
            f"no class is given: its images are those of any of its {classes}"
            if made["dropped"]
            else f"it was never trained without its class, one of {classes}: give one"
        )
    if made.get("variance"):
        notes.append("its estimate of its own error (has_variance) is left out")
    if made.get("skipped"):
        notes.append(f"its first {made['skipped']} levels are not used (skip_stages)")
    share = config.model.get("dropout_rate") if config and "attention" in made else 0
    if isinstance(share, int | float) and share and any(made["attention"]):
        notes.append(
            f"its own code drops {share:g} of its attention weights at random also when it is not "
            "trained; here they are kept"
        )
    if config is None:
        notes.append("its noise levels are in its configuration, which is not given")
    return notes
