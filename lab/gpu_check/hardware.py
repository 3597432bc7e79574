"""The machine itself: what it is, what it reaches, what a new shape of attention costs, and whether varlen is right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.gpu_check.report import Check, gibibytes
from scaledown.data.storage.run_information import library_versions

HEADS, KEY_HEADS, WIDTH = 32, 8, 128
"""Attention of Mistral-7B."""


def machine(check: Check) -> None:
    """Name the machine, and measure matrix products and copies."""
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    check.add("machine", "versions", versions)
    if check.device.type == "cuda":
        _, total = torch.cuda.mem_get_info(check.device)
        check.add("machine", "GPU", f"{torch.cuda.get_device_name(check.device)}, {gibibytes(total)}, "
                  f"capability {torch.cuda.get_device_capability(check.device)}, CUDA {torch.version.cuda}, "
                  f"cuDNN {torch.backends.cudnn.version()}")

    size = 256 if check.is_rehearsal else 8192
    for dtype in (torch.bfloat16, torch.float32):
        left, right = (torch.randn(size, size, device=check.device, dtype=dtype) for _ in range(2))
        took = check.milliseconds(lambda a=left, b=right: a @ b)
        check.add("machine", f"product of {size} x {size} in {_name(dtype)}",
                  f"{2 * size**3 / took / 1e9:.2f} TFLOP/s")

    large = torch.empty(2**20 if check.is_rehearsal else 2**30, device=check.device)
    took = check.milliseconds(large.clone)
    # Read once and written once.
    check.add("machine", "copy", f"{2 * large.nbytes / took / 1e9:.3f} TB/s")


def attention_shapes(check: Check) -> None:
    """Time attention of shapes that are known against new ones, with cuDNN's kernels and without.

    cuDNN builds a plan for each new shape, and an answer has a new one for each of its tokens.
    """
    new_lengths = iter(range(200, 100_000, 7))
    for is_on in (True, False):
        with cudnn_attention(is_on):
            known = check.milliseconds(lambda: _attend(check, 100))
            new = check.milliseconds(lambda: _attend(check, next(new_lengths)), warm_up=0)
        check.add("attention", f"cuDNN's kernels {'allowed' if is_on else 'off'}",
                  f"a known length {known:.2f} ms, a new one {new:.2f} ms")


def varlen(check: Check) -> None:
    """Compare ``varlen_attn`` on packed texts with a mask, outputs and gradients, and time both."""
    from scaledown.models.engine.varlen import IS_NEW_ENOUGH

    if check.device.type != "cuda" or not IS_NEW_ENOUGH:
        check.add("varlen", "left out", "needs a GPU, and a varlen_attn that takes a window (torch 2.13)")
        return
    from torch.nn.attention.varlen import varlen_attn

    # 32 queries with 10 documents each: a document's keys are its query's and its own.
    generator = torch.Generator().manual_seed(0)
    prefixes = torch.randint(20, 129, (32,), generator=generator)
    suffixes = torch.randint(60, 137, (320,), generator=generator)
    keys_of = prefixes.repeat_interleave(10) + suffixes

    def drawn(number: int, heads: int) -> Tensor:
        numbers = torch.randn(number, heads, WIDTH, device=check.device, dtype=torch.bfloat16)
        return numbers.requires_grad_()

    query = drawn(int(suffixes.sum()), HEADS)
    key, value = (drawn(int(keys_of.sum()), KEY_HEADS) for _ in range(2))

    def attend() -> Tensor:
        return varlen_attn(query, key, value, _starts(suffixes, check), _starts(keys_of, check), int(suffixes.max()),
                           int(keys_of.max()), window_size=(-1, 0), enable_gqa=True)

    found = _with_gradients(attend(), query, key, value)
    texts = zip(query.split(suffixes.tolist()), key.split(keys_of.tolist()), value.split(keys_of.tolist()), strict=True)
    expected = _with_gradients(torch.cat([_masked(*text) for text in texts]), query, key, value)
    errors = [((own.float() - other.float()).norm() / other.float().norm()).item()
              for own, other in zip(found, expected, strict=True)]
    check.add("varlen", "relative error of output and gradients (query, key, value)",
              ", ".join(f"{error:.1e}" for error in errors) + " (expected: a few 1e-3)")

    with torch.no_grad():
        took = check.milliseconds(attend)
        padded_query = query.new_zeros(320, HEADS, 136, WIDTH)
        padded_key = key.new_zeros(320, KEY_HEADS, 264, WIDTH)
        mask = query.new_zeros(320, 1, 136, 264)
        padded = check.milliseconds(lambda: F.scaled_dot_product_attention(
            padded_query, padded_key, padded_key, attn_mask=mask, enable_gqa=True))
    check.add("varlen", "a layer's attention, 32 questions of 10 documents",
              f"varlen {took:.2f} ms, padded with a mask {padded:.2f} ms")


@contextlib.contextmanager
def cudnn_attention(is_on: bool) -> Iterator[None]:
    """Allow or forbid cuDNN's attention within this context; elsewhere than on CUDA nothing changes."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(is_on)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def _attend(check: Check, length: int) -> Tensor:
    query = torch.randn(1, HEADS, 4, WIDTH, device=check.device, dtype=check.dtype)
    key = torch.randn(1, KEY_HEADS, length, WIDTH, device=check.device, dtype=check.dtype)
    mask = torch.zeros(1, 1, 4, length, device=check.device, dtype=check.dtype)
    return F.scaled_dot_product_attention(query, key, key, attn_mask=mask, enable_gqa=True)


def _masked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the attention of one text: (T, H, W) queries whose last one sees all (S, G, W) keys."""
    mask = torch.ones(len(query), len(key), dtype=torch.bool, device=query.device).tril(len(key) - len(query))
    given = [each.transpose(0, 1)[None] for each in (query, key, value)]                # (1, H or G, T or S, W)
    return F.scaled_dot_product_attention(*given, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)


def _with_gradients(output: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [output.detach(), *torch.autograd.grad(output.float().square().sum(), inputs)]


def _starts(lengths: Tensor, check: Check) -> Tensor:
    return F.pad(lengths.cumsum(0), (1, 0)).to(check.device, torch.int32)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
