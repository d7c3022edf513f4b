"""Weights in files that somebody else wrote: read without running their code, and fitted to a
network without guessing.

A pickle can run anything, so that only ``torch.load(weights_only=True)`` is ever used; what it
refuses stays refused.
"""

from __future__ import annotations

import json
import pickle
import pickletools
import re
import warnings
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

AVERAGES = (
    "ema",
    "average",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema_model",
    "params_ema",
    "net_ema",
)
CURRENT = ("state_dict", "model", "network", "model_state_dict", "params", "net")
PREFIXES = ("module.", "_orig_mod.", "model.")


class RefusedPickleError(ValueError):
    """A file that needs a class of its author's."""


def load_state_dict_file(path: str | Path) -> dict[str, Tensor]:
    """Names and tensors of a .safetensors, .pt, .pth, .ckpt or .pkl file, on the CPU, as
    ``named_tensors`` without the prefixes that wrappers put before every name ("module.",
    "model.")."""
    state = named_tensors(Path(path))
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def named_tensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a file as they stand in it, on the CPU.

    A training checkpoint may hold them one level down; averaged weights are preferred, with a
    warning that says so.

    Raises ``FileNotFoundError``, and ``ValueError`` in one line for: an empty, truncated or damaged
    file, a web page, a Git LFS pointer, a pickle that needs a class of its author's, an optimizer
    state, a file without named tensors.
    """
    return choose_weights(read_content(path), path)


def read_content(path: Path) -> Any:
    """What a file holds, on the CPU. Raises as ``named_tensors`` for a file that cannot be read."""
    inspect(path)
    return load_file(str(path)) if path.suffix == ".safetensors" else _unpickle(path)


def load_weights(net: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Put every tensor of ``state`` into ``net``; a network on the "meta" device takes the tensors
    themselves. Raises ``ValueError`` with the first three misfits of each kind."""
    wanted = net.state_dict()
    if set(state) != set(wanted) and all(name.startswith("model.") for name in wanted):
        state = {f"model.{name}": tensor for name, tensor in state.items()}
    misfits = {
        "missing": [name for name in wanted if name not in state],
        "not in the network": [name for name in state if name not in wanted],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} for {tuple(wanted[name].shape)}"
            for name in wanted
            if name in state and state[name].shape != wanted[name].shape
        ],
    }
    found = [
        f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in misfits.items() if names
    ]
    if found:
        raise ValueError(
            f"the weights of {source} do not fit {type(net).__name__}: {'; '.join(found)}"
        )
    net.load_state_dict(state, assign=any(tensor.is_meta for tensor in wanted.values()))


def inspect(path: Path) -> None:
    """Raise ``FileNotFoundError`` or ``ValueError`` naming cause, path and size when a file cannot
    be weights at all."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    start = head.lstrip().lower()
    if size == 0:
        cause = "is empty"
    elif head.startswith(b"version https://git-lfs"):
        cause = (
            "is a Git LFS pointer, a few lines of text instead of the weights; run 'git lfs pull'"
        )
    elif start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        cause = "is a web page, not weights; download the file itself"
    elif path.suffix == ".safetensors":
        cause = _broken_safetensors(path, size)
    else:
        return
    if cause:
        raise ValueError(f"{path} ({size} bytes) {cause}")


def _broken_safetensors(path: Path, size: int) -> str:
    """Why the file is not whole: it begins with the length of a JSON header that says where each
    tensor ends."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            return "is not a safetensors file, or was truncated within its header"
        try:
            header = json.loads(file.read(length))
            entries = [entry for name, entry in header.items() if name != "__metadata__"]
            end = 8 + length + max((entry["data_offsets"][1] for entry in entries), default=0)
        except (ValueError, TypeError, KeyError, AttributeError):
            return "is not a safetensors file"
    return f"is truncated: {end} bytes expected" if size < end else ""


def _unpickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # torch warns about the pickle protocol of a file that is judged below.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RefusedPickleError(
            f"{path} was refused because loading it would run code of the class "
            f"{_wanted_class(str(error), path)}; save a plain dictionary of tensors from where "
            "that class is known (best as .safetensors)"
        ) from None
    except (RuntimeError, EOFError, KeyError, IndexError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is truncated, "
            f"damaged or no PyTorch file ({reason})"
        ) from None


def _wanted_class(message: str, path: Path) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", message)
    if named:
        return named.group(1)
    words: list[str] = []
    try:
        for op, argument, _ in pickletools.genops(path.read_bytes()):
            if op.name in ("GLOBAL", "INST"):
                return str(argument).replace(" ", ".")
            if op.name == "STACK_GLOBAL":
                return ".".join(words[-2:])
            if isinstance(argument, str):
                words.append(argument)
    except ValueError:  # not a bare pickle
        pass
    return "(unnamed)"


def choose_weights(content: Any, path: Path) -> dict[str, Tensor]:
    """The named tensors of a file's content."""
    if isinstance(content, dict) and {"state", "param_groups"} <= set(content):
        raise ValueError(
            f"{path}: this is an optimizer state, not a network's weights; "
            "look for the model or EMA file beside it"
        )
    if _is_state(content):
        return content
    if isinstance(content, dict):
        shadow = _shadow(content)
        if shadow is not None:
            return averaged(shadow, choose_weights({**content, "ema": None}, path), path)
        for key in (*AVERAGES, *CURRENT):
            inner = content.get(key)
            if (
                isinstance(inner, dict)
                and inner
                and not _is_state(inner)
                and {*AVERAGES, *CURRENT} & set(inner)
            ):
                return choose_weights(inner, path)
            if _is_state(inner):
                if key in AVERAGES:
                    warnings.warn(
                        f"{path}: the averaged weights '{key}' are taken, "
                        "not those of the last step",
                        stacklevel=3,
                    )
                return inner
    keys = sorted(map(str, content))[:8] if isinstance(content, dict) else type(content).__name__
    raise ValueError(
        f"{path} holds no named tensors: "
        f"found {keys}, expected a dictionary of them, or one under {AVERAGES[:2]} or {CURRENT[:3]}"
    )


def _shadow(content: dict[Any, Any]) -> list[Any] | None:
    """Averaged weights that are kept as a list."""
    kept = content.get("ema")
    shadow = kept.get("shadow_params") if isinstance(kept, dict) else None
    return shadow if isinstance(shadow, list) else None


def averaged(shadow: list[Any], state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The state with averaged weights, which were kept in the order of its parameters, without
    names, and without what is not trained: the list ``sigmas`` and the frequencies ``0.W``.

    Raises ``ValueError`` where number or shapes differ.
    """
    names = [n for n in state if not n.endswith(("sigmas", "all_modules.0.W"))]
    fits = len(names) == len(shadow) and all(
        isinstance(tensor, Tensor) and tensor.shape == state[name].shape
        for name, tensor in zip(names, shadow, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{path}: the averaged weights are a list of {len(shadow)} tensors without names, "
            f"which are not those of its model ({len(names)} trained)"
        )
    warnings.warn(
        f"{path}: the averaged weights 'ema' are taken, not those of the last step", stacklevel=3
    )
    return state | dict(zip(names, shadow, strict=True))


def _is_state(value: Any) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )
