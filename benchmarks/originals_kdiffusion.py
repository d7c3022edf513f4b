"""The networks of k-diffusion beside their original code, at random weights.

    python benchmarks/originals_kdiffusion.py [--hourglass FILE]

k-diffusion 0.1.1.post1 and einops are fetched by pip into a temporary folder, without their
dependencies: its U-Net and its transformer without levels, as networks and within its Denoiser. Its
hourglass transformer is in no package: FILE is k_diffusion/models/image_transformer_v2.py of its
repository. Neighbourhoods are compared where natten 0.17.5 can be imported, which compiles itself;
for torch 2.13 ``from torch.cuda import _device_t`` has to be taken out of it, and without a GPU the
line of it that asks for one.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import types
import warnings

import torch
from originals import fetched

from posteriori.priors import Network
from posteriori.priors.architectures.hourglass import HourglassTransformer
from posteriori.priors.architectures.image_transformer import ImageTransformer
from posteriori.priors.architectures.kdiffusion import KDiffusionUNet

sys.path.insert(0, "tests")
from foreign import fill_tokens, wave

warnings.simplefilter("ignore")
SIGMAS = torch.tensor([0.2, 5.0])
CLASS = torch.tensor([1, 4])
# Depths, attention, patch, skipped levels, has_variance, whether an augmentation is told.
UNETS = {
    "plain": ((1, 2), (False, True), 1, 0, False, True),
    "patches and a variance": ((1, 1), (True, True), 2, 0, True, False),
    "a skipped level": ((1, 2, 1), (False, False, True), 1, 1, False, True),
}
# Patch, classes.
TRANSFORMERS = {"plain": (2, None), "classes": (4, 5)}
# Sight and reach of the levels, classes.
HOURGLASSES = {
    "global": ((("global", 0), ("global", 0)), None),
    "shifted windows and classes": ((("shifted-window", 4), ("shifted-window", 2), ("none", 0)), 5),
    "neighbourhoods": ((("neighborhood", 5), ("neighborhood", 3), ("global", 0)), None),
}


def original() -> types.ModuleType:
    """Its layers, and beside them its models, without what only training needs."""
    fetched("einops==0.8.1")
    package = types.ModuleType("k_diffusion")
    package.__path__ = [f"{fetched('k-diffusion==0.1.1.post1', 'dctorch')}/k_diffusion"]
    sys.modules["k_diffusion"], sys.modules["dctorch"].functional = package, None
    for name in ("sampling", "utils", "models.flops"):
        sys.modules[f"k_diffusion.{name}"] = types.ModuleType(f"k_diffusion.{name}")
    package.sampling, package.utils = (
        sys.modules[f"k_diffusion.{n}"] for n in ("sampling", "utils")
    )
    package.utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    flops = sys.modules["k_diffusion.models.flops"]
    flops.op = lambda *_: None
    flops.op_linear = flops.op_attention = flops.op_natten = None
    os.environ["K_DIFFUSION_USE_COMPILE"] = "0"
    models = importlib.import_module("k_diffusion.models")
    models.flops = flops
    return importlib.import_module("k_diffusion.layers")


def both(name, ours, theirs, layers, x, y=None, *, anchor) -> None:
    """The largest difference of the networks, and in double precision of the denoisers, theirs
    within its Denoiser and ours as a prior, over the largest value; what theirs returns for the
    weights of the tests."""
    fill_tokens(theirs)
    if not anchor:
        for part in (*theirs.parameters(), *theirs.buffers()):
            part.data += 0.1 * torch.randn(part.shape)
    ours.load_state_dict(theirs.state_dict())
    given = () if y is None else (y,)
    prior = Network(
        lambda x, c: ours(x, c, *given), shape=(3, None, None), sigma_data=0.5, multiple=1
    )
    net = theirs.forward
    theirs.forward = lambda x, sigma: net(x, sigma, **({} if y is None else {"class_cond": y}))
    denoiser = layers.Denoiser(theirs, sigma_data=0.5, weighting="soft-min-snr")
    with torch.no_grad():
        pairs = [(theirs(x, SIGMAS), ours(x, SIGMAS.log() / 4, *given))]
        # In single precision c_in x is rounded otherwise, which these networks make 100 times more.
        denoiser.double(), ours.double()
        x = x.double()
        pairs += [(denoiser(x, s.expand(2)), prior.denoise(x, s)) for s in SIGMAS.double()]
    off = [f"{float((a - b).abs().max() / a.abs().max()):.1e}" for a, b in pairs]
    print(f"{name:40} {off[0]}; denoiser at sigma 0.2 {off[1]}, 5 {off[2]}")
    if anchor:
        out = pairs[0][0]
        print("   ", [round(v, 6) for v in out.flatten()[:: out.numel() // 6].tolist()])


def unets(layers, anchor: bool) -> None:
    models = sys.modules["k_diffusion.models"]
    for name, (depths, there, patch, skipped, variance, told) in UNETS.items():
        widths = (64, 128, 192)[: len(depths)]
        theirs = models.ImageDenoiserModelV1(
            3, 32, depths, widths, there, patch_size=patch, skip_stages=skipped,
            has_variance=variance, mapping_cond_dim=9 * told,
        )  # fmt: skip
        ours = KDiffusionUNet(3, widths, depths, there, 32, patch, skipped, variance, 9 * told)
        x = wave((2, 3, 16, 24), 0.5)
        both(f"U-Net, {name}", ours, theirs, layers, x, anchor=anchor)


def transformers(layers, anchor: bool) -> None:
    models = sys.modules["k_diffusion.models"]
    for name, (patch, classes) in TRANSFORMERS.items():
        count = 0 if classes is None else classes + 1
        theirs = models.ImageTransformerDenoiserModelV1(2, 128, 96, 3, 3, (patch, patch), count)
        ours = ImageTransformer(3, patch, 128, 96, 2, 2, classes=classes)
        y = None if classes is None else CLASS
        x = wave((2, 3, 16, 24), 0.5)
        both(f"transformer, {name}", ours, theirs, layers, x, y, anchor=anchor)


def hourglasses(layers, theirs_of, anchor: bool) -> None:
    for name, (sights, classes) in HOURGLASSES.items():
        if "neighborhood" in dict(sights) and theirs_of.natten is None:
            print(f"hourglass, {name}: natten is not installed")
            continue
        shapes, specs = [], []
        for k, (sight, reach) in enumerate(sights):
            width, hidden = 64 * (k + 1), 48 * (k + 1)
            spec = {
                "global": lambda: theirs_of.GlobalAttentionSpec(32),
                "neighborhood": lambda r=reach: theirs_of.NeighborhoodAttentionSpec(32, r),
                "shifted-window": lambda r=reach: theirs_of.ShiftedWindowAttentionSpec(32, r),
                "none": theirs_of.NoAttentionSpec,
            }[sight]()
            specs.append(theirs_of.LevelSpec(2, width, hidden, spec, 0.0))
            shapes.append({"depth": 2, "width": width, "hidden": hidden, "sight": sight,
                           "heads": width // 32, "reach": reach})  # fmt: skip
        count = 0 if classes is None else classes + 1
        mapping = theirs_of.MappingSpec(2, 48, 40, 0.0)
        theirs = theirs_of.ImageTransformerDenoiserModelV2(specs, mapping, 3, 3, (2, 2), count)
        ours = HourglassTransformer(3, 2, shapes, 48, 40, 2, classes)
        y = None if classes is None else CLASS
        x = wave((2, 3, 32, 48), 0.5)
        both(f"hourglass, {name}", ours, theirs, layers, x, y, anchor=anchor)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hourglass", help="their file image_transformer_v2.py")
    args = parser.parse_args()
    layers = original()
    torch.manual_seed(0)
    theirs_of = None
    if args.hourglass:
        name = "k_diffusion.models.image_transformer_v2"
        spec = importlib.util.spec_from_file_location(name, args.hourglass)
        theirs_of = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(theirs_of)
    for anchor in (False, True):
        unets(layers, anchor)
        transformers(layers, anchor)
        if theirs_of:
            hourglasses(layers, theirs_of, anchor)


if __name__ == "__main__":
    main()
