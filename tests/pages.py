"""Runs that nobody drew, for pages, and what a page holds of them."""

from __future__ import annotations

import base64
import json
import re
import zlib

import numpy as np
import torch

import posteriori as po
from posteriori.run import Run


def run_of(samples, *, log_w=None, span=(0.0, 1.0), extras=None, method="MMPS"):
    """A run of these samples that nobody drew."""
    n = len(samples)
    config = {
        "method": method, "operator": "Blur", "measurement_shape": [4], "range": list(span),
        "noise": {"law": "Gaussian", "sigma": 0.1}, "levels": [1.0, 0.5, 0.0], "seed": 0,
        "image_shape": list(samples.shape[1:]),
    }  # fmt: skip
    return Run(
        samples, torch.zeros(n, dtype=torch.float64) if log_w is None else log_w, None,
        (po.Status(),) * n, {"denoiser": 3, "vjp": 0}, {}, 1.0, config, (), extras or {},
    )  # fmt: skip


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unpacked(page):
    """What the script reads of a page: of each scene its record, and the numbers of its views."""
    text = page if isinstance(page, str) else page.read_text()
    about = json.loads(re.search(r'id="explorer-about">(.*?)</script>', text, re.S)[1])
    blocks = re.findall(r'class="explorer-data">(.*?)</script>', text, re.S)
    out = []
    for scene, block in zip(about["scenes"], blocks, strict=True):
        content, at, views = zlib.decompress(base64.b64decode(block)), 0, {}
        mean = None
        for view in scene["views"]:
            count = int(np.prod(view["shape"]))
            low, high = (
                np.frombuffer(content, np.uint8, count, at + k * count).astype(np.int64)
                for k in range(2)
            )
            at += 2 * count
            z = low + 256 * high
            d = ((z >> 1) ^ -(z & 1)).reshape(view["shape"])
            codes = (d.cumsum(-1) if view["left"] else d) + (mean if view["mean"] else 0)
            codes = codes % 65536
            mean = codes if mean is None else mean
            scale = scene["scales"][view["scale"]]
            values = scale["low"] + scale["step"] * codes
            views[view["name"]] = np.where(codes == about["nothing"], np.nan, values)
        assert at == len(content)
        out.append((scene, views))
    return out
