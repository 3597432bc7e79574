"""Where a model's parts come from: by name for a new model, or from a checkpoint's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from scaledown.config import DEFAULT_ENCODER, EMBEDDED, ScaleDownConfig
from scaledown.hub import load_config, load_tokenizer, locate
from scaledown.models.encoder import embedded_encoder_config

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
TOKENIZER_FOLDER = "tokenizer"
ENCODER_FOLDER = "encoder"


def load_base(config: ScaleDownConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The generator's base weights, by name.

    Raises:
        ValueError: for a family whose decoder layers are not Llama's, or files that cannot be read.
    """
    name, revision, trust = config.generator_model, config.generator_revision, config.trust_remote_code
    hf_config = load_config(name, revision, trust)
    if hf_config.model_type not in FAMILIES:
        raise ValueError(f"--generator_model {name}: its family, {hf_config.model_type!r}, is not "
                         f"supported; supported are {', '.join(FAMILIES)}")
    # sdpa takes masks with any heads on any device, and it alone was tested with them.
    return _read(name, AutoModelForCausalLM.from_pretrained, locate(name, revision), revision=revision,
                 trust_remote_code=trust, dtype=dtype, attn_implementation="sdpa")


def load_generator_tokenizer(config: ScaleDownConfig, checkpoint: Path | None) -> PreTrainedTokenizerBase:
    """The generator's tokenizer: the checkpoint's copy, so that prompts stay what they were in training."""
    if checkpoint is not None:
        return _read(str(checkpoint), AutoTokenizer.from_pretrained, checkpoint / TOKENIZER_FOLDER)
    return load_tokenizer(config.generator_model, config.generator_revision, config.trust_remote_code)


def encoder_name(config: ScaleDownConfig) -> str:
    """The encoder that ``config`` asks for: beside the embedded generator a small one without a hub, by default."""
    return config.compressor_model or (EMBEDDED if config.generator_model == EMBEDDED else DEFAULT_ENCODER)


def load_encoder(config: ScaleDownConfig, generator: PretrainedConfig, table: Tensor,
                 checkpoint: Path | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """The compressor's encoder, and its tokenizer where it is not the generator's.

    Args:
        generator: the generator's config; the embedded encoder takes its sizes.
        table: the generator's token embeddings (V, D); the embedded encoder starts from a copy.
        checkpoint: a folder whose weights will be loaded over these: then no weights are looked for here.
    """
    name = encoder_name(config)
    trust = {"trust_remote_code": config.trust_remote_code}
    if checkpoint is not None:
        folder = checkpoint / ENCODER_FOLDER
        encoder = AutoModel.from_config(_read(str(folder), AutoConfig.from_pretrained, folder, **trust), **trust)
        return encoder, None if name == EMBEDDED else _read(str(folder), AutoTokenizer.from_pretrained, folder, **trust)
    if name == EMBEDDED:
        encoder = AutoModel.from_config(embedded_encoder_config(generator))
        with torch.no_grad():
            encoder.get_input_embeddings().weight.copy_(table)
        return encoder, None
    encoder = _read(name, AutoModel.from_pretrained, locate(name, config.compressor_revision),
                    revision=config.compressor_revision, dtype=torch.float32, **trust)
    if encoder.config.is_encoder_decoder:
        raise ValueError(f"--compressor_model {name}: an encoder is needed, this is an encoder-decoder")
    return encoder, load_tokenizer(name, config.compressor_revision, config.trust_remote_code)


def _read(name: str, load: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    try:
        return load(*arguments, **settings)
    except (OSError, SafetensorError) as fault:
        raise ValueError(f"{name}: cannot be loaded ({fault})") from fault
