"""A training file of a tiny network, on complete images or on masked ones, and whether two
checkpoints are the same."""

from __future__ import annotations

import numpy as np
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


def masked(folder, *, noise=0.0, count=24, side=8, keep=0.6):
    """Stripes of -1 and 1, of which a share of the pixels was measured, in ``folder/masked.npz``:
    the entry ``data`` of a training file."""
    rng = np.random.default_rng(0)
    columns = 2.0 * rng.integers(0, 2, (count, 1, side)) - 1
    images = np.broadcast_to(columns, (count, side, side))
    masks = rng.random(images.shape) < keep
    y = np.where(masks, images + noise * rng.standard_normal(images.shape), 0.0)
    np.savez(folder / "masked.npz", y=y, seen=masks)
    return {
        "kind": "masked",
        "file": "masked.npz",
        "key": "y",
        "masks": "seen",
        "window": [-1, 1],
        "noise": noise,
        "crop": side,
    }


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
