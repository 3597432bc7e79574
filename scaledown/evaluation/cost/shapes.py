"""Shapes of models, read from a model of any family: the sizes that a count of FLOPs needs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from scaledown.config import COMPRESSORS
from scaledown.evaluation.cost.known_shapes import config_of
from scaledown.models.engine.decoder import text_config

FLOPS_PER_SCORE = 4


@dataclass(frozen=True)
class DecoderShape:
    """A decoder of any family (:func:`decoder_shape` reads one from a model); biases and norms left out.

    Attributes:
        mlp_weights: weights of a layer beside attention's four maps that a token meets: of experts, only those that
            read it.
        mlp_sides: width plus height of each of these maps that LoRA adapts, summed.
        map_weights: those of an llm compressor's maps to the generator (Linear - ReLU - Linear, and mixtures of
            tokens), at memory positions alone.
        lora_rank: of an adapter that the shape always has (a compressor's); the generator's is given for each count.
        queries_apart: whether queries have a map of their own, so that the last layer computes those alone that are
            used (:mod:`scaledown.models.engine.last_layer`); some families make queries, keys and values in one.
    """

    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_size: int
    vocab_size: int
    mlp_weights: float
    mlp_sides: float
    map_weights: int = 0
    lora_rank: int = 0
    queries_apart: bool = True

    @classmethod
    def gated(cls, num_layers: int, hidden_size: int, intermediate_size: int, num_attention_heads: int,
              num_key_value_heads: int, head_size: int, vocab_size: int) -> DecoderShape:
        """Return the shape of Llama, Mistral and Qwen, whose MLP has three maps: up, gate and down."""
        return cls(num_layers, hidden_size, num_attention_heads, num_key_value_heads, head_size, vocab_size,
                   mlp_weights=3 * hidden_size * intermediate_size, mlp_sides=3 * (hidden_size + intermediate_size))

    @property
    def attention_size(self) -> int:
        """Return the width of all heads' queries together."""
        return self.num_attention_heads * self.head_size

    @property
    def key_value_size(self) -> int:
        """Return the width of all heads' keys, or values, together."""
        return self.num_key_value_heads * self.head_size

    @property
    def key_weights(self) -> int:
        """Return the weights of one layer that make keys and values: what the last layer computes of every token."""
        sizes = 2 * self.key_value_size + (0 if self.queries_apart else self.attention_size)
        return self.hidden_size * sizes

    @property
    def layer_weights(self) -> float:
        """Return the weights of one layer's linear maps."""
        # Queries and output have the same sizes, with sides changed; then keys and values.
        return 2 * self.hidden_size * (self.attention_size + self.key_value_size) + self.mlp_weights

    @property
    def body_weights(self) -> float:
        """Return the weights of all layers' linear maps, without embeddings and LM head: the paper's P."""
        return self.num_layers * self.layer_weights

    @property
    def head_weights(self) -> int:
        """Return the weights of the LM head."""
        return self.hidden_size * self.vocab_size

    def lora_weights(self, rank: int) -> float:
        """Return the weights of a LoRA adapter on every linear map of the layers."""
        # A map of width x height gets rank x (width + height).
        attention = 4 * self.hidden_size + 2 * self.attention_size + 2 * self.key_value_size
        return self.num_layers * rank * (attention + self.mlp_sides)

    def weighed(self, read: float, used: float, lora_rank: int = 0) -> float:
        """Return weights times tokens of all layers over ``read`` tokens, ``used`` of them in the last layer's output.

        In the last layer keys and values are computed of all tokens, then the whole layer of the used ones.
        """
        lora_rank += self.lora_rank
        layer = self.layer_weights + self.lora_weights(lora_rank) / self.num_layers
        # The adapter's maps are as wide as those that they are added to: two of them, or three with the queries.
        num_maps = 2 if self.queries_apart else 3
        sizes = self.key_weights // self.hidden_size
        keys = self.key_weights + lora_rank * (num_maps * self.hidden_size + sizes)
        return ((self.num_layers - 1) * layer + keys) * read + layer * used

    def score_flops(self, num_pairs: float, num_layers: int | None = None) -> float:
        """Return the FLOPs of attention scores and weighted values, for pairs of a query and a key position."""
        # Two products of a head's size for each pair and head, of 2 FLOPs a number each.
        layers = self.num_layers if num_layers is None else num_layers
        return FLOPS_PER_SCORE * layers * self.num_attention_heads * self.head_size * num_pairs

    def key_value_bytes(self, num_tokens: float, bytes_per_value: int) -> float:
        """Return the bytes of the keys and values of ``num_tokens`` tokens."""
        return 2 * self.num_layers * self.num_key_value_heads * self.head_size * num_tokens * bytes_per_value


@dataclass(frozen=True)
class EncoderShape:
    """An encoder compressor: its linear maps' weights, and the maps that take memory positions to the generator.

    Attributes:
        mixed_tokens: with soft tokens the generator's number of tokens.
    """

    body_weights: int
    num_layers: int
    hidden_size: int
    mlp_width: int
    generator_size: int
    mixed_tokens: int = 0

    @property
    def map_weights(self) -> int:
        """Return the weights of Linear - ReLU - Linear (paper, section 3), and of mixtures of tokens."""
        mlp_weights = self.mlp_width * (self.hidden_size + self.generator_size)
        return mlp_weights + mixture_weights(self.mixed_tokens, self.generator_size)


Compressor = DecoderShape | EncoderShape | None


def decoder_shape(model: PreTrainedModel) -> DecoderShape:
    """Read the shape of a decoder of any family: with or without a head, an adapter, and values.

    All layers of the shape are the model's mean layer. Only the config knows the number of heads, and the number of
    experts that read a token.
    """
    config = text_config(model.config)
    num_heads = getattr(config, "num_attention_heads", None) or 0
    num_key_heads = getattr(config, "num_key_value_heads", None) or num_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // max(1, num_heads)
    queries_apart = any(hasattr(part, "q_proj") for part in model.modules())
    bare = DecoderShape(config.num_hidden_layers, config.hidden_size, num_heads, num_key_heads, head_size,
                        config.vocab_size, mlp_weights=0, mlp_sides=0, queries_apart=queries_apart)

    # The MLP is what remains of the layers without attention, whatever maps a family gives it.
    weights, sides = _linear_maps(model.base_model, getattr(config, "num_experts_per_tok", None))
    return dataclasses.replace(bare, mlp_weights=weights / bare.num_layers - bare.layer_weights,
                               mlp_sides=sides / bare.num_layers - bare.lora_weights(1) / bare.num_layers)


def _linear_maps(body: nn.Module, experts_per_token: int | None) -> tuple[float, int]:
    """Return the weights that a token meets in a model's linear maps, and these maps' widths and heights, summed."""
    weights, sides = 0.0, 0
    for name, module in body.named_modules():
        if "lora_" in name or isinstance(module, nn.Embedding):
            continue

        if isinstance(module, (nn.Linear, Conv1D)):
            # Weights in 4 bits do not have the map's shape; transformers' Conv1D has no sizes but its weights'.
            is_conv = isinstance(module, Conv1D)
            width, height = module.weight.shape if is_conv else (module.in_features, module.out_features)
            weights += width * height
            sides += width + height
            continue

        for parameter_name, parameter in module.named_parameters(recurse=False):
            # Routers are matrices, experts a stack of them; the biases of experts are a matrix, too.
            is_stack = parameter.ndim == 3 and experts_per_token is not None
            if parameter.ndim > 1 and not parameter_name.endswith("bias"):
                weights += parameter.numel() * (experts_per_token / len(parameter) if is_stack else 1)

    return weights, sides


def encoder_shape(encoder: PreTrainedModel, mlp_width: int, generator_size: int,
                  mixed_tokens: int = 0) -> EncoderShape:
    """Read the shape of an encoder compressor; the encoder may be one without values."""
    return EncoderShape(linear_weights(encoder), encoder.config.num_hidden_layers, encoder.config.hidden_size,
                        mlp_width, generator_size, mixed_tokens)


def llm_shape(body: PreTrainedModel, mlp_width: int, generator_size: int) -> DecoderShape:
    """Read the shape of an llm compressor with ``body``, a causal LM without its head."""
    shape = decoder_shape(body)
    return dataclasses.replace(shape, map_weights=mlp_width * (shape.hidden_size + generator_size))


def compressor_shape(model: Any) -> Compressor:
    """Return the shape of a ScaleDownModel's compressor."""
    config, width = model.config, model.generator.config.hidden_size  # width of the memory embeddings
    mixed_tokens = model.generator.config.vocab_size if config.soft_tokens else 0
    if config.compressor_type in ("n_layers", "llm"):
        shape = dataclasses.replace(decoder_shape(model.compressor.body), lora_rank=config.compressor_lora_rank or 0)
        if config.compressor_type == "n_layers":
            return shape
        map_weights = 0
        if model.compressor.mlp is not None:
            map_weights = config.mlp_width * (shape.hidden_size + width)
        return dataclasses.replace(shape, map_weights=map_weights + mixture_weights(mixed_tokens, width))
    return encoder_shape(model.compressor.encoder, config.mlp_width, width, mixed_tokens)


def mixture_weights(num_tokens: int, generator_size: int) -> int:
    """Return the weights of mixtures of tokens: the logits of all tokens, and the sum of their embeddings."""
    return 2 * num_tokens * generator_size


def linear_weights(module: nn.Module) -> int:
    """Return the number of weights in a module's linear maps."""
    return sum(linear.weight.numel() for linear in module.modules() if isinstance(linear, nn.Linear))


def generator_without_values(config: PretrainedConfig) -> PreTrainedModel:
    """Return the causal LM of ``config`` with shapes but no values (on the meta device)."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(text_config(config))


def compressor_without_values(compressor_type: str, name: str | None) -> PreTrainedModel:
    """Return the compressor's model ``name`` [the type's default] with shapes but no values."""
    with torch.device("meta"):
        return AutoModel.from_config(config_of(name or COMPRESSORS[compressor_type].default_model))
