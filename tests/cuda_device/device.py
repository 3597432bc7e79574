"""Makes torch see CUDA devices, of which one is used: import this before torch, and before the project."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any

_GUARD = ctypes.CDLL(os.environ["CUDA_GUARD"])

import stand_in  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from stand_in import DeviceTensor, Kernel, counts, values_of  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn.attention import varlen  # noqa: E402

CAPABILITY = tuple(map(int, os.environ.get("CUDA_CAPABILITY", "9.0").split(".")))
"""Of a Hopper, unless another is asked for: fast in bfloat16, and with flash attention."""
NUM_DEVICES = 2
_sdpa = F.scaled_dot_product_attention


def _install() -> torch.library.Library:
    """Make torch know the device; the returned library must be kept."""
    _GUARD.register_guard()
    _pretend()
    F.scaled_dot_product_attention, varlen.varlen_attn = attend, attend_to_texts
    return stand_in.install("cuda", "CUDA")


def _pretend() -> None:
    """Let ``torch.cuda`` answer as with a device."""
    answers: dict[str, Any] = {
        "_lazy_init": None, "is_available": True, "device_count": NUM_DEVICES, "current_device": 0,
        "get_device_capability": CAPABILITY, "get_device_name": "a device that is not there",
        "is_bf16_supported": True, "synchronize": None, "empty_cache": None, "set_device": None,
        "mem_get_info": (8 * 10**9, 80 * 10**9), "memory_reserved": 0, "memory_allocated": 0,
        "max_memory_allocated": 0, "reset_peak_memory_stats": None, "manual_seed": None, "manual_seed_all": None,
        "is_current_stream_capturing": False}
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *given, answer=answer, **settings: answer)
    torch.cuda.device = lambda device: contextlib.nullcontext()
    torch.cuda.Event = stand_in.Event

    # Random numbers are drawn on the CPU.
    for module in (torch.cuda, torch.cuda.random):
        module.get_rng_state = lambda device=None: torch.get_rng_state()
        module.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
        module.get_rng_state_all = lambda: [torch.get_rng_state()]
        module.set_rng_state_all = lambda states: None

    def pinned(self: Tensor, device: Any = None) -> Tensor:
        copy = self.clone()
        copy.is_in_pinned_memory = True
        return copy

    torch.Tensor.pin_memory = pinned


class _Fused(torch.autograd.Function):
    """One kernel forward and one backward: ``compute`` on the values of ``tensors``."""

    @staticmethod
    def forward(ctx: Any, name: str, compute: Any, *tensors: Tensor) -> Tensor:
        with Kernel(name), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            inputs = [values_of(tensor).detach().requires_grad_(tensor.is_floating_point()) for tensor in tensors]
            result = compute(*inputs)
        ctx.name, ctx.inputs, ctx.result = name, inputs, result
        return DeviceTensor(result.detach())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        with Kernel(f"{ctx.name}_backward"):
            found = torch.autograd.grad(ctx.result, ctx.inputs, values_of(gradient).to(ctx.result.dtype))
        return None, None, *map(DeviceTensor, found)


def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
           is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> Tensor:
    """Attend as torch's function does, in one launch; on CUDA autocast rounds what it is given."""
    settings = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    if not isinstance(query, DeviceTensor):
        return _sdpa(query, key, value, attn_mask=attn_mask, **settings)

    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    given = [tensor for tensor in (query, key, value, attn_mask) if tensor is not None]
    if not all(isinstance(tensor, DeviceTensor) for tensor in given):
        raise RuntimeError("attention mixes devices")
    if not query.dtype == key.dtype == value.dtype or (
            attn_mask is not None and attn_mask.dtype not in (torch.bool, query.dtype)):
        raise RuntimeError(f"attention mixes number formats: {[tensor.dtype for tensor in given]}")

    counts().attentions["sdpa", str(query.dtype)[6:]] += 1
    mask = values_of(attn_mask)
    return _Fused.apply("sdpa", lambda *inputs: _sdpa(*inputs, attn_mask=mask, **settings), query, key, value)


def _one_text_after_the_other(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, key_starts: Tensor,
                              scale: float | None, window: int) -> Tensor:
    """Return flash attention's result (T, H, W) for texts of all lengths; causality is aligned to the last key."""
    states = []
    for text in range(len(starts) - 1):
        own, seen = slice(*starts[text:text + 2].tolist()), slice(*key_starts[text:text + 2].tolist())
        num_queries, num_keys = own.stop - own.start, seen.stop - seen.start
        distance = torch.arange(num_keys - num_queries, num_keys)[:, None] - torch.arange(num_keys)
        is_seen = (distance >= 0) & (distance <= (window if window >= 0 else num_keys))
        heads = [each.transpose(0, 1) for each in (query[own], key[seen], value[seen])]            # (H, T, W)
        states.append(_sdpa(*heads, attn_mask=is_seen, scale=scale, enable_gqa=True).transpose(0, 1))
    return torch.cat(states)


def attend_to_texts(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int,
                    max_k: int, *, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
                    enable_gqa: bool = False) -> Tensor:
    """Attend as torch's ``varlen_attn`` does, in one launch; its kernel takes half precision alone."""
    given = (query, key, value)
    if not all(isinstance(tensor, DeviceTensor) for tensor in (*given, cu_seq_q, cu_seq_k)):
        raise RuntimeError("attention mixes devices")
    if query.dtype not in (torch.bfloat16, torch.float16) or not query.dtype == key.dtype == value.dtype:
        raise RuntimeError(f"no kernel for these number formats: {[tensor.dtype for tensor in given]}")
    assert enable_gqa == (query.shape[1] > key.shape[1]) and window_size[1] == 0

    counts().attentions["varlen", str(query.dtype)[6:]] += 1
    starts, key_starts = values_of(cu_seq_q), values_of(cu_seq_k)
    return _Fused.apply("varlen", lambda *inputs: _one_text_after_the_other(*inputs, starts, key_starts, scale,
                                                                            window_size[0]), *given)


LIBRARY = _install()
