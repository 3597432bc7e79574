"""The encoder made of a generator's first layers: where the layouts do not differ it computes what they did."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, GPTNeoXConfig, Phi3Config, PreTrainedModel

from scaledown.hub import EMBEDDED_FOLDER
from scaledown.models.compressors.embedded_encoder import EMBEDDED_LAYERS, embedded_encoder


def causal(length: int) -> dict[str, torch.Tensor]:
    """The mask with which an encoder reads as a generator does."""
    mask = torch.full((length, length), -torch.inf).triu(1)[None, None]
    return {"full_attention": mask, "sliding_attention": mask}


@torch.no_grad()
def states(generator: PreTrainedModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Before the final norm: of the generator's layers, and of the encoder that reads as they do, at their scale."""
    body = generator.base_model.eval()
    growth = 1 / body.get_input_embeddings().weight.square().mean(-1).sqrt().mean()
    encoder = embedded_encoder(body).eval()
    encoder.final_norm = torch.nn.Identity()
    found = encoder(ids, attention_mask=causal(ids.shape[1])).last_hidden_state / growth
    return body(ids, output_hidden_states=True).hidden_states[len(encoder.layers)], found


def even(generator: PreTrainedModel) -> PreTrainedModel:
    """Token embeddings, and what layers add to them, of mean 0; embeddings of one length: there the layouts agree."""
    with torch.no_grad():
        table = generator.base_model.get_input_embeddings().weight
        table -= table.mean(-1, keepdim=True)
        table *= 0.3 / table.square().mean(-1, keepdim=True).sqrt()
        for layer in generator.base_model.layers:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                linear.weight -= linear.weight.mean(0)
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight.uniform_(0.5, 2.0)
    return generator


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_it_reads_as_the_layers_that_it_is_made_of(family: str) -> None:
    generator = even(tiny.generator(family, layers=EMBEDDED_LAYERS + 1))
    expected, found = states(generator, torch.arange(60).view(2, 30))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_of_the_embedded_generator_it_is_near() -> None:
    generator = AutoModelForCausalLM.from_pretrained(EMBEDDED_FOLDER, dtype=torch.float32)
    expected, found = states(generator, torch.arange(100, 300).view(4, 50))
    assert torch.nn.functional.cosine_similarity(expected, found, dim=-1).mean() > 0.95


def test_a_shallow_generator_gives_a_shallow_encoder() -> None:
    assert len(embedded_encoder(tiny.generator(layers=2).base_model).layers) == 2


def test_heads_that_modernbert_cannot_have_are_refused() -> None:
    generator = tiny.generator("mistral")
    generator.base_model.layers[0].self_attn.head_dim = 16
    with pytest.raises(ValueError, match="4 of 16 at a width of 32"):
        embedded_encoder(generator.base_model)


SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.mark.parametrize("config", [
    GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4), GPTNeoXConfig(**SIZES), GemmaConfig(**SIZES, head_dim=8),
    Phi3Config(**SIZES, pad_token_id=0),
], ids=lambda config: config.model_type)
def test_layers_of_another_layout_are_refused(config) -> None:
    body = AutoModelForCausalLM.from_config(config).base_model
    with pytest.raises(ValueError, match=f"a {config.model_type} model: those of llama and .*; name an encoder"):
        embedded_encoder(body)


def test_biases_are_refused_which_modernbert_has_not() -> None:
    for generator in (tiny.generator("qwen2"), tiny.generator("qwen3"), tiny.generator("llama", attention_bias=True)):
        with pytest.raises(ValueError, match="ModernBERT cannot have the layers of this generator"):
            embedded_encoder(generator.base_model)
