"""The arithmetic between a layer's large matrix products, with few passes over memory and few tensors kept.

Each function equals the plain formula; what is saved is memory traffic, and in training what is kept for the
gradient: the two inputs of a gate instead of five tensors, a norm's input instead of three.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from transformers.activations import SiLUActivation

SILU = (nn.SiLU, SiLUActivation)
SKINNY_ROWS = 32
"""Up to so many rows a CPU's matrix product is faster the other way round (measured: 1.1 to 2.7 times)."""


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``rows`` (..., D) times ``weight`` (E, D) transposed: (..., E); fast also for the few rows of decoding.

    On a CPU the product of a few rows with a large matrix is limited by how the matrix is read. BLAS reads it at twice
    the speed when the weight comes first, and never as badly as for one row alone.
    """
    if not _are_few(rows) or rows.device.type != "cpu" or rows.dtype != weight.dtype:
        return F.linear(rows, weight, bias)
    flat = rows.reshape(-1, rows.shape[-1])
    doubled = torch.cat([flat, flat]) if len(flat) == 1 else flat
    product = (weight @ doubled.T).T[:len(flat)].contiguous()
    return (product if bias is None else product.add_(bias)).view(*rows.shape[:-1], -1)


def rms_norm(norm: nn.Module, states: Tensor) -> Tensor:
    """What an RMS norm of transformers gives for ``states`` (..., D), computed in float32."""
    if states.dtype == norm.weight.dtype and (states.device.type != "cpu" or _are_few(states)):
        return F.rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)
    return _RMSNorm.apply(states, norm.weight, norm.variance_epsilon)


def gated(act: nn.Module, gate: Tensor, up: Tensor) -> Tensor:
    """``act(gate) * up`` (..., F), for SiLU in one step."""
    if not isinstance(act, SILU):
        return act(gate) * up
    return _SwiGLU.apply(gate, up) if torch.is_grad_enabled() else F.silu(gate).mul_(up)


def rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of ``states`` (N, heads, W) by cosines and sines (N, W), as transformers has them."""
    cos, sin = cos[:, None], sin[:, None]
    return _Rotation.apply(states, cos, sin) if torch.is_grad_enabled() else _turn(states, cos, sin)


def add_low_rank(result: Tensor, rows: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """``result += scale * rows @ down.T @ up.T``, in place: what LoRA adds to a linear map (paper, section 3.3).

    Args:
        result: (..., E) that nothing else needs as it was.
        rows: (..., D).
        down: (r, D).
        up: (E, r).
        scale: LoRA's alpha / r.
    """
    rows, down, up = (each.to(result.dtype) for each in (rows, down, up))
    if torch.is_grad_enabled():
        return _AddLowRank.apply(result, rows, down, up, scale)
    _add_product(result, linear(rows.flatten(0, -2), down), up, scale)
    return result


def _are_few(rows: Tensor) -> bool:
    """Whether these are the rows of a decoding step: few, and without gradients."""
    return rows.numel() <= SKINNY_ROWS * rows.shape[-1] and not torch.is_grad_enabled()


class _RMSNorm(Function):
    """For a CPU, where PyTorch's own takes twice the time and keeps three tensors."""


    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = states.float()
        squares = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        inverse = squares.div_(states.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(states, weight, inverse)
        normed = (wide * inverse).to(states.dtype)
        return normed.mul_(weight) if normed.dtype == weight.dtype else normed * weight

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor | None, None]:
        states, weight, inverse = ctx.saved_tensors
        normed = states.float() * inverse
        weighted = outer.float() * weight
        share = torch.linalg.vecdot(weighted, normed).unsqueeze(-1).div_(-states.shape[-1])
        of_states = weighted.addcmul_(normed, share).mul_(inverse).to(states.dtype)
        if not ctx.needs_input_grad[1]:
            return of_states, None, None
        return of_states, normed.mul_(outer).flatten(0, -2).sum(0).to(weight.dtype), None


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(outer * up, gate), F.silu(gate).mul_(outer)


class _Rotation(Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(states, cos, sin)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        # The way back turns the other way; each half's sine is the one that its gradient came by.
        return _turn(outer, cos, -sin.roll(sin.shape[-1] // 2, -1)), None, None


def _turn(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each number of the first half with its partner of the second, turned."""
    half = states.shape[-1] // 2
    found = states * cos
    found[..., :half].addcmul_(states[..., half:], sin[..., :half], value=-1)
    found[..., half:].addcmul_(states[..., :half], sin[..., half:])
    return found.to(states.dtype)


def _add_product(result: Tensor, inner: Tensor, up: Tensor, scale: float) -> None:
    result.flatten(0, -2).addmm_(inner, up.T, alpha=scale)


class _AddLowRank(Function):
    @staticmethod
    def forward(ctx: Any, result: Tensor, rows: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        inner = rows.flatten(0, -2) @ down.T
        _add_product(result, inner, up, scale)
        ctx.mark_dirty(result)
        ctx.save_for_backward(rows, inner, down, up)
        ctx.scale = scale
        return result

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        rows, inner, down, up = ctx.saved_tensors
        flat = outer.flatten(0, -2)
        of_inner = (flat @ up).mul_(ctx.scale)
        return (outer, (of_inner @ down).view_as(rows), of_inner.T @ rows.flatten(0, -2),
                (flat.T @ inner).mul_(ctx.scale), None)
