"""What an object is, by content: its class, its plain settings and the digests of its numbers, as
JSON values.

Two runs are the same run when these agree; where they do not, ``changes`` names the places. A class
whose numbers live elsewhere (in a file, behind a closure) overrides ``record`` of ``Prior``,
``Operator`` or ``Noise``.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# What torch itself keeps in a module beside its content, and what an operator measures of itself.
DERIVED = frozenset(vars(nn.Module())) | {"_out_shape", "_norm2", "_dot_tested"}
# The parts of a module are told apart up to this number; beyond it, as in a network, one digest
# stands for all of them.
_FEW = 16


def digest(tensor: Tensor) -> str:
    """SHA-256 of the numbers of a tensor, with their type and shape; 16 hexadecimal digits."""
    state = hashlib.sha256()
    for part in _dense(tensor.detach()):
        real = torch.view_as_real(part.resolve_conj()) if part.is_complex() else part
        state.update(f"{part.dtype}{tuple(part.shape)}".encode())
        state.update(
            real.resolve_neg().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return state.hexdigest()[:16]


def content(thing: Any, within: frozenset[int] = frozenset()) -> Any:
    """``thing`` as JSON values. Numbers, words and lists stand for themselves, a tensor for its
    digest, an object for its class and parts.

    within: the objects that this one is a part of, which are not entered again.
    """
    if thing is None or isinstance(thing, bool | int | str):
        return thing
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else str(thing)
    if isinstance(thing, np.ndarray | np.generic) and np.asarray(thing).dtype.kind in "biufc":
        thing = torch.as_tensor(np.asarray(thing))
    if isinstance(thing, Tensor):
        return {
            "shape": list(thing.shape),
            "dtype": str(thing.dtype).removeprefix("torch."),
            "sha256": digest(thing),
        }
    if id(thing) in within:
        return {"class": _name(type(thing))}
    inside = within | {id(thing)}
    if isinstance(thing, list | tuple | set | frozenset):
        return [content(part, inside) for part in thing]
    if isinstance(thing, dict):
        return {str(key): content(value, inside) for key, value in thing.items()}
    if isinstance(thing, functools.partial):
        return {
            "class": _name(thing.func),
            "args": content(thing.args, inside),
            "keywords": content(thing.keywords, inside),
        }
    if isinstance(thing, nn.Module):
        return _module(thing, inside)
    if isinstance(thing, type) or hasattr(thing, "__code__") or not hasattr(thing, "__dict__"):
        return {"class": _name(thing if hasattr(thing, "__qualname__") else type(thing))}
    names = [f.name for f in fields(thing)] if is_dataclass(thing) else vars(thing)
    return {"class": _name(type(thing))} | {
        name: content(getattr(thing, name), inside) for name in names
    }


def changes(then: Any, now: Any, where: str = "") -> Iterator[str]:
    """Where two records differ: 'operator.kernel: other numbers', 'noise.sigma: 0.1 then, 0.2
    now'."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            if key != "sha256":
                yield from changes(
                    then.get(key), now.get(key), f"{where}.{key}" if where else str(key)
                )
        if then.get("sha256") != now.get("sha256"):
            yield f"{where}: other numbers"
    elif then != now:
        yield f"{where}: {then!r} then, {now!r} now"


def _module(module: nn.Module, within: frozenset[int]) -> dict[str, Any]:
    """Class, settings and tensors of a module, and its parts: each by itself, or of a network all
    in one digest."""
    out: dict[str, Any] = {"class": _name(type(module))} | _attributes(module, within)
    if not hasattr(module, "record") and len(list(module.modules())) > _FEW:
        state = hashlib.sha256()
        for name, tensor in sorted(
            dict([*module.named_parameters(), *module.named_buffers()]).items()
        ):
            state.update(f"{name}{digest(tensor)}".encode())
        return out | {"sha256": state.hexdigest()[:16]}
    tensors = dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])
    out |= {name: content(tensor) for name, tensor in tensors.items()}
    # By ``record`` where a part has one, which its class may have made its own.
    return out | {name: _part(part, within) for name, part in module.named_children()}


def _part(module: nn.Module, within: frozenset[int]) -> Any:
    record: Any = getattr(module, "record", None)
    return content(module, within) if record is None else record()


def _attributes(module: nn.Module, within: frozenset[int]) -> dict[str, Any]:
    """What a module keeps outside torch's own places. What this library keeps under a name with an
    underscore follows from the rest, and a network's is its library's affair; an operator or prior
    of somebody else's may have its content there."""
    hidden = type(module).__module__.startswith("posteriori.") or not hasattr(module, "record")
    kept = {
        name: value
        for name, value in vars(module).items()
        if name not in DERIVED and not (hidden and name.startswith("_"))
    }
    return {name: content(value, within) for name, value in kept.items()}


def _dense(tensor: Tensor) -> tuple[Tensor, ...]:
    """The dense tensors that hold the numbers of a sparse one."""
    if tensor.layout == torch.sparse_csr:
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout == torch.sparse_coo:
        whole = tensor.coalesce()
        return whole.indices(), whole.values()
    return (tensor,)


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"
