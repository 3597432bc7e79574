"""A tiny model of every family of decoders that is tried, made from its config: name, and what it needs to be small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch
import transformers
from transformers import PreTrainedModel

WIDTH = 32
SMALL = {"vocab_size": 400, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.2,
         "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 6}
HEADS, WINDOW = {"head_dim": 8}, {"sliding_window": 8}
EXPERTS = {"num_experts_per_tok": 2}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
PACKED: dict[str, dict[str, Any]] = {
    "Llama": {}, "Llama, llama3": {"rope_parameters": LLAMA3}, "Mistral": WINDOW, "Qwen2": {}, "Qwen3": HEADS,
    "Qwen3Moe": HEADS | EXPERTS | {"num_experts": 4, "moe_intermediate_size": 32}, "Gemma2": HEADS | WINDOW,
    "Gemma3": HEADS | WINDOW, "Phi3": {}, "Olmo2": {}, "Olmo3": WINDOW, "SmolLM3": {}, "Granite": {}, "Cohere2": WINDOW,
    "Starcoder2": WINDOW, "Glm4": HEADS, "Ministral": HEADS | WINDOW,
    # All of its experts: rounding would choose others, and no two ways to compute would agree in bfloat16.
    "GptOss": HEADS | WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 4}, "Exaone4": WINDOW,
    "Mixtral": EXPERTS | {"num_local_experts": 4},
}
"""Decoders of attention alone: they read packed texts, as generator and as compressor."""

STATES = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MIXED = {"layer_types": ["conv", "full_attention"] * 2}
PADDED: dict[str, dict[str, Any]] = {
    "Qwen3Next": HEADS | EXPERTS | STATES | {"num_experts": 4, "moe_intermediate_size": 32,
                                             "shared_expert_intermediate_size": 32},
    "Lfm2": MIXED, "Mamba": {"state_size": 8}, "Mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8,
                                                        "n_groups": 1, "chunk_size": 16},
    "Jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
              "num_experts": 2, "num_experts_per_tok": 1, "mamba_d_state": 8, "use_mamba_kernels": False},
    "GPT2": {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}, "Bloom": {"n_head": 4, "n_layer": 4},
    "Falcon": {}, "Nemotron": {},
}
"""Decoders that keep a state or attend in ways of their own: generators, beside compressors of other kinds."""


def generator(family: str, **settings: Any) -> PreTrainedModel:
    """A causal LM of random weights, spread enough for texts to differ."""
    name = family.split(",")[0]
    config_name = "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config"
    config = getattr(transformers, config_name)(**SMALL | settings)
    torch.manual_seed(0)
    # GPT-2's causal LM has its name from before the others'.
    made = getattr(transformers, f"{name}ForCausalLM", None) or getattr(transformers, f"{name}LMHeadModel")
    return made(config).eval()


def generator_folder(folder: Path, family: str, **settings: Any) -> str:
    """A tiny model with a tokenizer on disk, to be named as ``generator_model``."""
    generator(family, **(PACKED | PADDED).get(family, {}) | settings).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)
