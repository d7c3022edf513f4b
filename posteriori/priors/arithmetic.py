"""The precision of a network's inner arithmetic that a machine is best at."""

from __future__ import annotations

from typing import Literal

import torch

# The first NVIDIA processors that multiply bfloat16.
AMPERE = (8, 0)


def quickest(device: str | torch.device = "cpu") -> Literal["float32", "bfloat16"]:
    """bfloat16 where the device multiplies it, else float32: on CPUs with AMX or avx512_bf16, on
    NVIDIA GPUs from compute capability 8.0.

    It is told by what the device says of itself, never by a clock: all processes on one kind of
    machine agree. CPUs that work it out in float32 count as without. A device that is not there is
    float32.
    """
    try:
        place = torch.device(device)
        if place.type == "cuda" and torch.version.cuda is not None:
            capable = torch.cuda.get_device_capability(place) >= AMPERE
        else:
            capable = place.type == "cpu" and _multiplies_bfloat16()
    except (RuntimeError, AssertionError):  # torch without CUDA raises the second
        return "float32"
    return "bfloat16" if capable else "float32"


def _multiplies_bfloat16() -> bool:
    """Matrices (AMX) or vectors of it. torch says so by names that it does not promise to keep;
    without them the answer is no."""
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    units = any(getattr(torch.cpu, name, lambda: False)() for name in names)
    try:
        return bool(units and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False
