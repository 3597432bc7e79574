"""Families of generators: whatever their layers are, packed texts and answers are those of transformers' own model."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PretrainedConfig

from scaledown.config import ScaleDownConfig
from scaledown.models.compressors.n_layers import NLayersCompressor
from scaledown.models.generator import Generator
from scaledown.models.packing import TextLists

PACKED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo2", "olmo3",
          "granite", "cohere", "cohere2", "glm", "glm4", "smollm3", "starcoder2", "gpt_neox", "qwen2_moe", "granitemoe",
          "gpt_oss")
PADDED = ("gpt2", "stablelm")
"""Families that do not attend through transformers' interface, or not by position alone."""
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [12, 13], [20, 21, 22, 23]]


def config(family: str) -> PretrainedConfig:
    """A tiny model with windows, experts, softcaps and sinks as its family has them."""
    if family == "gpt2":
        return AutoConfig.for_model(family, vocab_size=50, n_embd=32, n_layer=3, n_head=4, initializer_range=0.2)
    # A cache takes a window for real that a config only carries along.
    window = {"sliding_window": 4} if hasattr(AutoConfig.for_model(family), "sliding_window") else {}
    return AutoConfig.for_model(
        family, **window, vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4 if family == "gpt_neox" else 2, head_dim=8,
        num_local_experts=4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
        shared_expert_intermediate_size=24, max_position_embeddings=64, initializer_range=0.2, pad_token_id=0,
        bos_token_id=1, eos_token_id=2)


def models(family: str) -> tuple[Generator, torch.nn.Module]:
    """A generator, and transformers' own model with the same weights, attending by the formula itself."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config(family)).eval()
    base.generation_config = GenerationConfig()
    plain = copy.deepcopy(base)
    plain.set_attn_implementation("eager")
    return Generator(ScaleDownConfig(), base).eval(), plain


@torch.no_grad()
@pytest.mark.parametrize("family", [*PACKED, *PADDED])
def test_a_generator_reads_and_answers_as_transformers_does(family: str) -> None:
    generator, plain = models(family)
    assert generator.packs == (family in PACKED)
    texts = TextLists(PROMPTS, [], [], [range(len(ids) - 2, len(ids)) for ids in PROMPTS])
    wanted = [plain.base_model(torch.tensor([ids]), use_cache=False).last_hidden_state[0, -2:] for ids in PROMPTS]
    torch.testing.assert_close(generator.states(texts.packed(), None), torch.cat(wanted), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(generator.head().logits(wanted[0]), plain(torch.tensor(PROMPTS[:1])).logits[0, -2:],
                               rtol=1e-4, atol=1e-4)

    settings = GenerationConfig(do_sample=False, max_new_tokens=6, pad_token_id=0)
    prompts = generator.prompts(PROMPTS, None, with_adapter=False)
    generator.prefill(prompts)
    answers = generator.generate(prompts, copy.deepcopy(settings)).tolist()
    for ids, answer in zip(PROMPTS, answers, strict=True):
        prompt = torch.tensor([ids])
        alone = plain.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)
        assert alone[0, len(ids):].tolist() == answer


@torch.no_grad()
@pytest.mark.parametrize("family", PACKED)
def test_a_compressor_shares_the_query_in_any_family(family: str) -> None:
    generator, plain = models(family)
    compressor = NLayersCompressor(ScaleDownConfig(num_memory_tokens=2), generator.base.base_model, num_layers=2).eval()
    query, documents = [5, 6, 7, 8, 9], [[10, 11, 12], [13, 14, 15, 16, 17, 18, 19], []]
    reads = [range(len(ids), len(ids) + 2) for ids in documents]
    texts = TextLists([query], [[*ids, 0, 0] for ids in documents], [0] * 3, [range(0), *reads])
    found = compressor(texts.packed(), generator.embed).embeddings

    compressor.body.set_attn_implementation("eager")
    for ids, memory in zip(documents, found, strict=True):
        whole = torch.cat([generator.embed(torch.tensor([*query, *ids])), compressor.memory_rows])
        wanted = compressor.body(inputs_embeds=whole[None], use_cache=False).last_hidden_state[0, -2:]
        torch.testing.assert_close(memory, wanted, rtol=1e-4, atol=1e-4)


def test_a_compressor_of_other_families_is_refused() -> None:
    for family in PADDED:
        base = AutoModelForCausalLM.from_config(config(family))
        with pytest.raises(ValueError, match="--compressor_type n_layers cannot copy layers of a"):
            NLayersCompressor(ScaleDownConfig(), base.base_model, 2)
