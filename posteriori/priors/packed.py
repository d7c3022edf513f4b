"""The residual blocks of ``unet`` on a processor, with frozen weights in the order in which oneDNN
reads them.

    t = (1 + a) conv1(silu(n)) + b,   n = norm(h),        block(h) = h + conv2(silu(t))
    J^T g = g + norm'^T( silu'(n) conv1^T( (1 + a) silu'(t) conv2^T g ) )

torch would reorder, and under autocast round, every weight at each call. Here it is done once,
until a weight changes. conv^T is itself a convolution with turned weights. The two slopes are made
at the first product J^T g and kept in place of n and t, as methods ask for several products of one
h. The forward pass has the bits that torch's own has; a product differs by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posteriori.memo import kept
from posteriori.operators.transpose import followed

if TYPE_CHECKING:
    from posteriori.priors.unet import Block

TINY = 1e-4
_ONES = [1, 1]


def fits(block: Block, h: Tensor, scale: Tensor) -> bool:
    """Whether ``residual`` may stand for the block: nothing but h (B, C, H, W) is differentiated,
    in reverse mode, on a processor whose oneDNN takes h's precision."""
    if h.device.type != "cpu" or h.dtype not in (torch.float32, torch.bfloat16):
        return False
    autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else h.dtype
    if autocast != h.dtype or (torch.is_grad_enabled() and scale.requires_grad):
        return False
    return (
        all(_frozen(part) for part in (block.norm, block.conv1, block.conv2))
        and bool(torch.backends.mkldnn.enabled)
        and not followed(h.detach())
        and _works(h.dtype)
    )


