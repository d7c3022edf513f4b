"""A training file of a tiny network, and whether two checkpoints are the same."""

from __future__ import annotations

import torch
import yaml


def written(folder, **changes):
    """A training file of a tiny network in a folder."""
    values = {
        "name": "toy",
        "network": {"channels": 1, "widths": [8], "blocks": [1], "embedding": 8},
        "data": {"kind": "arrays", "paths": ["data"], "window": [0, 1], "crop": 8},
        "noise": {"log_mean": -0.5, "log_std": 1.0},
        "optimizer": {"name": "adamw", "rate": 3e-3, "warmup": 2, "decay": 1},
        "card": {
            "description": "d",
            "training_data": "t",
            "licence": "CC0",
            "sigma_max": 10.0,
            "sigma_min": 0.01,
        },
        "steps": 4,
        "batch": 4,
        "ema": 0.9,
        "autocast": "none",
        "threads": torch.get_num_threads(),
        "checkpoint_every": 2,
        "held_out": {"share": 0.25, "crops": 6},
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(values | changes))
    return folder / "toy.yaml"


def flat(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [leaf for key in value for leaf in flat(value[key])]
    return (
        [leaf for part in value for leaf in flat(part)]
        if isinstance(value, list | tuple)
        else [value]
    )


def same(a, b):
    pairs = list(zip(flat(a), flat(b), strict=True))
    assert len(pairs) > 10
    return all(torch.equal(u, v) if isinstance(u, torch.Tensor) else u == v for u, v in pairs)
