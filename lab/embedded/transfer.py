"""Start a generator from another one's layers, under a tokenizer of its own.

To look things up is what a generator from nothing learns slowest, and slower still from real questions, of which few
are alike. One that can do it hands it on: its layers compare and copy whatever the embeddings are.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from lab.embedded.building import PretrainConfig, layers_config
from lab.embedded.course import Course
from scaledown.config import ScaleDownConfig
from scaledown.hub import load_config, load_tokenizer
from scaledown.models.loading import load_base

SIZES = {"hidden_size": "hidden_size", "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads",
         "intermediate_size": "intermediate_size"}
"""Flags, and what a model's config calls them."""
ALIKE = ("num_key_value_heads", "rope_parameters", "rms_norm_eps", "hidden_act", "attention_bias", "mlp_bias")
"""What else the layers compute by; there are no flags for it."""
SHARE_OF_PIECES = 0.5
"""How much of a new token's embedding is the mean of its pieces'; the rest is noise, so that no two are alike."""


@dataclass(frozen=True)
class Source:
    """A generator to start from, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_source(name: str, config: PretrainConfig) -> Source:
    """The generator ``name``, whose layers one of the sizes of ``config`` can have.

    Raises:
        ValueError: where it cannot be had, or its layers compute otherwise; everything that differs is named.
    """
    found, made = load_config(name), layers_config(config)
    if found.model_type != made.model_type:
        raise ValueError(f"--init_generator {name}: its family is {found.model_type!r}, {made.model_type!r} here")
    differing = [f"--{flag} is {getattr(made, field)}, {getattr(found, field)} there"
                 for flag, field in SIZES.items() if getattr(made, field) != getattr(found, field)]
    differing += [f"its {field} is {getattr(found, field)}, {getattr(made, field)} here"
                  for field in ALIKE if getattr(made, field) != getattr(found, field)]
    if differing:
        raise ValueError(f"--init_generator {name}: {'; '.join(differing)}")
    return Source(load_base(ScaleDownConfig(generator_model=name), torch.float32), load_tokenizer(name))


@torch.no_grad()
def start_from(source: Source, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
    """Give ``model`` the layers of ``source``, and embeddings (V, D) for the tokens of ``tokenizer``.

    A token that both know keeps its embedding; another one gets half of its pieces' mean, and noise.
    """
    for part in ("layers", "norm"):
        getattr(model.model, part).load_state_dict(getattr(source.model.model, part).state_dict())
    known, rows = source.tokenizer.get_vocab(), source.model.get_input_embeddings().weight
    table = model.get_input_embeddings().weight
    noise = torch.randn(table.shape, generator=torch.Generator().manual_seed(seed)) * rows.std()
    for number, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        if token in known:
            table[number] = rows[known[token]]
            continue
        pieces = source.tokenizer(tokenizer.convert_tokens_to_string([token]), add_special_tokens=False).input_ids
        table[number] = _mixed(rows[pieces].mean(0) if pieces else rows.mean(0), noise[number])


def _mixed(mean: Tensor, noise: Tensor) -> Tensor:
    """A share of ``mean`` and so much of ``noise`` that one spread stays what it was."""
    return SHARE_OF_PIECES * mean + (1 - SHARE_OF_PIECES ** 2) ** 0.5 * noise


def with_all_layers(course: Course) -> Course:
    """The course with all layers at work from its first level on: they have learnt together already."""
    return dataclasses.replace(course, levels=tuple(dataclasses.replace(level, is_deep=True)
                                                    for level in course.levels))
