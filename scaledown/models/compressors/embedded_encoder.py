"""An encoder that needs no download: the first layers of a generator, in ModernBERT's layout, reading both ways.

A ModernBERT from the Hub has been pretrained for long; one with new weights would have to learn here to read. So this
one starts from layers that can read. Three differences of the layouts make it only nearly compute what these did:

- ModernBERT normalises the token embeddings once, so what its layers add must be scaled up as much as they were;
- LayerNorm subtracts the mean, which in the generator's states is small;
- its first layer has no norm before attention, so that norm's gain moves into the weights that follow it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import ModernBertConfig, ModernBertModel, PretrainedConfig

EMBEDDED_LAYERS = 4
"""The demo generator was trained to look things up with its first four layers alone."""
FAMILIES = ("llama", "mistral")
"""Those whose layers ModernBERT can have."""


def embedded_encoder_config(generator: PretrainedConfig) -> ModernBertConfig:
    """Return ModernBERT's layout in the generator's sizes.

    All its layers see the whole text: at this size a local window saves nothing, and memory tokens sit at the end.

    Raises:
        ValueError: if the generator's layers are not Llama's, which alone can be copied.
    """
    # Other families have biases or norms that ModernBERT lacks, or other names for the same weights.
    has_biases = getattr(generator, "attention_bias", False) or getattr(generator, "mlp_bias", False)
    if generator.model_type not in FAMILIES or has_biases:
        raise ValueError("--compressor_model embedded: ModernBERT cannot have the layers of this generator, a "
                         f"{generator.model_type} model: those of {' and '.join(FAMILIES)} without biases can be "
                         "copied; name an encoder")

    layers = min(EMBEDDED_LAYERS, generator.num_hidden_layers)
    rope = {"rope_type": "default", "rope_theta": generator.rope_parameters["rope_theta"]}
    return ModernBertConfig(
        vocab_size=generator.vocab_size, hidden_size=generator.hidden_size, num_hidden_layers=layers,
        intermediate_size=generator.intermediate_size, num_attention_heads=generator.num_attention_heads,
        hidden_activation=generator.hidden_act, layer_types=["full_attention"] * layers,
        rope_parameters={"full_attention": rope, "sliding_attention": dict(rope)}, norm_eps=generator.rms_norm_eps,
        max_position_embeddings=generator.max_position_embeddings,
        pad_token_id=None, bos_token_id=None, eos_token_id=None, cls_token_id=None, sep_token_id=None)


def embedded_encoder(body: nn.Module) -> ModernBertModel:
    """Return the encoder that starts from a copy of the first layers of ``body``, a generator without its head.

    Raises:
        ValueError: if ModernBERT cannot have the generator's layers, or heads of their width.
    """
    config = body.config
    layout = embedded_encoder_config(config)
    head_dim = body.layers[0].self_attn.head_dim
    # ModernBERT has no setting for a head's width: heads share the hidden size.
    if head_dim * config.num_attention_heads != config.hidden_size:
        raise ValueError("--compressor_model embedded: ModernBERT cannot have this generator's heads, "
                         f"{config.num_attention_heads} of {head_dim} at a width of {config.hidden_size}; name an "
                         "encoder")

    encoder = ModernBertModel(layout)
    table = body.get_input_embeddings().weight                                # (V, D)
    # The norm of the token embeddings multiplies them by about this: 1 / their root mean square.
    growth = 1 / table.float().square().mean(-1).sqrt().mean()

    with torch.no_grad():
        encoder.get_input_embeddings().weight.copy_(table)
        # The encoder may have fewer layers than the generator.
        for number, (layer, source) in enumerate(zip(encoder.layers, body.layers, strict=False)):
            _copy_layer(source, layer, growth, is_first=number == 0)
    return encoder


def _copy_layer(source: nn.Module, layer: nn.Module, growth: Tensor, is_first: bool) -> None:
    """Copy the weights of ``source``, a generator's layer, to ``layer``, an encoder's."""
    attention, mlp = source.self_attn, source.mlp

    # ModernBERT has as many key heads as query heads; queries, keys and values are one map.
    repeats = attention.q_proj.out_features // attention.k_proj.out_features
    keys = _repeat_heads(attention.k_proj.weight, attention.head_dim, repeats)
    values = _repeat_heads(attention.v_proj.weight, attention.head_dim, repeats)
    queries_keys_values = torch.cat([attention.q_proj.weight, keys, values])  # (3 D, D)

    # The encoder's first layer has no such norm: the gain moves into the columns of the map.
    if is_first:
        queries_keys_values = queries_keys_values * source.input_layernorm.weight
    else:
        layer.attn_norm.weight.copy_(source.input_layernorm.weight)
    layer.attn.Wqkv.weight.copy_(queries_keys_values)
    layer.attn.Wo.weight.copy_(attention.o_proj.weight * growth)

    # ModernBERT's Wi makes both factors of a gated MLP, the activated one first.
    layer.mlp_norm.weight.copy_(source.post_attention_layernorm.weight)
    layer.mlp.Wi.weight.copy_(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
    layer.mlp.Wo.weight.copy_(mlp.down_proj.weight * growth)


def _repeat_heads(weight: Tensor, head_dim: int, times: int) -> Tensor:
    """Return the map to keys or values (G * head_dim, D) with each head repeated, once for each of its query heads."""
    heads = weight.unflatten(0, (-1, head_dim))                               # (G, head_dim, D)
    return heads.repeat_interleave(times, 0).flatten(0, 1)                    # (G * times * head_dim, D)
