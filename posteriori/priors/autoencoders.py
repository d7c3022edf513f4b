"""Autoencoders of latent priors: images x (B, *E) to unscaled latents z (B, *U) and back.

Scale and shift of latents, and the range in which a user states images, are those of ``Latent``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint


class Autoencoder(nn.Module):
    """A network with ``encode(x) -> z`` and ``decode(z) -> x``.

    Parameters
    ----------
    net: both are deterministic and return a tensor: ``encode`` gives the mode of a variational
        encoder, not a draw. Its parameters are frozen. x and z are cast to their dtype and the
        results back.
    factor: an image of H x W has latents of H / factor x W / factor.
    channels, latent_channels: of images and of latents.
    checkpointing: gradients keep little of the network in memory and compute the rest anew. Every
        part of ``net.decoder`` and of ``net.encoder`` (of ``net``, where it has none) that has
        parts of its own keeps its input alone; these segments nest. Costs a forward pass for each
        level of nesting. The numbers are the same. A decoder of the shape of Stable Diffusion's
        takes 0.32 of the memory (tested).

    Raises ``ValueError`` for a network without ``encode`` or ``decode``, or numbers below 1.
    Source: Chen, Xu, Zhang, Guestrin, Training deep nets with sublinear memory cost, 2016.
    """

    own_precision: bool = True

    def __init__(
        self,
        net: nn.Module,
        *,
        factor: int,
        channels: int,
        latent_channels: int,
        checkpointing: bool = True,
    ) -> None:
        super().__init__()
        for name in ("encode", "decode"):
            if not callable(getattr(net, name, None)):
                raise ValueError(
                    f"Autoencoder takes a network with encode(x) and decode(z), "
                    f"{type(net).__name__} has no {name}"
                )
        numbers = {"factor": factor, "channels": channels, "latent_channels": latent_channels}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"Autoencoder: {name} must be at least 1, got {value}")
        self.net, self.factor, self.channels = net, int(factor), int(channels)
        self.latent_channels, self.checkpointing = int(latent_channels), checkpointing
        self.eval().requires_grad_(False)

    @property
    def matrix(self) -> None:
        return None

    def encode(self, x: Tensor) -> Tensor:
        return self._run("encode", getattr(self.net, "encoder", self.net), x)

    def decode(self, z: Tensor) -> Tensor:
        return self._run("decode", getattr(self.net, "decoder", self.net), z)

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the latents of an image (channels, H, W). Raises ``ValueError`` for images that the
        network does not take."""
        f = self.factor
        if len(shape) != 3 or shape[0] != self.channels or any(n % f for n in shape[1:]):
            raise ValueError(
                f"the autoencoder takes images ({self.channels}, H, W) with sides that are "
                f"multiples of {f}, got {tuple(shape)}"
            )
        return self.latent_channels, shape[1] // f, shape[2] // f

    def image_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the image of latents (latent_channels, h, w)."""
        return self.channels, shape[-2] * self.factor, shape[-1] * self.factor

    def _run(self, what: str, inside: nn.Module, t: Tensor) -> Tensor:
        kind = next((p.dtype for p in self.net.parameters()), t.dtype)
        call: Callable[[Tensor], Any] = getattr(self.net, what)
        follow = self.checkpointing and torch.is_grad_enabled() and t.requires_grad
        with plain_attention(), segmented(inside) if follow else nullcontext():
            out = call(t.to(kind))
        if not isinstance(out, Tensor):
            raise TypeError(
                f"{what} of the {type(self.net).__name__} must return a tensor, got a "
                f"{type(out).__name__}; of a distribution take its mode"
            )
        return out.to(t.dtype)


class LinearAutoencoder(nn.Module):
    """x = W z, and z = W^+ x: latents are coordinates in the columns of W.

    W: (d, k) of rank k, d and k being the numbers of an image and of a latent. Where its columns
    are orthonormal W^+ is W^T. image_shape, latent_shape: of one; (d,) and (k,) by default.

    A linear operator and Gaussian noise stay so, and a prior in closed form keeps it.
    Raises ``ValueError`` for other shapes, or columns that depend on each other.
    """

    own_precision: bool = False
    W: Tensor
    inverse: Tensor

    def __init__(
        self,
        W: Tensor,
        image_shape: tuple[int, ...] | None = None,
        latent_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if W.ndim != 2 or not W.is_floating_point():
            raise ValueError(
                f"LinearAutoencoder needs a real matrix (d, k), got {W.dtype} {tuple(W.shape)}"
            )
        d, k = W.shape
        self.shapes = tuple(image_shape or (d,)), tuple(latent_shape or (k,))
        for what, shape, n in zip(
            ("image_shape", "latent_shape"), self.shapes, (d, k), strict=True
        ):
            if torch.Size(shape).numel() != n:
                raise ValueError(f"LinearAutoencoder: {what} {shape} must have {n} numbers")
        if int(torch.linalg.matrix_rank(W)) < k:
            raise ValueError(
                f"LinearAutoencoder: the {k} columns of W have rank "
                f"{int(torch.linalg.matrix_rank(W))}; several latents would have one image"
            )
        self.register_buffer("W", W)
        self.register_buffer("inverse", torch.linalg.pinv(W))

    @property
    def matrix(self) -> Tensor:
        return self.W

    def encode(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.inverse.T.to(x)).view(-1, *self.shapes[1])

    def decode(self, z: Tensor) -> Tensor:
        return (z.flatten(1) @ self.W.T.to(z)).view(-1, *self.shapes[0])

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the latents of an image. Raises ``ValueError`` for another than W makes."""
        if tuple(shape) != self.shapes[0]:
            raise ValueError(f"the autoencoder takes images {self.shapes[0]}, got {tuple(shape)}")
        return self.shapes[1]

    def image_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the image of latents."""
        return self.shapes[0]


def plain_attention() -> AbstractContextManager[None]:
    """Within it attention is written out: its fast kernels have neither forward derivatives nor
    derivatives of their derivatives, which J v of a decoder takes."""
    return sdpa_kernel(SDPBackend.MATH)


@contextmanager
def segmented(module: nn.Module) -> Iterator[None]:
    """Within it, parts of ``module`` that have parts of their own are segments for
    back-propagation: each keeps its input, and its inside is computed anew when it is asked for,
    with the parts inside as segments again."""
    parts = [part for part in _callable_parts(module) if next(part.children(), None) is not None]
    found = {part: part.__dict__.get("forward") for part in parts}
    for part in parts:
        part.__dict__["forward"] = partial(_segment, part, part.forward)
    try:
        yield
    finally:
        for part, forward in found.items():
            del part.__dict__["forward"]
            if forward is not None:
                part.__dict__["forward"] = forward


def _segment(part: nn.Module, forward: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    def inside(*args: Any, **keywords: Any) -> Any:
        with plain_attention(), segmented(part):
            return forward(*args, **keywords)

    return checkpoint(inside, *args, use_reentrant=False, preserve_rng_state=False, **keywords)


def _callable_parts(module: nn.Module) -> Iterator[nn.Module]:
    """Children, those of a list or dictionary of modules in its place."""
    for part in module.children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            yield from _callable_parts(part)
        else:
            yield part
