"""A config becomes a compressor: which kind, how deep, from which weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.hub import resolve_revision
from scaledown.models import loading
from scaledown.models.compressors.base import Compressor
from scaledown.models.compressors.encoder import EncoderCompressor
from scaledown.models.compressors.llm import LLMCompressor
from scaledown.models.compressors.n_layers import NLayersCompressor, resolve_num_layers
from scaledown.models.decoder import token_embeddings


def build_compressor(config: ScaleDownConfig, base: PreTrainedModel,
                     checkpoint: Path | None) -> tuple[Compressor, PreTrainedTokenizerBase | None]:
    """Return the compressor that a resolved ``config`` asks for, and its tokenizer if it is not the generator's.

    Args:
        base: the generator without LoRA; what the compressor takes from it is copied.
        checkpoint: a folder whose weights will be loaded over these, or None for a new compressor.
    """
    body = base.base_model
    if config.compressor_type == "n_layers":
        return NLayersCompressor(config, body, config.num_layers), None
    table = token_embeddings(body)
    model, tokenizer = loading.load_compressor_model(config, body, checkpoint)
    kind = LLMCompressor if config.compressor_type == "llm" else EncoderCompressor
    return kind(config, model, table), tokenizer


def resolve(config: ScaleDownConfig, num_generator_layers: int, is_new: bool = True) -> ScaleDownConfig:
    """Return ``config`` with nothing left open: layers, the memory's start, the compressor's model, commits on the Hub.

    Args:
        config: as it was asked for, or as a checkpoint has it.
        num_generator_layers: layers that there are to copy.
        is_new: the compressor is made from its model. That of a checkpoint has all its weights there: its model need
            not be found any more.

    Raises:
        ValueError: for more layers than the generator has, or names that cannot be reached.
    """
    revision = resolve_revision(config.generator_model, config.generator_revision)
    suits = "reply" if config.generator_model == EMBEDDED and config.reads_as_generator else "tokens"
    config = dataclasses.replace(config, generator_revision=revision, memory_init=config.memory_init or suits)
    if config.compressor_type == "n_layers":
        return dataclasses.replace(config, num_layers=resolve_num_layers(config.num_layers, num_generator_layers))
    name = loading.compressor_model_name(config)
    revision = config.compressor_revision
    if is_new and name != EMBEDDED:
        revision = resolve_revision(name, revision)
    return dataclasses.replace(config, compressor_model=name, compressor_revision=revision)
