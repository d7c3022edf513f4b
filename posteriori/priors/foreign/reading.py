"""From a file to the tensors of one network: averaged weights before those of the last step, names
without what wrappers put before them, and a word on every choice."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from posteriori.priors.foreign import inert
from posteriori.priors.foreign.found import Weights
from posteriori.priors.state_dicts import (
    AVERAGES,
    CURRENT,
    RefusedPickleError,
    choose_weights,
    read_content,
)

# Prefixes with this word are averages of the weights over training.
AVERAGE = "ema"
# Entries of a file that are modules, averaged before others.
MODULES = ("G_ema", "net", "model")
DEPTH = 3  # parts of a prefix
# Parts that say what a file is when no network is known by its names.
TELLING = {
    "first_stage_model.": "a latent diffusion model, whose network models the latents of its "
    "autoencoder, which are no images",
    "positional_embedding": "a classifier or an encoder, not a network that denoises",
    "init_conv.weight": "a U-Net of denoising-diffusion-pytorch: build it with that package, fill "
    "it by load_weights and give the object to load, or to Network",
    "u_net.d_blocks": "a part of a network of k-diffusion: not all of its weights are there",
    "patch_in.proj.weight": "a part of a transformer of k-diffusion: not all of its weights are "
    "there",
    "down_blocks.": "the weights of a diffusers model: give the folder with its config.json and "
    "its scheduler_config.json",
}

Recogniser = Callable[[Mapping[str, Tensor]], bool]


def read_weights(path: Path) -> Weights:
    """The named tensors of a file. A pickle that needs classes of its author's is read without
    them. Raises as ``named_tensors``, and ``ValueError`` for a pickle in which there is no network,
    naming what it refers to."""
    told: Mapping[str, Any]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            content = read_content(path)
            state, told = choose_weights(content, path), _configured(content, path)
            notes: list[str] = []
        except RefusedPickleError as refused:
            state, told, notes = _without_classes(path, refused)
    # What torch says about its own storage is no word on this file.
    messages, head = [str(w.message) for w in said], f"{path}: "
    notes = [m.removeprefix(head) for m in messages if m.startswith(head)] + notes
    return _checked(Weights(state, str(path), precision(state), told, tuple(notes)))


def _configured(content: Any, path: Path) -> dict[str, Any]:
    """The configuration that a training checkpoint has beside its weights, or a .safetensors file
    in its metadata, as "config"; nothing where there is none that can be read."""
    found: Any = content.get("config") if isinstance(content, dict) else None
    if path.suffix == ".safetensors":
        with safe_open(str(path), framework="pt") as file:
            found = (file.metadata() or {}).get("config")
        try:
            found = json.loads(found or "null")
        except ValueError:
            found = None
    return {"config": found} if isinstance(found, dict) else {}


def _without_classes(
    path: Path, refused: RefusedPickleError
) -> tuple[dict[str, Tensor], Mapping[str, Any], list[str]]:
    """Tensors, what a module around them says, and a note. Raises ``refused`` for a file in the
    format of torch before 1.6, which is several pickles."""
    content, names = inert.read_inert(path)
    if isinstance(content, int):
        raise refused
    listed = _short(", ".join(dict.fromkeys(names)))
    note = f"classes that the file names are not run ({listed})"
    entries = {"": content} if inert.module_state(content) else inert.contents(content)
    told = _configured(entries, path)
    for key in ("", *AVERAGES, *MODULES, *CURRENT):
        state = inert.tensors(entries.get(key))
        if not state:
            continue
        attributes = inert.module_state(entries[key]) or {}
        plain = {k: v for k, v in attributes.items() if isinstance(v, int | float | str)}
        plain |= inert.contents(attributes.get("_buffers"))
        taken = [f"the module {key!r} is taken"] if key else []
        return state, told | plain | {"class": inert.class_of(entries[key])}, [*taken, note]
    try:
        return choose_weights(content, path), told, [note]
    except ValueError:
        raise ValueError(
            f"{path} was refused: it refers to {listed}, of which nothing was run, and holds no "
            "network and no named tensors beside"
        ) from None


def _short(text: str, most: int = 160) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."


def precision(state: Mapping[str, Tensor]) -> str:
    """In which precision the numbers are kept."""
    kinds = Counter(
        str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()
    )
    if len(kinds) == 1:
        return f"{next(iter(kinds))}, used in float32"
    return ", ".join(f"{n} tensors in {kind}" for kind, n in kinds.most_common()) + (
        ", used in float32"
    )


def _checked(weights: Weights) -> Weights:
    """Raise ``ValueError`` for weights that are not finite, naming the first and what half
    precision has to do with it."""
    bad = [
        (name, tensor)
        for name, tensor in weights.state.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if bad:
        name, tensor = bad[0]
        kind = str(tensor.dtype).removeprefix("torch.")
        why = (
            "; float16 ends at 65504, larger weights are lost in it: fetch the float32 file"
            if kind == "float16"
            else "; the training diverged or the file is damaged"
        )
        raise ValueError(
            f"{weights.source}: {len(bad)} tensors are not finite (first: {name}, {kind}){why}"
        )
    return weights


def within(weights: Weights, recognises: Recogniser) -> Weights | None:
    """The tensors below the prefix under which a network is recognised, without it; None when
    there is none. Averages before others. What lies outside is named in a note."""
    found = {
        ".".join(parts[:k]) + "."
        for parts in (name.split(".") for name in weights.state)
        for k in range(1, min(len(parts), DEPTH + 1))
    }
    prefixes = ["", *sorted(found, key=lambda p: (AVERAGE not in p.lower(), p.count("."), p))]
    for prefix in prefixes:
        inner = {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.state.items()
            if name.startswith(prefix)
        }
        if recognises(inner):
            break
    else:
        return None
    if not prefix:
        return weights
    notes = [f"the prefix {prefix!r} of its names is left out"]
    rest = [name for name in weights.state if not name.startswith(prefix)]
    if rest:
        notes.append(f"{len(rest)} tensors outside {prefix!r} are left out ({', '.join(rest[:3])})")
    return replace(weights, state=inner, notes=(*weights.notes, *notes))


def unknown(weights: Weights, families: str) -> ValueError:
    """The error for a file in which no network was recognised."""
    names = list(weights.state)
    for part, what in TELLING.items():
        if any(part in name for name in names):
            return ValueError(f"{weights.source} is {what}")
    return ValueError(
        f"{weights.source} holds weights without a card, of no network that is known here "
        f"({len(names)} tensors, first {', '.join(names[:3])}); known are {families}. Build the "
        "network, fill it by load_weights(net, load_state_dict_file(file), file) and wrap it in "
        "Network(net, parametrization=..., schedule=...). A problem file takes a function that "
        "does so, prior: {name: my_prior.py:load, weights: ...}"
    )
