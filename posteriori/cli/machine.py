"""What a bug report needs to know of a machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata

PACKAGES = (
    "posteriori",
    "torch",
    "numpy",
    "safetensors",
    "pydantic",
    "pillow",
    "scikit-image",
    "tifffile",
    "diffusers",
    "lpips",
)


def machine_text() -> str:
    """Versions, processor, threads, accelerators, one per line."""
    import torch

    lines = [
        f"python: {platform.python_version()}",
        f"system: {platform.system()} {platform.release()} {platform.machine()}",
    ]
    for name in PACKAGES:
        try:
            lines.append(f"{name}: {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name}: not installed")
    lines.append(
        f"cores: {os.cpu_count()}, torch threads: {torch.get_num_threads()}, capability: "
        f"{torch.backends.cpu.get_cpu_capability()}"
    )
    gpu = (
        ", ".join(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count()))
        if torch.cuda.is_available()
        else "none"
    )
    return "\n".join([*lines, f"gpu: {gpu}"])


def env() -> None:
    """Versions and hardware, for a bug report."""
    print(machine_text())
