"""Networks that the ``diffusers`` library builds from a configuration, of a closed list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from posteriori.priors.architectures.adm import class_given

NetworkKind = Literal["UNet2DModel", "DiTTransformer2DModel"]
NETWORK_KINDS: tuple[str, ...] = get_args(NetworkKind)


class DiffusersNet(nn.Module):
    """A network of the library, called as every network here is: (x, label) and, if it has classes,
    ``class_labels`` (B,). ``arguments`` is what this one was made with.

    Parameters
    ----------
    kind: its class.
    config: what its configuration file holds, less the entries of the file itself ("_class_name").
    negative: the output has the other sign.

    Of a transformer with classes the image is that of no class where none is given: the last entry
    of its table, which training with dropped classes leaves it.
    Raises ``ImportError`` without the library, ``ValueError`` for another class.
    """

    def __init__(
        self, kind: NetworkKind, config: Mapping[str, Any], negative: bool = False
    ) -> None:
        super().__init__()
        try:
            import diffusers
        except ImportError as error:
            raise ImportError(
                f"a {kind} needs the diffusers library: pip install posteriori[diffusers] ({error})"
            ) from None
        if kind not in NETWORK_KINDS:
            known = ", ".join(NETWORK_KINDS)
            raise ValueError(f"unknown diffusers network {kind!r}; known are {known}")
        own = {name: value for name, value in config.items() if not name.startswith("_")}
        self.arguments: dict[str, object] = {"kind": kind, "config": own, "negative": negative}
        self.net: nn.Module = getattr(diffusers, kind).from_config(own)
        self.negative = negative
        self.classes: int | None = own.get(
            "num_class_embeds" if kind == "UNet2DModel" else "num_embeds_ada_norm"
        )
        self.no_class = self.classes if kind == "DiTTransformer2DModel" else None

    @property
    def conditions(self) -> dict[str, tuple[int | None, ...]]:
        """What the network takes beside image and label, as ``priors.Network`` asks for it."""
        return {} if self.classes is None else {"class_labels": ()}

    def forward(self, x: Tensor, label: Tensor, class_labels: Tensor | None = None) -> Tensor:
        given: dict[str, Tensor] = {}
        if self.classes is not None:
            if class_labels is None and self.no_class is not None:
                class_labels = torch.full((len(x),), self.no_class, device=x.device)
            given["class_labels"] = class_given(class_labels, self.classes, "class_labels")
        out = self.net(x, label, **given).sample
        return -out if self.negative else out
