"""Start a generator from another one's layers, under a tokenizer of its own.

To look things up is what a generator from nothing learns last, and from real questions, of which few are alike, hardest.
A generator that can do it hands it on: its layers compare and copy whatever the embeddings are.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from scaledown.training.embedded.course import Course

SIZES = {"hidden_size": "hidden_size", "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads",
         "intermediate_size": "intermediate_size"}
"""Flags, and what a model's config calls them."""
SHARE_OF_PIECES = 0.5
"""How much of a new token's embedding is the mean of its pieces'; the rest is noise, so that no two are alike."""


def check_sizes(model: LlamaForCausalLM, source: PreTrainedModel) -> None:
    """Make sure that the layers of ``source`` fit into ``model``.

    Raises:
        ValueError: where they do not, naming every flag that differs.
    """
    differing = [f"--{flag} is {getattr(model.config, name)}, {getattr(source.config, name, None)} there"
                 for flag, name in SIZES.items() if getattr(model.config, name) != getattr(source.config, name, None)]
    if source.config.model_type != model.config.model_type:
        differing.append(f"its family is {source.config.model_type!r}, a {model.config.model_type!r} is made here")
    if differing:
        raise ValueError(f"--init_generator {source.config.name_or_path}: {'; '.join(differing)}")


@torch.no_grad()
def start_from(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, source: PreTrainedModel,
               source_tokenizer: PreTrainedTokenizerBase) -> None:
    """Give ``model`` the layers of ``source``, and embeddings (V, D) for the tokens of ``tokenizer``.

    A token that both know keeps its embedding; another one gets half of its pieces' mean, and noise.

    Raises:
        ValueError: as :func:`check_sizes`.
    """
    check_sizes(model, source)
    weights = {name: weight for name, weight in source.state_dict().items() if name.startswith(("model.layers", "model.norm"))}
    model.load_state_dict(weights, strict=False)
    known, rows = source_tokenizer.get_vocab(), source.get_input_embeddings().weight.float()
    table = model.get_input_embeddings().weight
    noise = torch.randn(table.shape, generator=torch.Generator().manual_seed(0)) * rows.std()
    for number, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        if token in known:
            table[number] = rows[known[token]]
            continue
        pieces = source_tokenizer(tokenizer.convert_tokens_to_string([token]), add_special_tokens=False).input_ids
        table[number] = _mixed(rows[pieces].mean(0) if pieces else rows.mean(0), noise[number])


def _mixed(mean: Tensor, noise: Tensor) -> Tensor:
    """A share of ``mean`` and so much of ``noise`` that one spread stays what it was."""
    return SHARE_OF_PIECES * mean + (1 - SHARE_OF_PIECES ** 2) ** 0.5 * noise


def with_all_layers(course: Course) -> Course:
    """The course with all layers at work from its first level on: they have learnt together already."""
    return dataclasses.replace(course, levels=tuple(dataclasses.replace(level, is_deep=True)
                                                    for level in course.levels))
