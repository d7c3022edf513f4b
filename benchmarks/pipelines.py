"""What pipelines of the Stable Diffusion family weigh, and what a gradient through their parts
takes: the tables of docs/latent.md.

    python benchmarks/pipelines.py parameters          counted on the meta device, no weights needed
    python benchmarks/pipelines.py operations          of one pass, counted on the meta device
    python benchmarks/pipelines.py gradients [SIDE]    random weights at full size on this CPU

Each gradient is measured in a process of its own: seconds, and the peak of its memory above that
before the call. Needs diffusers and transformers.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch

UNETS = {
    "Stable Diffusion 1.5": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "Stable Diffusion 2.1": {
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "Stable Diffusion XL": {
        "cross_attention_dim": 2048,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
        "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


def autoencoder(channels=4):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
    )


def clip(width, layers, heads):
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
        )
    )


def t5():
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=32128,
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )


def makers():
    """Name -> the denoiser and the text encoders."""
    from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

    small, large, huge = (
        (lambda: clip(768, 12, 12)),
        (lambda: clip(1280, 32, 20)),
        (lambda: clip(1024, 23, 16)),
    )
    readers = {
        "Stable Diffusion 1.5": [small],
        "Stable Diffusion 2.1": [huge],
        "Stable Diffusion XL": [small, large],
    }
    out = {
        name: ((lambda how=how: UNet2DConditionModel(**how)), readers[name])
        for name, how in UNETS.items()
    }
    out["Stable Diffusion 3 medium"] = (
        lambda: SD3Transformer2DModel(
            sample_size=128,
            patch_size=2,
            in_channels=16,
            num_layers=24,
            attention_head_dim=64,
            num_attention_heads=24,
            joint_attention_dim=4096,
            caption_projection_dim=1536,
            pooled_projection_dim=2048,
            out_channels=16,
            pos_embed_max_size=192,
        ),
        [small, large, t5],
    )
    out["Flux dev"] = (
        lambda: FluxTransformer2DModel(
            in_channels=64,
            num_layers=19,
            num_single_layers=38,
            attention_head_dim=128,
            num_attention_heads=24,
            joint_attention_dim=4096,
            pooled_projection_dim=768,
            guidance_embeds=True,
        ),
        [small, t5],
    )
    return out


def count(make):
    """Parameters, in millions."""
    with torch.device("meta"):
        return sum(p.numel() for p in make().parameters()) / 1e6


def parameters():
    vae = count(autoencoder)
    print("| pipeline | denoiser | text encoders | weights in memory: half, with a float32 VAE |")
    print("| --- | --- | --- | --- |")
    for name, (denoiser, readers) in makers().items():
        size, text = count(denoiser), sum(count(read) for read in readers)
        held = (2 * size + 4 * vae) / 1e3
        print(f"| {name} | {size:.0f} M | {text:.0f} M ({2 * text / 1e3:.1f} GB) | {held:.1f} GB |")
    print(f"autoencoder {vae:.1f} M: {4 * vae / 1e3:.2f} GB in float32")


# Side of the images that each was trained on; width and length of its text; width of the pooled
# embedding.
TRAINED = {
    "Stable Diffusion 1.5": (512, 768, 77, 0),
    "Stable Diffusion 2.1": (768, 1024, 77, 0),
    "Stable Diffusion XL": (1024, 2048, 77, 1280),
    "Stable Diffusion 3 medium": (1024, 4096, 333, 2048),
    "Flux dev": (1024, 4096, 512, 768),
}


def operations():
    from torch.utils.flop_counter import FlopCounterMode

    from posteriori.priors.architectures.prompted import PipelineAutoencoder, PromptedNet

    def counted(call):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        return counter.get_total_flops() / 1e12

    print("| pipeline | side | one pass of the denoiser | one decoding |")
    print("| --- | --- | --- | --- |")
    for name, (denoiser, _) in makers().items():
        side, width, length, pooled = TRAINED[name]
        with torch.device("meta"):
            net, vae = denoiser(), PipelineAutoencoder(autoencoder())
            told = {"embedding": torch.zeros(length, width)}
            told |= {"pooled": torch.zeros(pooled)} if pooled else {}
            channels = 4 if name in UNETS else 16
            u = torch.zeros(1, channels, side // 8, side // 8)
            z, label = torch.zeros(1, 4, side // 8, side // 8), torch.zeros(1)
        whole = PromptedNet(net, told, 8)
        denoise = counted(lambda whole=whole, u=u, label=label: whole(u, label))
        decode = counted(lambda vae=vae, z=z: vae.decode(z))
        print(f"| {name} | {side} | {denoise:.1f} TFLOP | {decode:.1f} TFLOP |")


def measured(what, side):
    """One gradient: through the decoder at side^2, or through the UNet of 1.5 at its latents."""
    from posteriori.priors import Autoencoder
    from posteriori.priors.architectures.prompted import PipelineAutoencoder

    torch.manual_seed(0)
    if what == "unet":
        from diffusers import UNet2DConditionModel

        net = UNet2DConditionModel(**UNETS["Stable Diffusion 1.5"]).requires_grad_(False)
        e = torch.randn(1, 77, 768)

        def call(u):
            return net(u, 500, e).sample

    else:
        net = Autoencoder(
            PipelineAutoencoder(autoencoder()),
            factor=8,
            channels=3,
            latent_channels=4,
            checkpointing=what == "decoder, checkpoints",
        )
        call = net.decode
    u = torch.randn(1, 4, side // 8, side // 8, requires_grad=True)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    call(u).square().sum().backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"| {what} | {side} | {time.perf_counter() - began:.0f} s | {peak / 2**20:.2f} GiB |")


def gradients(side):
    print("| gradient through | side of the image | one CPU thread | memory |")
    print("| --- | --- | --- | --- |", flush=True)
    for what in ("decoder, checkpoints", "decoder, plain", "unet"):
        subprocess.run([sys.executable, __file__, "one", what, str(side)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["parameters"]:
        parameters()
    elif sys.argv[1:2] == ["operations"]:
        operations()
    elif sys.argv[1:2] == ["one"]:
        measured(sys.argv[2], int(sys.argv[3]))
    else:
        gradients(int(sys.argv[2]) if len(sys.argv) > 2 else 256)
