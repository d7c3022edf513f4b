"""Our networks beside the original code of their families, at random weights.

    python benchmarks/originals.py [adm ...]

The original is fetched by pip into a temporary folder, without its dependencies, and is never part
of this repository:

    adm        guided-diffusion-sdk 1.0.0: guided_diffusion.unet.UNetModel
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
import types
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from foreign import fill, wave

from posteriori.priors.architectures.adm import ADM

warnings.simplefilter("ignore")


def fetched(package: str, *stubs: str) -> None:
    """Put ``package`` on the path; modules named in ``stubs`` are empty."""
    folder = tempfile.mkdtemp()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, package]
    subprocess.run(pip, check=True)
    sys.path.insert(0, folder)
    for name in stubs:
        sys.modules[name] = types.ModuleType(name)


def compared(name: str, ours, theirs, *inputs, anchor: bool = False) -> None:
    """Print the largest difference of two networks of the same weights, over the largest value."""
    if anchor:
        fill(theirs)
    else:
        for p in theirs.parameters():
            torch.nn.init.normal_(p, std=0.15)
    missing = set(ours.state_dict()) ^ set(theirs.state_dict())
    assert not missing, missing
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        a, b = theirs.eval()(*inputs), ours.eval()(*inputs)
    print(f"{name:40} {float((a - b).abs().max() / a.abs().max()):.1e}")
    if anchor:
        print("   ", [round(v, 6) for v in a.flatten()[:: a.numel() // 6].tolist()])


# Arguments of ours: scaled, residual resampling, learned resampling, classes, new order, heads,
# channels of a head.
ADM_CASES = {
    "scaled, residual": (True, True, True, None, False, None, 16),
    "scaled, residual, classes, new order": (True, True, True, 7, True, None, 32),
    "plain, learned resampling": (False, False, True, None, False, 4, None),
    "scaled, unlearned, classes, new order": (True, False, False, 5, True, 2, None),
    "plain, residual": (False, True, False, None, False, 4, None),
}


def adm() -> None:
    fetched("guided-diffusion-sdk==1.0.0", "blobfile")
    UNetModel = importlib.import_module("guided_diffusion.unet").UNetModel
    torch.manual_seed(0)
    for anchor in (False, True):
        for name, (scaled, block, learned, classes, new, heads, each) in ADM_CASES.items():
            multipliers, attention, blocks = ((1, 2), (2,), 1) if anchor else ((1, 2, 2), (2, 4), 2)
            theirs = UNetModel(
                image_size=32,
                in_channels=3,
                model_channels=32,
                out_channels=6,
                num_res_blocks=blocks,
                attention_resolutions=attention,
                channel_mult=multipliers,
                conv_resample=learned,
                num_classes=classes,
                num_heads=heads or 1,
                num_head_channels=each or -1,
                use_scale_shift_norm=scaled,
                resblock_updown=block,
                use_new_attention_order=new,
            )
            ours = ADM(
                3, 6, 32, multipliers, blocks, attention, heads, each, scaled, block, learned,
                classes, new,
            )  # fmt: skip
            y = None if classes is None else torch.tensor([1, 4])
            side = 8 if anchor else 32
            x = wave((2, 3, side, side), 0.5)
            compared(f"ADM {name}", ours, theirs, x, torch.tensor([3.0, 700.0]), y, anchor=anchor)


FAMILIES = {"adm": adm}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    for name in parser.parse_args().families:
        FAMILIES[name]()


if __name__ == "__main__":
    main()
