"""The compressor that a config describes: its kind, its depth, and the weights that it starts from."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scaledown.config import COMPRESSORS, EMBEDDED, GENERATOR, NOTHING, ScaleDownConfig
from scaledown.hub import resolve_revision
from scaledown.models.compressors.base import Compressor, Embed
from scaledown.models.compressors.n_layers import resolve_num_layers
from scaledown.models.compressors.no_compressor import NoCompressor
from scaledown.models.engine.decoder import head_is_table, token_embeddings
from scaledown.models.loading import pretrained
from scaledown.settings import numbers_in


def build_compressor(config: ScaleDownConfig, base: PreTrainedModel,
                     checkpoint: Path | None) -> tuple[Compressor | NoCompressor, PreTrainedTokenizerBase | None]:
    """Return the compressor that a resolved ``config`` describes, and its tokenizer if it is not the generator's.

    Args:
        config: the model's settings, as :func:`resolve` returns them.
        base: the generator without LoRA; what the compressor takes from it is copied.
        checkpoint: a folder whose weights will be loaded into the compressor later; None for a new one.
    """
    body = base.base_model
    # A copy of the generator's layers reads the generator's tokens; other models have a tokenizer of their own.
    model, tokenizer = body, None
    if config.reads_with not in (GENERATOR, NOTHING):
        model, tokenizer = pretrained.load_compressor_model(config, body, checkpoint)
    return compressor_of(config, model, body), tokenizer


def compressor_of(config: ScaleDownConfig, model: PreTrainedModel, body: PreTrainedModel) -> Compressor | NoCompressor:
    """Return the compressor that a resolved ``config`` describes.

    Args:
        config: the model's settings.
        model: what it reads with: an encoder, a causal LM without its head, or ``body`` itself.
        body: the generator without its head.

    Raises:
        ValueError: if the compressor cannot read with ``model``, or soft tokens do not fit the generator.
    """
    # Imported by name, so that each compressor is a file of its own that nothing else has to know.
    module, class_name = COMPRESSORS[config.compressor_type].class_path.split(".")
    compressor_class = getattr(importlib.import_module(f"scaledown.models.compressors.{module}"), class_name)
    compressor = compressor_class(config, model, token_embeddings(body))

    # Its memory mixes the embeddings of the table by the output head's probabilities: the two must be one matrix.
    if config.soft_tokens:
        if not head_is_table(body):
            raise ValueError("--soft_tokens needs a generator whose output head is its token embeddings, without a "
                             f"scale or a bound of its own; this {body.config.model_type} model has another one")
        compressor.mix_tokens(body.get_input_embeddings().weight)
    return compressor


@torch.no_grad()
def start_memory_as_reply(config: ScaleDownConfig, compressor: Compressor, reply: list[int], embed: Embed) -> None:
    """Initialise the memory tokens as the tokens after which the generator answers, the last of them repeated.

    There a copy of its layers does from the start what they do before an answer: look the question up in the document.
    With the document first, the query already leads to the last of these tokens
    (:meth:`Processor.compressor_texts`), so all memory tokens are that one.

    Args:
        reply: ids of the tokens between a question and its answer.
        embed: the generator's token embeddings, which read in the compressor, too.
    """
    memory_tokens = compressor.memory_rows                                # (L, width)
    lead = [] if config.input_order == "document_first" else reply
    ids = (lead + reply[-1:] * len(memory_tokens))[:len(memory_tokens)]
    memory_tokens.copy_(embed(torch.tensor(ids, device=memory_tokens.device)))

    # An MLP after the layers must not change their states initially.
    compressor.start_as_identity()


def resolve(config: ScaleDownConfig, num_generator_layers: int, is_new: bool = True) -> ScaleDownConfig:
    """Return ``config`` with no choice left open: layers, the memory's start, the compressor's model, Hub commits.

    Args:
        config: as a user or a checkpoint gives it.
        num_generator_layers: the number of layers that can be copied.
        is_new: whether the compressor is made from its model's files. A checkpoint holds all of its weights, so then
            those files need not be found.

    Raises:
        ValueError: if more layers are asked for than the generator has, or a name cannot be reached.
    """
    revision = resolve_revision(config.generator_model, config.generator_revision)
    config = dataclasses.replace(config, generator_revision=revision)
    if config.reads_text:
        return config

    # The reply's tokens suit a compressor that reads with the demo generator's layers.
    default_init = "reply" if config.generator_model == EMBEDDED and config.reads_as_generator else "tokens"
    config = dataclasses.replace(config, memory_init=config.memory_init or default_init)
    if config.layers and numbers_in(config.layers)[-1] >= num_generator_layers:
        raise ValueError(f"--layers {config.layers}: the generator has only {num_generator_layers} layers, the last is "
                         f"number {num_generator_layers - 1}")
    if config.reads_with == GENERATOR:
        if config.layers is not None:
            return config
        return dataclasses.replace(config, num_layers=resolve_num_layers(config.num_layers, num_generator_layers))

    name = pretrained.compressor_model_name(config)
    revision = config.compressor_revision
    if is_new and name != EMBEDDED:
        revision = resolve_revision(name, revision)
    return dataclasses.replace(config, compressor_model=name, compressor_revision=revision)
