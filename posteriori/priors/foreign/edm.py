"""Checkpoints of EDM: the network from names and shapes, its preconditioning from the class around
it.

    EDMPrecond    parametrisation edm, its sigma_data
    VPPrecond     eps, ContinuousVP(beta_min, beta_min + beta_d), label (M - 1) t
    VEPrecond     minus the noise, told ln(sigma / 2)
    iDDPMPrecond  eps, the levels of its table u

A pickle has that class with its numbers; a state dictionary does not, and ``sigma_data`` is asked
for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from posteriori.priors.architectures.edm import EDMNet
from posteriori.priors.diffusers import labelled
from posteriori.priors.foreign.found import Found, Stated, Weights, optional, parameters
from posteriori.priors.network import Network
from posteriori.priors.schedule import VE, ContinuousVP, DiscreteVP
from posteriori.priors.state_dicts import load_weights

_STATED = ("range", "variance", "sigma_data", "sigma_min", "sigma_max", "train_size", "label",
          "autocast")  # fmt: skip
WRAPPERS = ("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond")
_BLOCK = re.compile(r"enc\.(\d+)x\1_block(\d+)\.conv0\.weight$")


def recognises(names: Mapping[str, Tensor]) -> bool:
    return {"map_layer0.weight", "map_layer1.weight"} <= set(names) and any(
        _BLOCK.match(name) for name in names
    )


def arguments(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Arguments of ``EDMNet``. Raises ``ValueError`` where levels or their first blocks lack."""
    found = [match for name in state if (match := _BLOCK.match(name))]
    sides = sorted({int(match[1]) for match in found}, reverse=True)
    side = sides[0]
    first = state.get(f"enc.{side}x{side}_conv.weight")
    if first is None or sides != [side >> level for level in range(len(sides))]:
        raise ValueError(f"{source} has blocks at the sides {sides}: these are not all its weights")
    kind = "dhariwal" if "out_conv.weight" in state else "song"
    embedding, features = map(int, state["map_layer0.weight"].shape)
    width = features if kind == "dhariwal" else int(first.shape[0])
    outputs = {s: state.get(f"enc.{s}x{s}_block0.conv0.weight") for s in sides}
    last = "out_conv.weight" if kind == "dhariwal" else f"dec.{side}x{side}_aux_conv.weight"
    lacking = [f"enc.{s}x{s}_block0" for s, tensor in outputs.items() if tensor is None]
    if lacking or last not in state:
        raise ValueError(f"{source} lacks {', '.join([*lacking, last][:3])}")
    shares = [tensor.shape[0] / width for tensor in outputs.values() if tensor is not None]
    classes, augmentations = (state.get(f"map_{name}.weight") for name in ("label", "augment"))
    return {
        "kind": kind,
        "side": side,
        "channels": int(first.shape[1]),
        "out_channels": int(state[last].shape[0]),
        "width": width,
        "multipliers": tuple(int(s) if s == int(s) else s for s in shares),
        "blocks": sum(int(match[1]) == side for match in found),
        "attention": tuple(s for s in sides if f"enc.{s}x{s}_block0.qkv.weight" in state),
        "embedding": embedding,
        "features": features,
        "random_features": "map_noise.freqs" in state,
        "encoder": _encoder(state),
        "decoder": "skip" if any("_aux_up" in name for name in state) else "standard",
        "taps": _taps(state),
        "classes": None if classes is None else int(classes.shape[1]),
        "augmentations": 0 if augmentations is None else int(augmentations.shape[1]),
    }


def _encoder(state: Mapping[str, Tensor]) -> str:
    for word, name in (("residual", "_aux_residual"), ("skip", "_aux_skip")):
        if any(name in key for key in state):
            return word
    return "standard"


