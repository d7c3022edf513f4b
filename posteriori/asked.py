"""What a run may be asked for: how many samples, from which on, in pairs or alone."""

from __future__ import annotations

from typing import Any

from posteriori.methods.base import Method


def check_counts(n: int, first: int = 0, batch: int | None = None, returned: int = 1) -> None:
    """Raise ``ValueError`` for numbers of samples and rows that are none."""
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n must be an integer >= 1, got {n!r}")
    if not isinstance(first, int) or isinstance(first, bool) or first < 0 or first % returned:
        together = (
            f", a multiple of the {returned} samples that this method returns together"
            if returned > 1
            else ""
        )
        raise ValueError(f"first must be an integer >= 0{together}, got {first!r}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")


def check_pairs(
    antithetic: bool, n: int, first: int = 0, method: Method[Any] | None = None
) -> None:
    """Raise ``ValueError`` where pairs are asked for and samples cannot come in them."""
    if not isinstance(antithetic, bool):
        raise ValueError(f"antithetic must be True or False, got {antithetic!r}")
    if not antithetic:
        return
    for name, value in (("n", n), ("first", first)):
        if value % 2:
            raise ValueError(f"antithetic samples come in pairs: {name} must be even, got {value}")
    if method is not None and method.group > 1:
        raise ValueError(
            f"antithetic pairs need samples that stand alone; {type(method).__name__} draws them "
            "from clouds of particles, leave antithetic out"
        )
