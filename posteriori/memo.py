"""What was computed from a module's numbers, kept until they change: a norm, a singular value
decomposition, a Fourier transform.

A change in place counts (``load_state_dict``, ``A.kernel.mul_(3)``), as does another tensor,
precision or device. Nothing is written into the module, so that a copy or a saved state never
brings another module's results along.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

_T = TypeVar("_T")
# A tensor with its version and address, or a plain setting by its name.
Content = list[tuple[Any, ...]]
_KEPT: WeakKeyDictionary[nn.Module, dict[Hashable, tuple[Content, Any]]] = WeakKeyDictionary()


def kept(owner: nn.Module, what: Hashable, make: Callable[[], _T], *tensors: Tensor) -> _T:
    """``make()``, computed anew when one of ``tensors`` has changed since; by default when any
    tensor or plain setting of ``owner`` has.

    What ``make`` returns must not refer to ``owner``. Tensors made under ``torch.inference_mode``
    have no version: nothing is kept.
    """
    numbers = list(tensors) or _tensors(owner)
    if any(t.is_inference() for t in numbers):
        return make()
    shelf = _KEPT.setdefault(owner, {})
    if what in shelf and _same(shelf[what][0], _content(owner, numbers, bool(tensors))):
        return shelf[what][1]
    value = make()
    # Looked at after the work, which may have set up what an owner makes at its first use.
    shelf[what] = _content(owner, numbers, bool(tensors)), value
    return value


def _tensors(owner: nn.Module) -> list[Tensor]:
    plain = [v for part in owner.modules() for v in vars(part).values() if isinstance(v, Tensor)]
    return [*owner.parameters(), *owner.buffers(), *plain]


def _content(owner: nn.Module, numbers: list[Tensor], tensors_only: bool) -> Content:
    # Holding the tensors keeps their addresses from being given to others.
    content: Content = [(t, t._version, t.data_ptr(), t.dtype) for t in numbers]
    if not tensors_only:
        for part in owner.modules():
            public = (
                (k, v) for k, v in vars(part).items() if not k.startswith("_") and k != "training"
            )
            content += [(k, v) for k, v in public if isinstance(v, int | float | complex | str)]
    return content


def _same(a: Content, b: Content) -> bool:
    return len(a) == len(b) and all(
        x[0] is y[0] and x[1:] == y[1:] for x, y in zip(a, b, strict=True)
    )
