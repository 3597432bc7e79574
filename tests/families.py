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


def generator(family: str, **settings: Any) -> PreTrainedModel:
    """A causal LM of random weights, spread enough for texts to differ."""
    name = family.split(",")[0]
    config_name = "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config"
    config = getattr(transformers, config_name)(**SMALL | settings)
    torch.manual_seed(0)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def generator_folder(folder: Path, family: str) -> str:
    """One of the packed ones with a tokenizer on disk, to be named as ``generator_model``."""
    generator(family, **PACKED[family]).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)
