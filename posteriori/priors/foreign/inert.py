"""A pickle read without running anything that it names: tensors, numbers and containers come out as
they are, every other object as an empty shell that keeps what it was made of.

Any name in a pickle, of a class or of a function, stands for a shell here; calling one makes
another. Only the makers of tensors do what they say, and those are functions of this module that
check their arguments. Bytes of storages are read by ``torch.load(weights_only=True)``.

The pickles of EDM and EDM2 hold modules whose class comes as source text within the file; here that
text is a string beside the parameters.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Shell:
    """What stands for an object: the name of its class, what it was called with, its state.

    Contents that a pickle adds are kept: ``items`` of a list, ``pairs`` of a mapping.
    """

    named = ""
    arguments: tuple[Any, ...]
    state: Any
    items: list[Any]
    pairs: dict[Any, Any]

    def __new__(cls, *arguments: Any, **named: Any) -> Shell:
        made = super().__new__(cls)
        made.__dict__.update(arguments=arguments, state=None, items=[], pairs={})
        return made

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__["pairs"][key] = value

    def append(self, value: Any) -> None:
        self.__dict__["items"].append(value)

    def extend(self, values: Any) -> None:
        self.__dict__["items"].extend(values)

    def add(self, value: Any) -> None:
        self.append(value)

    def __call__(self, *arguments: Any, **named: Any) -> Shell:
        return Shell(*arguments)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class _Maker:
    """A function that a pickle cannot change: it has no attributes to set."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"a pickle sets {name!r} of a function")

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)


def _storage(content: Any) -> Any:
    if not isinstance(content, bytes):
        raise pickle.UnpicklingError("a storage that is no bytes")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, torch.TypedStorage | torch.UntypedStorage):
        raise pickle.UnpicklingError("a tensor without a storage")
    flat = torch.empty(0, dtype=getattr(storage, "dtype", torch.uint8))
    return flat.set_(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _parameter(data: Any, *_: Any) -> Any:
    return data


_MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
}


class _Inert(pickle.Unpickler):
    def __init__(self, file: Any, zipped: zipfile.ZipFile | None = None) -> None:
        super().__init__(file)
        self.zipped = zipped
        self.names: list[str] = []
        self.storages: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _MAKERS:
            return _Maker(_MAKERS[module, name])
        if (module, name) == ("collections", "OrderedDict"):
            return type("Names", (dict,), {})
        self.names.append(f"{module}.{name}")
        return type("Shell", (Shell,), {"named": f"{module}.{name}"})

    def persistent_load(self, key: Any) -> Any:
        """A storage of a file that torch wrote: ("storage", kind, name, place, size)."""
        if self.zipped is None or not isinstance(key, tuple) or len(key) != 5:
            raise pickle.UnpicklingError("a reference to something outside the file")
        kind, name = getattr(key[1], "named", ""), str(key[2])
        dtype = _DTYPES.get(kind.rpartition(".")[2])
        if dtype is None:
            raise pickle.UnpicklingError(f"a storage of the kind {kind}")
        if name not in self.storages:
            root = self.zipped.namelist()[0].split("/")[0]
            content = bytearray(self.zipped.read(f"{root}/data/{name}"))
            self.storages[name] = torch.frombuffer(content, dtype=dtype).storage()
        return self.storages[name]


_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}


def read_inert(path: Path) -> tuple[Any, list[str]]:
    """The content of a pickle, or of a file that ``torch.save`` wrote as a zip, and the names in it
    that were not followed. Raises ``ValueError`` naming the file for one that is neither."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                name = next(n for n in zipped.namelist() if n.endswith("data.pkl"))
                reader = _Inert(io.BytesIO(zipped.read(name)), zipped)
                return reader.load(), reader.names
        with path.open("rb") as file:
            reader = _Inert(file)
            return reader.load(), reader.names
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        StopIteration,
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        RuntimeError,
        ImportError,
        MemoryError,
    ) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is truncated, damaged or no pickle of a network "
            f"({reason})"
        ) from None


def module_state(module: Any) -> dict[str, Any] | None:
    """The attributes of a pickled ``nn.Module``, also of one that carries its own source; None for
    anything else."""
    if not isinstance(module, Shell):
        return None
    state = module.state
    if module.named.endswith("_reconstruct_persistent_obj") and module.arguments:
        told = contents(module.arguments[0])
        state = told.get("state")
    return state if isinstance(state, dict) and "_parameters" in state else None


def class_of(module: Shell) -> str:
    """The name of a module's class, without its package."""
    if module.named.endswith("_reconstruct_persistent_obj") and module.arguments:
        return str(contents(module.arguments[0]).get("class_name", ""))
    return module.named.rpartition(".")[2]


def contents(value: Any) -> dict[Any, Any]:
    """A mapping, or what was put into the shell of one."""
    if isinstance(value, Shell):
        return value.pairs
    return value if isinstance(value, dict) else {}


def tensors(module: Any, prefix: str = "") -> dict[str, Tensor]:
    """Parameters and buffers of a pickled module, by the names of its state dictionary."""
    state = module_state(module)
    if state is None:
        return {}
    found: dict[str, Tensor] = {}
    transient = state.get("_non_persistent_buffers_set", ())
    if isinstance(transient, Shell):  # a set, by the protocols that have no word for one
        transient = transient.arguments[0] if transient.arguments else ()
    for kind in ("_parameters", "_buffers"):
        for name, value in contents(state.get(kind)).items():
            if isinstance(value, Tensor) and name not in transient:
                found[f"{prefix}{name}"] = value
    for name, inner in contents(state.get("_modules")).items():
        found |= tensors(inner, f"{prefix}{name}.")
    return found
