"""Denoisers of latents that are told a text: the UNets and transformers of the Stable Diffusion
family, as the ``diffusers`` library makes them, called as every network here is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# What each network is told beside image and label, and whether its latents come in patches of 2x2.
PROMPTED = ("UNet2DConditionModel", "SD3Transformer2DModel", "FluxTransformer2DModel")
DISTILLED_GUIDANCE = 3.5  # of the library's own pipeline for Flux


class PromptedNet(nn.Module):
    """A network of the library as F(x, label, embedding=, ...) with x (B, C, h, w).

    Parameters
    ----------
    net: a model of one of the classes ``PROMPTED``.
    empty: what it is told where it is told nothing: "embedding" (T, width) of the empty text, and
        "pooled" (P,) where it takes one.
    factor: sides of an image over those of its latents.

    embedding: (B, T, width), of a text; T is free.
    pooled: (B, P), of the whole text (SDXL, SD3, Flux).
    time_ids: (B, 6), of SDXL: height and width of the original, top and left of the crop, height
        and width of the result. Without it the image is an original of its own size.
    distilled_guidance: (B,), of a Flux network that was distilled from guidance; 3.5 without it,
        which is the library's own.

    Raises ``ValueError`` for a network that asks for something else.
    """

    def __init__(self, net: nn.Module, empty: Mapping[str, Tensor], factor: int) -> None:
        super().__init__()
        self.kind, self.factor = type(net).__name__, factor
        self.net: Any = net
        self._config: Any = net.config
        _check(self.kind, self._config)
        for name, value in empty.items():
            self.register_buffer(f"empty_{name}", value)
        self.told = tuple(empty)

    @property
    def conditions(self) -> dict[str, tuple[int | None, ...]]:
        """What the network takes beside image and label, as ``priors.Network`` asks for it."""
        out: dict[str, tuple[int | None, ...]] = {}
        for name in self.told:
            shape = tuple(self.get_buffer(f"empty_{name}").shape)
            out[name] = (None, *shape[1:]) if name == "embedding" else shape
        if self._sized:
            out["time_ids"] = (6,)
        if self._guided:
            out["distilled_guidance"] = ()
        return out

    @property
    def _sized(self) -> bool:
        return self.kind == "UNet2DConditionModel" and (
            self._config.addition_embed_type == "text_time"
        )

    @property
    def _guided(self) -> bool:
        return self.kind == "FluxTransformer2DModel" and bool(self._config.guidance_embeds)

    def forward(
        self,
        x: Tensor,
        label: Tensor,
        embedding: Tensor | None = None,
        pooled: Tensor | None = None,
        time_ids: Tensor | None = None,
        distilled_guidance: Tensor | None = None,
    ) -> Tensor:
        told, seen, x = {"embedding": embedding, "pooled": pooled}, x, x.to(self.net.dtype)
        given = {name: self._or_empty(name, told[name], x) for name in self.told}
        return self._called(x, label, given, time_ids, distilled_guidance).to(seen.dtype)

    def _called(
        self,
        x: Tensor,
        label: Tensor,
        given: dict[str, Tensor],
        time_ids: Tensor | None,
        distilled_guidance: Tensor | None,
    ) -> Tensor:
        if self.kind == "FluxTransformer2DModel":
            return self._flux(x, label, given, distilled_guidance)
        if self.kind == "SD3Transformer2DModel":
            return self.net(
                hidden_states=x,
                timestep=label,
                encoder_hidden_states=given["embedding"],
                pooled_projections=given["pooled"],
            ).sample
        added = None
        if self._sized:
            if time_ids is None:
                side = (x.shape[-2] * self.factor, x.shape[-1] * self.factor)
                time_ids = x.new_tensor([*side, 0, 0, *side]).expand(len(x), 6)
            added = {"text_embeds": given["pooled"], "time_ids": time_ids}
        return self.net(x, label, given["embedding"], added_cond_kwargs=added).sample

    def _flux(
        self, x: Tensor, label: Tensor, given: dict[str, Tensor], guidance: Tensor | None
    ) -> Tensor:
        """Latents in patches of 2x2, channels in the order (c, dy, dx); each told its place."""
        h, w = x.shape[-2] // 2, x.shape[-1] // 2
        rows = torch.arange(h, device=x.device).repeat_interleave(w)
        columns = torch.arange(w, device=x.device).repeat(h)
        places = torch.stack([torch.zeros_like(rows), rows, columns], 1).to(x.dtype)
        embedding = given["embedding"]
        if self._guided and guidance is None:
            guidance = torch.full((len(x),), DISTILLED_GUIDANCE, device=x.device)
        out = self.net(
            hidden_states=nn.functional.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2),
            timestep=label / 1000,
            guidance=guidance if self._guided else None,
            pooled_projections=given["pooled"],
            encoder_hidden_states=embedding,
            txt_ids=embedding.new_zeros(embedding.shape[1], 3),
            img_ids=places,
        ).sample
        return nn.functional.pixel_shuffle(out.transpose(1, 2).unflatten(2, (h, w)), 2)

    def _or_empty(self, name: str, value: Tensor | None, x: Tensor) -> Tensor:
        if value is not None:
            return value.to(x)
        empty = self.get_buffer(f"empty_{name}").to(x)
        return empty.expand(len(x), *empty.shape)


class PipelineAutoencoder(nn.Module):
    """The ``AutoencoderKL`` of a pipeline with encode(x) -> z, the mode of its distribution, and
    decode(z) -> x, both without scale and shift.

    Its attention is written out, and what its normalisations are given is contiguous: derivatives
    along a direction, forwards or by differentiating twice, then exist.
    """

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        from diffusers.models.attention_processor import AttnProcessor

        net: Any = vae
        net.set_attn_processor(AttnProcessor())
        self.vae = net
        for part in vae.modules():
            if isinstance(part, nn.GroupNorm):
                part.register_forward_pre_hook(_contiguous)

    @property
    def encoder(self) -> nn.Module:
        return self.vae.encoder

    @property
    def decoder(self) -> nn.Module:
        return self.vae.decoder

    def encode(self, x: Tensor) -> Tensor:
        return self.vae.encode(x).latent_dist.mode()

    def decode(self, z: Tensor) -> Tensor:
        return self.vae.decode(z).sample


def _contiguous(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(t.contiguous() for t in given)


def _check(kind: str, config: Any) -> None:
    if kind not in PROMPTED:
        raise ValueError(f"unknown network {kind!r}; known are {', '.join(PROMPTED)}")
    asked = {
        "addition_embed_type": (None, "text_time"),
        "class_embed_type": (None,),
        "encoder_hid_dim_type": (None,),
        "time_cond_proj_dim": (None,),
    }
    for name, known in asked.items():
        value = getattr(config, name, None)
        if kind == "UNet2DConditionModel" and value not in known:
            raise ValueError(
                f"a {kind} with {name}={value!r} is told something that no text says; "
                "wrap it in Network yourself"
            )