def _taps(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The filter of resampling, as whole numbers: (1, 1) or (1, 3, 3, 1)."""
    name = next((name for name in state if name.endswith(".resample_filter")), None)
    if name is None:
        return (1, 1)
    line = state[name].float().sum((0, 1, 2))
    return tuple(round(float(v / line[0])) for v in line)


def build(weights: Weights, stated: Stated) -> Found:
    """The prior. Raises ``ValueError`` for weights that do not fit, a class of which nothing is
    known, and a file that does not tell its sigma_data."""
    source, told = weights.source, weights.told
    stated.only(f"{source}, an EDM network,", *_STATED)
    made, wrapper = arguments(weights.state, source), str(told.get("class", ""))
    settings = _settings(wrapper, told, stated, source)
    net = EDMNet(**made, ve=wrapper == "VEPrecond")
    load_weights(net, dict(weights.state), source)
    low, high = _ends(told, stated) if wrapper in ("EDMPrecond", "") else (
        stated.sigma_min, stated.sigma_max)  # fmt: skip
    prior: Network = Network(
        net.float(),
        shape=(made["channels"], None, None),
        conditions=net.conditions,
        multiple=net.multiple,
        train_size=stated.size or (made["side"], made["side"]),
        **settings,
        **stated.given("range", "variance", "autocast"),
        **optional(sigma_min=low, sigma_max=high),
    )
    if stated.label is not None:
        prior = labelled(prior, "y", stated.label, made["classes"], source)
    names = {"standard": "DDPM++", "residual": "NCSN++"}
    kind = "ADM" if made["kind"] == "dhariwal" else names.get(made["encoder"], "NCSN++ with skips")
    notes = list(weights.notes)
    if made["classes"] and stated.label is None:
        notes.append(f"no class is given: its images are those of any of its {made['classes']}")
    return Found(
        prior,
        f"{kind} of EDM{f' in {wrapper}' if wrapper else ''}: {parameters(net)}, {made['width']} "
        f"channels times {made['multipliers']}, {made['blocks']} blocks a level, attention at "
        f"{', '.join(map(str, made['attention'])) or 'no level'}",
        weights.origin,
        tuple(notes),
    )


def _settings(wrapper: str, told: Mapping[str, Any], stated: Stated, source: str) -> dict[str, Any]:
    """Parametrisation, schedule and sigma_data of ``Network``."""
    if wrapper in ("EDMPrecond", ""):
        constant = stated.sigma_data or told.get("sigma_data")
        if constant is None:
            raise ValueError(
                f"{source} holds an EDM network without the class around it, which has sigma_data: "
                "state sigma_data= (0.5 by its authors)"
            )
        return {"parametrization": "edm", "sigma_data": float(constant)}
    if wrapper == "VPPrecond":
        low, more = float(told.get("beta_min", 0.1)), float(told.get("beta_d", 19.9))
        steps, first = told.get("M", 1000), float(told.get("epsilon_t", 1e-5))
        return {
            "parametrization": "eps",
            "schedule": ContinuousVP(low, low + more, label_scale=steps - 1, t_min=first),
        }
    if wrapper == "VEPrecond":
        ends = (float(told.get("sigma_min", 0.02)), float(told.get("sigma_max", 100.0)))
        return {"parametrization": "eps", "schedule": VE(*ends, label="log")}
    if wrapper == "iDDPMPrecond" and isinstance(told.get("u"), Tensor):
        levels = told["u"].double()
        abar = 1 / (1 + levels[levels > 0].flip(0) ** 2)
        return {
            "parametrization": "eps",
            "schedule": DiscreteVP(tuple(abar.tolist()), name="iDDPM's table"),
        }
    raise ValueError(
        f"{source} holds an EDM network within {wrapper}; known are {', '.join(WRAPPERS)}"
    )


def _ends(told: Mapping[str, Any], stated: Stated) -> tuple[float | None, float | None]:
    """sigma_min and sigma_max: as stated, or what the class says where it is not 0 to infinity."""
    low, high = (told.get(name) for name in ("sigma_min", "sigma_max"))
    return (
        stated.sigma_min or (float(low) if low else None),
        stated.sigma_max or (float(high) if high and high != torch.inf else None),
    )
