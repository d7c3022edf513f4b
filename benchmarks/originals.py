"""Our networks beside the original code of their families, at random weights.

    python benchmarks/originals.py [adm edm score_sde monai]

The original is fetched by pip into a temporary folder, without its dependencies, and is never part
of this repository:

    adm        guided-diffusion-sdk 1.0.0: guided_diffusion.unet.UNetModel
    score_sde  sgmse 0.1.2: NCSNpp, which is that of score_sde with its images in the complex plane
    edm        deepinv 0.5.0: NCSNpp and ADMUNet, the networks of EDM, without its other modules
    monai      monai 1.6.1 and einops: DiffusionModelUNet
    edm2       training/networks_edm2.py of its authors' repository, which no package carries:
               `python benchmarks/originals.py --edm2 FILE`
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import types
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from foreign import fill, wave

from posteriori.priors import load
from posteriori.priors.architectures.adm import ADM
from posteriori.priors.architectures.edm import EDMNet
from posteriori.priors.architectures.edm2 import EDM2Net
from posteriori.priors.architectures.monai import MonaiUNet
from posteriori.priors.architectures.score_sde import NCSNpp

warnings.simplefilter("ignore")


def fetched(package: str, *stubs: str) -> str:
    """Put ``package`` on the path, and say where it lies; modules named in ``stubs`` are empty."""
    folder = tempfile.mkdtemp()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, package]
    subprocess.run(pip, check=True)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    for name in stubs:
        sys.modules[name] = types.ModuleType(name)
    return folder


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


WIDE = {"width": 128, "multipliers": (1, 1), "blocks": 1, "attention": (4,), "embedding": 512}
EDM_CASES = {
    "DDPM++": ("ddpm", {"kind": "song", "features": 128, "augmentations": 9}),
    "NCSN++": (
        "ncsn",
        {
            "kind": "song",
            "features": 256,
            "augmentations": 9,
            "random_features": True,
            "encoder": "residual",
            "taps": (1, 3, 3, 1),
        },
    ),
    "ADM": (None, {"kind": "dhariwal", "features": 128}),
}


def edm() -> None:
    folder = fetched("deepinv==0.5.0")
    for name, inside in (("deepinv", ""), ("deepinv.models", "/models"), ("deepinv.utils", "/x")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [f"{folder}/deepinv{inside}"]
    sys.modules["deepinv.utils.io"] = types.ModuleType("deepinv.utils.io")
    sys.modules["deepinv.utils.io"].DownloadError = OSError
    NCSNpp = importlib.import_module("deepinv.models.ncsnpp").NCSNpp
    ADMUNet = importlib.import_module("deepinv.models.guided_diffusion").ADMUNet
    torch.manual_seed(0)
    for anchor in (False, True):
        for name, (kind, settings) in EDM_CASES.items():
            for classes in (None, 5):
                theirs = (ADMUNet if kind is None else NCSNpp)(
                    **({} if kind is None else {"model_type": kind}),
                    img_resolution=8,
                    label_dim=classes or 0,
                    augment_dim=settings.get("augmentations", 0),
                    model_channels=128,
                    channel_mult=(1, 1),
                    num_blocks=1,
                    attn_resolutions=(4,),
                    pretrained=None,
                )
                ours = EDMNet(
                    side=8, channels=3, out_channels=3, classes=classes, **(WIDE | settings)
                )
                theirs.forward = theirs.forward_unet
                y = None if classes is None else torch.tensor([1, 4])
                told = None if y is None else torch.nn.functional.one_hot(y, classes).float()
                inputs = wave((2, 3, 8, 8), 0.5), torch.tensor([-1.0, 0.7]), told
                ours_takes = ours.forward
                ours.forward = lambda x, c, _, y=y, f=ours_takes: f(x, c, y)
                what = f"EDM {name}{', classes' if classes else ''}"
                if anchor and settings.get("random_features"):
                    theirs.map_noise.freqs.copy_(wave((128,), 0.3))
                compared(what, ours, theirs, *inputs, anchor=anchor)
    denoiser(ADMUNet(img_resolution=8, model_channels=128, channel_mult=(1, 1), pretrained=None))


def denoiser(net) -> None:
    """One of their denoisers D(x, sigma), as an object, beside the prior that is made of it."""
    prior = load(net, shape=(3, 8, 8), range=(0.0, 1.0), sigma_min=0.01, sigma_max=20.0)
    x = wave((2, 3, 8, 8), 0.5) / 2 + 0.5
    with torch.no_grad():
        there, here = net.eval()(x, 0.3), prior.denoise(x, torch.tensor(0.3))
    print(f"{'a denoiser of deepinv, as an object':40} {float((there - here).abs().max()):.1e}")


# What goes beside the ways down and up there, blocks, sides with attention, VE.
SDE_CASES = {
    "NCSN++ with skips": ("input_skip", "output_skip", "sum", 2, (8,), True),
    "NCSN++ with a stream": ("residual", "none", "sum", 1, (), True),
    "NCSN++ with images beside": ("input_skip", "output_skip", "cat", 1, (16, 4), True),
    "DDPM++": ("none", "none", "sum", 2, (8,), False),
}


class Complex(torch.nn.Module):
    """Their network of two complex images, up to the layer that makes one of them, as one of four
    real ones."""

    def __init__(self, net) -> None:
        super().__init__()
        self.net = net

    def state_dict(self, *_, **__):
        return {k: v for k, v in self.net.state_dict().items() if "output_layer" not in k}

    def forward(self, x, c):
        caught = []
        self.net.output_layer.register_forward_hook(lambda m, inputs, out: caught.append(inputs[0]))
        pairs = x.reshape(len(x), 2, 2, *x.shape[2:]).movedim(2, -1).contiguous()
        self.net(torch.view_as_complex(pairs), c)
        return caught[-1]


def score_sde() -> None:
    folder = fetched("sgmse==0.1.2")
    for name, inside in (("sgmse", ""), ("sgmse.backbones", "/backbones")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [f"{folder}/sgmse{inside}"]
    registry = types.ModuleType("sgmse.backbones.shared")
    registry.BackboneRegistry = types.SimpleNamespace(register=lambda name: lambda cls: cls)
    sys.modules["sgmse.backbones.shared"] = registry
    Theirs = importlib.import_module("sgmse.backbones.ncsnpp").NCSNpp
    torch.manual_seed(0)
    words = {"none": None, "residual": "residual", "input_skip": "skip", "output_skip": "skip"}
    for anchor in (False, True):
        for name, (down, up, joined, blocks, sides, ve) in SDE_CASES.items():
            net = Theirs(
                scale_by_sigma=ve,
                nf=16,
                ch_mult=(1, 2, 2),
                num_res_blocks=blocks,
                attn_resolutions=sides,
                fir=ve,
                progressive=up,
                progressive_input=down,
                progressive_combine=joined,
                embedding_type="fourier" if ve else "positional",
                image_size=16,
                centered=not ve,
            )
            net.sigmas = torch.zeros(1000)
            theirs = Complex(net)
            levels = tuple(k for k in range(3) if 16 >> k in sides)
            ours = NCSNpp(
                4, 16, (1, 2, 2), blocks, levels, ve, words[down], words[up], joined == "cat"
            )
            c = torch.tensor([0.3, 5.0] if ve else [3.0, 700.0])
            compared(f"score_sde {name}", ours, theirs, wave((2, 4, 16, 16), 0.5), c, anchor=anchor)


def edm2(file: str) -> None:
    for name in ("torch_utils", "torch_utils.persistence", "torch_utils.misc"):
        sys.modules[name] = types.ModuleType(name)
    tools = sys.modules["torch_utils"]
    tools.persistence = sys.modules["torch_utils.persistence"]
    tools.misc = sys.modules["torch_utils.misc"]
    tools.persistence.persistent_class = lambda cls: cls
    tools.misc.const_like = lambda x, value: torch.as_tensor(value, dtype=x.dtype)
    spec = importlib.util.spec_from_file_location("networks_edm2", file)
    theirs_of = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs_of)
    torch.manual_seed(0)
    for anchor in (False, True):
        for classes in (None, 5):
            theirs = theirs_of.UNet(
                8, 3, classes or 0, 64, [1, 2], num_blocks=1, attn_resolutions=[4]
            )
            ours = EDM2Net(8, 3, (64, 128), 1, (4,), 64, 128, classes)
            y = None if classes is None else torch.tensor([1, 4])
            told = None if y is None else torch.nn.functional.one_hot(y, classes).float()
            ours_takes = ours.forward
            ours.forward = lambda x, c, _, y=y, f=ours_takes: f(x, c, y)
            if anchor:
                theirs.emb_fourier.freqs.copy_(wave((64,), 0.3))
                theirs.emb_fourier.phases.copy_(wave((64,), 0.6))
            inputs = wave((2, 3, 8, 8), 0.5), torch.tensor([-1.0, 0.7]), told
            compared(f"EDM2{', classes' if classes else ''}", ours, theirs, *inputs, anchor=anchor)


MONAI_CASES = {
    # blocks, attention, residual resampling, combined, projected, classes
    "plain": ((1, 2, 1), (False, True, True), False, False, True, None),
    "classes": ((2, 1, 1), (False, False, False), True, False, True, 5),
    "combined": ((1, 1, 1), (True, False, True), False, True, False, None),
}


def monai() -> None:
    fetched("einops==0.8.1")
    fetched("monai==1.6.1")
    Theirs = importlib.import_module("monai.networks.nets.diffusion_model_unet").DiffusionModelUNet
    torch.manual_seed(0)
    for anchor in (False, True):
        for name, (blocks, there, residual, combined, out, classes) in MONAI_CASES.items():
            theirs = Theirs(
                2, 2, 2, blocks, (32, 64, 96), there, resblock_updown=residual,
                num_head_channels=16, num_class_embeds=classes, include_fc=out,
                use_combined_linear=combined,
            )  # fmt: skip
            ours = MonaiUNet(
                2, 2, (32, 64, 96), blocks, there, 16, 32, residual, combined, out, classes
            )
            y = None if classes is None else torch.tensor([1, 4])
            told = theirs.forward
            theirs.forward = lambda x, t, y=y, f=told: f(x, t, class_labels=y)
            seen = ours.forward
            ours.forward = lambda x, t, y=y, f=seen: f(x, t, y)
            inputs = wave((2, 2, 16, 16), 0.5), torch.tensor([3.0, 700.0])
            compared(f"MONAI {name}", ours, theirs, *inputs, anchor=anchor)


FAMILIES = {"adm": adm, "edm": edm, "score_sde": score_sde, "monai": monai}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("families", nargs="*", default=[])
    parser.add_argument("--edm2", help="their file networks_edm2.py")
    args = parser.parse_args()
    for name in args.families or ([] if args.edm2 else FAMILIES):
        FAMILIES[name]()
    if args.edm2:
        edm2(args.edm2)


if __name__ == "__main__":
    main()
