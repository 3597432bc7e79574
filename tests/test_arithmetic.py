"""Lean arithmetic: transformers' own values, and gradients that finite differences agree with."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from scaledown.models.arithmetic import SKINNY_ROWS, add_low_rank, gated, linear, rms_norm, rotated


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, 2, SKINNY_ROWS, SKINNY_ROWS + 1])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_linear_of_few_rows_is_linear(rows: int, bias: bool) -> None:
    layer = nn.Linear(24, 17, bias=bias)
    states = draw(rows, 24, dtype=torch.float32)
    torch.testing.assert_close(linear(states, layer.weight, layer.bias), layer(states))
    spread = states.view(1, rows, 24)
    torch.testing.assert_close(linear(spread, layer.weight, layer.bias), layer(spread))


@pytest.mark.parametrize("shape", [(2, 16), (40, 16), (40, 3, 16)])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_rms_norm_is_transformers(shape: tuple[int, ...], with_gradients: bool) -> None:
    norm = LlamaRMSNorm(16, eps=1e-5)
    norm.weight.data = draw(16, seed=1, dtype=torch.float32)
    states = draw(*shape, dtype=torch.float32)
    with torch.set_grad_enabled(with_gradients):
        torch.testing.assert_close(rms_norm(norm, states), norm(states))


def test_rms_norm_has_transformers_gradients() -> None:
    outer, gradients = draw(5, 3, 16, seed=2, dtype=torch.float32), []
    for function in (lambda norm, states: norm(states), rms_norm):
        norm = LlamaRMSNorm(16, eps=1e-5)
        norm.weight.data = draw(16, seed=1, dtype=torch.float32)
        states = draw(5, 3, 16, dtype=torch.float32).requires_grad_()
        (function(norm, states) * outer).sum().backward()
        gradients.append((states.grad, norm.weight.grad))
    for wanted, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_gate_is_the_plain_formula(name: str) -> None:
    gate, up = draw(6, 5).requires_grad_(), draw(6, 5, seed=1).requires_grad_()
    act = ACT2FN[name]
    torch.testing.assert_close(gated(act, gate, up), act(gate) * up)
    assert gradcheck(lambda *both: gated(act, *both), (gate, up))


def test_rotation_is_transformers_and_turns_back() -> None:
    states, angles = draw(7, 3, 8).requires_grad_(), draw(7, 8, seed=1)
    cos, sin = angles.cos(), angles.sin()
    heads = states.transpose(0, 1)[None]
    wanted = apply_rotary_pos_emb(heads, heads, cos[None], sin[None])[0][0].transpose(0, 1)
    torch.testing.assert_close(rotated(states, cos, sin), wanted)
    assert gradcheck(lambda each: rotated(each, cos, sin), states)


def test_a_low_rank_change_is_added_with_its_gradients() -> None:
    weight, rows, down, up = (draw(*shape, seed=seed).requires_grad_(seed > 0)
                              for seed, shape in enumerate([(3, 4), (5, 4), (2, 4), (3, 2)]))
    wanted = rows @ weight.T + 0.5 * rows @ down.T @ up.T
    torch.testing.assert_close(add_low_rank(rows @ weight.T, rows, down, up, 0.5), wanted)
    assert gradcheck(lambda *each: add_low_rank(each[0] @ weight.T, *each, 0.5), (rows, down, up))


def test_mixed_precision_keeps_the_types_of_the_plain_formulas() -> None:
    norm = LlamaRMSNorm(8)
    half, angles = draw(6, 2, 8).bfloat16().requires_grad_(), draw(6, 8, dtype=torch.float32)
    turned = rotated(half, angles.cos(), angles.sin())
    assert turned.dtype == torch.bfloat16
    assert rms_norm(norm, half).dtype == norm(half).dtype == torch.float32
    assert rms_norm(norm.bfloat16(), half).dtype == torch.bfloat16
    changed = add_low_rank(turned.flatten(1).clone(), draw(6, 3, dtype=torch.float32), draw(2, 3).float(),
                           draw(16, 2).float(), 1.0)
    changed.float().sum().backward()
    assert changed.dtype == half.grad.dtype == torch.bfloat16


@torch.no_grad()
def test_without_gradients_the_values_are_the_same() -> None:
    gate, up = draw(6, 5), draw(6, 5, seed=1)
    torch.testing.assert_close(gated(nn.SiLU(), gate, up), nn.functional.silu(gate) * up)
    states, angles = draw(7, 3, 8), draw(7, 8, seed=1)
    turned = rotated(states, angles.cos(), angles.sin())
    with torch.enable_grad():
        torch.testing.assert_close(turned, rotated(states, angles.cos(), angles.sin()))
    rows, down, up = draw(5, 4), draw(2, 4, seed=1), draw(3, 2, seed=2)
    torch.testing.assert_close(add_low_rank(torch.ones_like(rows @ down.T @ up.T), rows, down, up, 0.5),
                               1 + 0.5 * rows @ down.T @ up.T)
