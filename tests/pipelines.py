"""Tiny pipelines of the Stable Diffusion family with random weights, as the ``diffusers`` library
itself makes them."""

from __future__ import annotations

import torch

LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
KINDS = ("sd15", "sd21", "sdxl", "sd3", "flux")


def clip_tokenizer():
    from transformers import CLIPTokenizer

    words = [*LETTERS, *(c + "</w>" for c in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: k for k, word in enumerate(words)}, merges=[], model_max_length=8
    )


def clip(pooled, width=8):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return (CLIPTextModelWithProjection if pooled else CLIPTextModel)(config)


def t5_tokenizer():
    from transformers import T5TokenizerFast

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -5.0), ("▁", -2.0)]
    return T5TokenizerFast(
        vocab=[*words, *((c, -3.0) for c in LETTERS)], extra_ids=0, model_max_length=16
    )


def t5(width):
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=32,
            d_model=width,
            d_kv=4,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
        )
    )


def vae(latent_channels, scale, shift=None):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=scale,
        shift_factor=shift,
        use_quant_conv=shift is None,
        use_post_quant_conv=shift is None,
    )


def unet(**more):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    )


def diffusion_scheduler(prediction="epsilon"):
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def make(kind):
    """A pipeline object."""
    import diffusers

    torch.manual_seed(0)
    if kind in ("sd15", "sd21"):
        return diffusers.StableDiffusionPipeline(
            vae=vae(4, 0.18215),
            text_encoder=clip(False),
            tokenizer=clip_tokenizer(),
            unet=unet(cross_attention_dim=8),
            scheduler=diffusion_scheduler("epsilon" if kind == "sd15" else "v_prediction"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    if kind == "sdxl":
        return diffusers.StableDiffusionXLPipeline(
            vae=vae(4, 0.13025),
            text_encoder=clip(False),
            text_encoder_2=clip(True),
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(),
            unet=unet(
                cross_attention_dim=16,
                addition_embed_type="text_time",
                addition_time_embed_dim=4,
                projection_class_embeddings_input_dim=8 + 6 * 4,
            ),
            scheduler=diffusion_scheduler(),
        )
    if kind == "sd3":
        return diffusers.StableDiffusion3Pipeline(
            vae=vae(16, 1.5305, 0.0609),
            text_encoder=clip(True),
            text_encoder_2=clip(True),
            text_encoder_3=t5(32),
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(),
            tokenizer_3=t5_tokenizer(),
            transformer=diffusers.SD3Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=16,
                num_layers=1,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=32,
                caption_projection_dim=16,
                pooled_projection_dim=16,
                out_channels=16,
                pos_embed_max_size=16,
            ),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        )
    return diffusers.FluxPipeline(
        vae=vae(16, 0.3611, 0.1159),
        text_encoder=clip(False),
        text_encoder_2=t5(32),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=8,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, max_shift=1.15
        ),
    )
