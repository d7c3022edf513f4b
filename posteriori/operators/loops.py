"""Independent loops of stations, around which their phases or gains cancel."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_Row = tuple[tuple[int, ...], tuple[int, ...]]  # which baselines of a moment, with which signs


class Loops(NamedTuple):
    """Of T moments with at most q loops each, of w baselines.

    places, signs: (T, q, w), indices of visibilities and +1, -1, or 0 where there is none.
    whiten: (T, q, q), the inverse of the Cholesky factor of a moment's covariance, 0 where there is
    no loop. total: of all loops.
    """

    places: Tensor
    signs: Tensor
    whiten: Tensor
    total: int


class _Both(NamedTuple):
    phases: Loops
    amplitudes: Loops


def loops(variance: Tensor, stations: Tensor, moment: Tensor, kept: Tensor) -> _Both:
    """Triangles for phases and quadrangles for amplitudes, of the visibilities that are kept.

    variance: (n,), of the phase and of the logarithm of each visibility.
    """
    device = variance.device
    v, pairs = variance.double().cpu().numpy(), stations.cpu().numpy()
    places = np.flatnonzero(kept.cpu().numpy())
    labels = moment.cpu().numpy()[places]
    phases: list[tuple[np.ndarray, list[_Row]]] = []
    amplitudes: list[tuple[np.ndarray, list[_Row]]] = []
    for label in np.unique(labels):
        here = places[labels == label]
        baselines = {tuple(pair): k for k, pair in enumerate(pairs[here])}
        names = sorted({s for pair in baselines for s in pair})
        for rows, kind in ((phases, _triangles), (amplitudes, _quadrangles)):
            rows.append((here, _independent(kind(names, baselines), v[here])))
    return _Both(_padded(phases, v, 3, device), _padded(amplitudes, v, 4, device))


def _edge(i: int, j: int, baselines: dict[tuple[int, ...], int]) -> tuple[int, int] | None:
    """The visibility of i and j, and -1 where it is that of j and i, of the opposite phase."""
    if (i, j) in baselines:
        return baselines[i, j], 1
    return (baselines[j, i], -1) if (j, i) in baselines else None


def _triangles(names: list[int], baselines: dict[tuple[int, ...], int]) -> Iterator[_Row]:
    for i, j, k in combinations(names, 3):
        sides = [_edge(*pair, baselines) for pair in ((i, j), (j, k), (k, i))]
        found = [side for side in sides if side is not None]
        if len(found) == 3:
            yield tuple(s[0] for s in found), tuple(s[1] for s in found)


def _quadrangles(names: list[int], baselines: dict[tuple[int, ...], int]) -> Iterator[_Row]:
    for i, j, k, m in combinations(names, 4):
        for a, b, c, d in ((i, j, k, m), (i, k, m, j), (i, m, j, k)):
            # |V_ab V_cd| / |V_ad V_bc|: each station once above and once below
            sides = [_edge(*pair, baselines) for pair in ((a, b), (c, d), (a, d), (b, c))]
            found = [side[0] for side in sides if side is not None]
            if len(found) == 4:
                yield tuple(found), (1, 1, -1, -1)


def _independent(rows: Iterator[_Row], variance: np.ndarray) -> list[_Row]:
    """Of loops those with the least noise, none of them a combination of others."""
    chosen: list[_Row] = []
    basis = np.zeros((0, len(variance)))
    for row in sorted(rows, key=lambda row: float(variance[list(row[0])].sum())):
        w = np.zeros(len(variance))
        w[list(row[0])] = row[1]
        rest = w - basis.T @ (basis @ w)
        rest -= basis.T @ (basis @ rest)
        if (length := float(np.linalg.norm(rest))) > 1e-6:
            basis = np.vstack([basis, rest / length])
            chosen.append(row)
    return chosen


def _padded(
    moments: list[tuple[np.ndarray, list[_Row]]], variance: np.ndarray, w: int, device: torch.device
) -> Loops:
    moments = [(here, rows) for here, rows in moments if rows]
    most = max((len(rows) for _, rows in moments), default=0)
    places = np.zeros((len(moments), most, w), dtype=np.int64)
    signs = np.zeros((len(moments), most, w))
    whiten = np.zeros((len(moments), most, most))
    for t, (here, rows) in enumerate(moments):
        C = np.zeros((len(rows), len(here)))
        for k, (which, sign) in enumerate(rows):
            places[t, k], signs[t, k] = here[list(which)], sign
            C[k, list(which)] = sign
        q = len(rows)
        whiten[t, :q, :q] = np.linalg.inv(np.linalg.cholesky(C * variance[here] @ C.T))
    a, b, c = (torch.from_numpy(part).to(device) for part in (places, signs, whiten))
    return Loops(a, b, c, sum(len(rows) for _, rows in moments))
