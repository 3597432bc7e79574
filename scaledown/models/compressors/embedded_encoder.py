"""An encoder for use without a hub: the first layers of a generator, in ModernBERT's layout, reading both ways.

A ModernBERT from the Hub has been pretrained for long; one with new weights would have to learn here what a text is.
So this one starts from layers that can read. Where the layouts differ it computes nearly what they did:

- ModernBERT norms the token embeddings once, and what its layers add must grow as much as the embeddings did;
- LayerNorm takes the mean away, which in the generator's states is small;
- its first layer has no norm before attention, so that norm's gain moves into the weights behind it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import ModernBertConfig, ModernBertModel, PretrainedConfig

EMBEDDED_LAYERS = 4
"""The embedded generator learnt to look things up with its first four layers alone."""


def embedded_encoder_config(generator: PretrainedConfig) -> ModernBertConfig:
    """ModernBERT's layout in the generator's sizes.

    All its layers see the whole text: at this size a local window saves nothing, and memory tokens sit at the end.
    """
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
    """The encoder that starts from ``body``, a generator without its head.

    Raises:
        ValueError: for heads of a size that ModernBERT cannot have.
    """
    config = body.config
    head_dim = body.layers[0].self_attn.head_dim
    if head_dim * config.num_attention_heads != config.hidden_size:
        raise ValueError("--compressor_model embedded: ModernBERT cannot have this generator's heads, "
                         f"{config.num_attention_heads} of {head_dim} at a width of {config.hidden_size}; name an "
                         "encoder")
    encoder = ModernBertModel(embedded_encoder_config(config))
    table = body.get_input_embeddings().weight
    growth = 1 / table.float().square().mean(-1).sqrt().mean()
    with torch.no_grad():
        encoder.get_input_embeddings().weight.copy_(table)
        for number, (layer, source) in enumerate(zip(encoder.layers, body.layers, strict=False)):
            attention, mlp = source.self_attn, source.mlp
            repeats = config.num_attention_heads // config.num_key_value_heads
            read = torch.cat([attention.q_proj.weight, _repeated(attention.k_proj.weight, head_dim, repeats),
                              _repeated(attention.v_proj.weight, head_dim, repeats)])
            if number:
                layer.attn_norm.weight.copy_(source.input_layernorm.weight)
            else:
                read = read * source.input_layernorm.weight
            layer.attn.Wqkv.weight.copy_(read)
            layer.attn.Wo.weight.copy_(attention.o_proj.weight * growth)
            layer.mlp_norm.weight.copy_(source.post_attention_layernorm.weight)
            layer.mlp.Wi.weight.copy_(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
            layer.mlp.Wo.weight.copy_(mlp.down_proj.weight * growth)
    return encoder


def _repeated(weight: Tensor, head_dim: int, times: int) -> Tensor:
    """Rows (H * head_dim, D) of keys or values that several query heads share, one copy for each of these."""
    return weight.unflatten(0, (-1, head_dim)).repeat_interleave(times, 0).flatten(0, 1)
