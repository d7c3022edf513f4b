"""Which tokens a token of an hourglass transformer looks at."""

from __future__ import annotations

import pytest
import torch
from foreign import wave

from posteriori.priors.architectures.hourglass import neighbours_seen, windows_seen


def seen_by_hand(q, k, v, sees):
    """softmax(q k^T) v of each token over those that ``sees(i, j, k, l)`` allows."""
    height, width = q.shape[2:4]
    cells = [(i, j) for i in range(height) for j in range(width)]
    mask = torch.tensor([[sees(*a, *b) for b in cells] for a in cells])
    weights = (q.flatten(2, 3) @ k.flatten(2, 3).mT).masked_fill(~mask, -torch.inf).softmax(-1)
    return (weights @ v.flatten(2, 3)).view(q.shape)


QKV = [wave((2, 2, 8, 12, 4), start).double() for start in (0.1, 0.7, 1.9)]


@pytest.mark.parametrize("reach", [1, 3, 4, 7, 8])
def test_a_token_sees_the_square_around_it_moved_inside_at_the_border(reach):
    def near(place, other, count):
        first = min(max(place - reach // 2, 0), count - reach)
        return first <= other < first + reach

    want = seen_by_hand(*QKV, lambda i, j, k, m: near(i, k, 8) and near(j, m, 12))
    torch.testing.assert_close(neighbours_seen(*QKV, reach), want)
    with pytest.raises(ValueError, match=r"sees 9 x 9 around it, and the image has only 8 x 12"):
        neighbours_seen(*QKV, 9)


@pytest.mark.parametrize(("reach", "shift"), [(4, 0), (4, 2), (2, 1), (4, 1)])
def test_a_token_sees_its_window_and_nothing_round_the_border(reach, shift):
    """Windows begin at multiples of ``reach`` less ``shift``; those at a border are cut there."""

    def window(place):
        return (place + shift) // reach

    want = seen_by_hand(*QKV, lambda i, j, k, m: (window(i), window(j)) == (window(k), window(m)))
    torch.testing.assert_close(windows_seen(*QKV, reach, shift), want)
    with pytest.raises(ValueError, match="no whole windows of 5 x 5"):
        windows_seen(*QKV, 5, 0)