def residual(block: Block, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """block(h), with 1 + a = ``scale`` and b = ``shift``, (B or 1, C, 1 or H, 1 or W) in h's
    precision."""
    first, second = block.conv1, block.conv2
    numbers = block.norm.gain, first.weight, first.bias, second.weight, second.bias
    with torch.autocast("cpu", enabled=False):
        if torch.is_grad_enabled() and h.requires_grad:
            return _Residual.apply(h, block, numbers, scale, shift)
        return _forward(h, _packed(block, numbers, h.dtype), scale, shift, keep=False)[0]


@dataclass(frozen=True)
class _Packed:
    """gain (C,), weights in oneDNN's order and biases (C,), in one precision."""

    gain: Tensor
    first: Tensor
    bias: Tensor
    second: Tensor
    bias2: Tensor


def _packed(block: nn.Module, numbers: tuple[Any, ...], dtype: torch.dtype) -> _Packed:
    def make() -> _Packed:
        gain, first, bias, second, bias2 = (t.detach().to(dtype) for t in numbers)
        return _Packed(gain, _ordered(first), bias, _ordered(second), bias2)

    return kept(block, ("packed", dtype), make, *numbers)


def _turned(
    block: nn.Module, numbers: tuple[Any, ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The weights of conv1^T and conv2^T."""

    def make() -> tuple[Tensor, Tensor]:
        first, second = (
            _ordered(w.detach().to(dtype).transpose(0, 1).flip(2, 3))
            for w in (numbers[1], numbers[3])
        )
        return first, second

    return kept(block, ("turned", dtype), make, *numbers)


def _ordered(w: Tensor) -> Tensor:
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    ordered: Tensor = reorder(w.contiguous().to_mkldnn(), _ONES, _ONES, _ONES, 1)
    return ordered


def _conv(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3 x 3 convolution of x, whose channels are last in memory, with an ordered weight."""
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, w, bias, _ONES, _ONES, _ONES, 1, "none", [], None
    )
    return out


def _forward(
    h: Tensor, p: _Packed, scale: Tensor, shift: Tensor, *, keep: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """block(h), and n, t and the statistics of the norm where they are to be kept."""
    n, mean, rstd = torch.native_layer_norm(
        h.permute(0, 2, 3, 1), (h.shape[1],), p.gain, None, TINY
    )
    n = n.permute(0, 3, 1, 2)
    u = _conv(F.silu(n, inplace=not keep), p.first, p.bias)
    t = torch.addcmul(shift, u, scale, out=u)
    out = _conv(F.silu(t, inplace=not keep), p.second, p.bias2).add_(h)
    return out, (n, t, mean, rstd)


class _Residual(torch.autograd.Function):
    """``residual`` with its product J^T g. A derivative of that product, and products of many g at
    once, go by torch's own operations."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, block: Block, numbers: Any, scale: Tensor, shift: Tensor
    ) -> Tensor:
        out, ctx.inner = _forward(h, _packed(block, numbers, h.dtype), scale, shift, keep=True)
        ctx.save_for_backward(h)
        ctx.block, ctx.numbers, ctx.scale, ctx.shift, ctx.slopes = (
            block,
            numbers,
            scale,
            shift,
            None,
        )
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (h,), g = ctx.saved_tensors, gradients[0]
        if torch.is_grad_enabled() or followed(h.detach()):
            return _by_torch(ctx, h, g), None, None, None, None
        if ctx.slopes is None:
            n, t, mean, rstd = ctx.inner
            slope = torch.ops.aten.silu_backward
            one = torch.ones((), dtype=h.dtype).expand_as(n)
            ctx.slopes = slope(one, n), slope(ctx.scale.expand_as(t), t), mean, rstd
            ctx.inner = None
        first, second, mean, rstd = ctx.slopes
        turned = _turned(ctx.block, ctx.numbers, h.dtype)
        g = g.contiguous(memory_format=torch.channels_last)
        v = _conv(_conv(g, turned[1]).mul_(second), turned[0]).mul_(first)
        gain = ctx.numbers[0].detach().to(h.dtype)
        through = torch.ops.aten.native_layer_norm_backward(
            v.permute(0, 2, 3, 1),
            h.permute(0, 2, 3, 1),
            (h.shape[1],),
            mean,
            rstd,
            gain,
            None,
            [True, False, False],
        )[0]
        return through.permute(0, 3, 1, 2).add_(g), None, None, None, None


def _by_torch(ctx: Any, h: Tensor, g: Tensor) -> Tensor:
    """J^T g by differentiating the formula of the block, which may be differentiated again."""
    gain, first, bias, second, bias2 = (t.detach().to(h.dtype) for t in ctx.numbers)
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        h = h if again else h.detach().requires_grad_()
        n = F.layer_norm(h.permute(0, 2, 3, 1), (h.shape[1],), gain, eps=TINY).permute(0, 3, 1, 2)
        u = F.conv2d(F.silu(n), first, bias, padding=1)
        t = torch.addcmul(ctx.shift, u, ctx.scale)
        out = h + F.conv2d(F.silu(t), second, bias2, padding=1)
        return torch.autograd.grad(out, h, g, create_graph=again)[0]


def _frozen(part: nn.Module) -> bool:
    """Whether a part of a block is what it was made as, with parameters of its own that no one
    differentiates and calls that no one watches."""
    watched = part._forward_hooks or part._forward_pre_hooks or part._backward_hooks
    return (
        (type(part) is nn.Conv2d or part._parameters.keys() == {"gain"})
        and not watched
        and all(
            isinstance(p, nn.Parameter) and not p.requires_grad and not p.is_inference()
            for p in part._parameters.values()
        )
    )


@lru_cache(maxsize=8)
def _works(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor have the convolution under the names by which they are
    called here, which torch does not promise to keep."""
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        x = torch.linspace(-1, 1, 4 * 25).view(1, 4, 5, 5)
        w = torch.linspace(-1, 2, 16 * 9).view(4, 4, 3, 3)
        x, w = x.to(dtype).contiguous(memory_format=torch.channels_last), w.to(dtype)
        with torch.no_grad():
            found, wanted = _conv(x, _ordered(w)), F.conv2d(x, w, padding=1)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    return bool((found - wanted).abs().max() <= 0.05 * wanted.abs().max())
