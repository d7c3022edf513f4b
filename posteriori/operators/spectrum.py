"""What a closed-form singular value decomposition is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.linalg import Map


@dataclass(frozen=True)
class Spectrum:
    """A singular value decomposition A = U diag(s) V^H as four functions.

    With n = numel(E), m = numel(O), k = min(n, m):

    s: (k,) singular values >= 0, in any order. Cast them to the precision of the coordinates before
    use.
    Vh, V: (B, *E) <-> (B, n), unitary and inverse to each other; likewise Uh, U: (B, *O) <->
    (B, m).
    Coordinate i < k of V meets coordinate i of U with the factor s[i]; coordinates beyond k are the
    null space (or the part of the measurement that no image reaches). Coordinates are complex
    exactly when measurements are. For real images with complex measurements (two channels read as
    one complex number) n = numel(E) / 2 complex coordinates.
    """

    s: Tensor
    V: Map
    Vh: Map
    U: Map
    Uh: Map


def apart_from_rounding(s: Tensor) -> Tensor:
    """Singular values, those that are 0 up to the rounding of the largest as 0: times an r2 of 1e8,
    rounding is no longer small."""
    return torch.where(s > 8 * torch.finfo(s.dtype).eps * s.max(), s, 0.0)
