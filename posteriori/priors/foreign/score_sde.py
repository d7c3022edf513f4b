"""Checkpoints of score_sde: NCSN++ (VE) and DDPM++ (VP, continuous time) from the list of their
layers.

    features of random frequencies    VE: images from 0 to 1, sigma told, a score over sigma
    of fixed ones                     VP: images from -1 to 1, 999 t told, the noise

The kinds of the layers, in their order, tell levels, blocks and attention: between two residual
blocks that change the side lies one level.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor

from posteriori.priors.architectures.score_sde import NCSNpp
from posteriori.priors.foreign.found import Found, Stated, Weights, parameters
from posteriori.priors.network import Network
from posteriori.priors.schedule import VE, ContinuousVP
from posteriori.priors.state_dicts import load_weights

_STATED = ("range", "variance", "sigma_min", "sigma_max", "train_size", "autocast")
_OTHER = "build the network with its own code and wrap it in Network(net, parametrization=..., ...)"


def recognises(names: Mapping[str, Tensor]) -> bool:
    return {"all_modules.0.weight", "all_modules.0.W"} & set(names) != set() and any(
        name.endswith("NIN_3.W") for name in names
    )


def arguments(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Arguments of ``NCSNpp``. Raises ``ValueError`` for a network of this code with other parts
    than those."""
    layers = _layers(state, source)
    kinds = "".join(kind for kind, _ in layers)
    ve = kinds[0] == "f"
    start = kinds.index("c")
    channels, width = layers[start][1]["in"], layers[start][1]["out"]
    turns = [k for k, kind in enumerate(kinds) if kind == "t"]
    if len(turns) < 2 or len(turns) % 2:
        raise ValueError(
            f"{source} has {len(turns)} residual blocks that change the side, as many down as up "
            f"are expected; {_OTHER}"
        )
    levels = 1 + len(turns) // 2
    # The way down, level by level; the last is followed by the middle.
    bounds = [start, *turns[: levels - 1], len(kinds)]
    parts = [kinds[a + 1 : b] for a, b in pairwise(bounds)]
    blocks = parts[0].count("r")
    firsts = [
        layers[a + 1 + part.index("r")][1]["out"] for a, part in zip(bounds, parts, strict=False)
    ]
    joins = [layer for kind, layer in layers if kind == "j"]
    after = layers[turns[0] + 2][1]["in"] if joins else 0
    return {
        "channels": channels,
        "width": width,
        "multipliers": tuple(out // width for out in firsts),
        "blocks": blocks,
        "attention": tuple(
            level for level, part in enumerate(parts) if part.lstrip("js").startswith("ra")
        ),
        "ve": ve,
        "down": "skip" if joins else "residual" if "s" in kinds else None,
        "up": "skip" if kinds.count("n") > 1 else None,
        "beside": bool(joins) and after == 2 * joins[0]["out"],
        "levels": len(state["sigmas"]) if "sigmas" in state else 0,
    }


def _layers(state: Mapping[str, Tensor], source: str) -> list[tuple[str, dict[str, int]]]:
    """Kind and channels of each layer: f features, l linear, c convolution, r residual block, t
    one that changes the side, a attention, j join, s stream, n norm."""
    inner: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith("all_modules."):
            _, place, rest = name.split(".", 2)
            inner.setdefault(int(place), {})[rest] = tensor
    if sorted(inner) != list(range(len(inner))):
        raise ValueError(f"{source} lacks layers of all_modules: these are not all its weights")
    found = []
    for number in range(len(inner)):
        own = inner[number]
        kind, weight = _kind(own)
        if kind is None:
            raise ValueError(
                f"{source}: layer {number} of all_modules has the parts {sorted(own)[:4]}, which "
                f"neither NCSN++ nor DDPM++ has; {_OTHER}"
            )
        sizes = {"out": int(own[weight].shape[0]), "in": int(own[weight].shape[-1])}
        if own[weight].ndim == 4:
            sizes["in"] = int(own[weight].shape[1])
        found.append((kind, sizes))
    return found


def _kind(own: Mapping[str, Tensor]) -> tuple[str | None, str]:
    """The letter of a layer, and the weight that has its channels."""
    if "Dense_0.weight" in own and "Conv_1.weight" in own and "NIN_0.W" not in own:
        same = own["Conv_0.weight"].shape[0] == own["Conv_0.weight"].shape[1]
        return ("t" if same and "Conv_2.weight" in own else "r"), "Conv_0.weight"
    if "NIN_3.W" in own:
        return "a", "NIN_3.W"
    if set(own) == {"W"}:
        return "f", "W"
    if "Conv2d_0.weight" in own:
        return "s", "Conv2d_0.weight"
    if "Conv_0.weight" in own and own["Conv_0.weight"].shape[-1] == 1:
        return "j", "Conv_0.weight"
    if "weight" in own:
        return {1: "n", 2: "l", 4: "c"}.get(own["weight"].ndim), "weight"
    return None, ""


def build(weights: Weights, stated: Stated) -> Found:
    """The prior. Raises ``ValueError`` for weights that do not fit, and for a VE network whose
    noise levels are neither in the file nor stated."""
    source, state = weights.source, weights.state
    stated.only(f"{source}, a network of score_sde,", *_STATED)
    made = arguments(state, source)
    if not made["ve"] and made["down"] is not None:
        raise ValueError(
            f"{source} is an NCSN++ that is told the number of a noise level of a list; only those "
            f"of continuous time are known: {_OTHER}"
        )
    net = NCSNpp(**made)
    load_weights(net, dict(state), source)
    settings: dict[str, Any]
    if made["ve"]:
        kept = state.get("sigmas")
        low, high = stated.sigma_min, stated.sigma_max
        if kept is not None:
            low, high = low or float(kept.min()), high or float(kept.max())
        if low is None or high is None:
            raise ValueError(
                f"{source} does not say between which noise levels it was trained: state "
                "sigma_min= and sigma_max= (sigma_min and sigma_max of its configuration)"
            )
        settings = {"parametrization": "score", "schedule": VE(low, high), "range": (0.0, 1.0),
                    "variance": 0.0625}  # fmt: skip
        notes = ("images from 0 to 1, centred by the network, its output divided by sigma, as the "
                 "published VE configurations have it",)  # fmt: skip
    else:
        settings = {
            "parametrization": "eps",
            "schedule": ContinuousVP(label_scale=999, t_min=1e-5),
            **stated.given("sigma_min", "sigma_max"),
        }
        notes = (
            "continuous VP, betas from 0.1 to 20, images from -1 to 1, means and nearest "
            "neighbours in place of filters, as the published VP configurations have it",
        )
    prior = Network(
        net.float(),
        shape=(made["channels"], None, None),
        multiple=net.multiple,
        train_size=stated.size,
        autocast=stated.autocast,
        **(settings | stated.given("range", "variance")),
    )
    name = "NCSN++" if made["down"] else "DDPM++"
    return Found(
        prior,
        f"{name} of score_sde: {parameters(net)}, {made['width']} channels times "
        f"{made['multipliers']}, {made['blocks']} blocks a level, attention at levels "
        f"{', '.join(map(str, made['attention'])) or 'none'} and in the middle",
        weights.origin,
        (*weights.notes, *notes),
    )
