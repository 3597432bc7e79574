"""Memory as mixtures of tokens: the expected embedding of what the compressor's model would say."""

from __future__ import annotations

import pytest
import tiny
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModel, CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.data.records import Record
from scaledown.models.engine import decoder
from scaledown.models.losses import IGNORED

QUESTION, DOCUMENTS = "Where was Ada born?", ["Ada Lovelace was born in London.", "Oslo is the capital of Norway."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"), tie_word_embeddings=True)


def build(folder: str, **settings) -> ScaleDownModel:
    torch.manual_seed(1)
    return ScaleDownModel(ScaleDownConfig(**{
        "generator_model": folder, "compressor_type": "llm", "compressor_model": folder, "compressor_lora_rank": 2,
        "num_memory_tokens": 3, "memory_init": "reply", "soft_tokens": True, **settings}))


def states_and_memory(model: ScaleDownModel) -> tuple[torch.Tensor, torch.Tensor]:
    batch = model.processor.collate([Record("1", QUESTION, tuple(DOCUMENTS), "London")])
    with torch.no_grad():
        memory, _, states = model.compressor(batch["documents"], model.generator.embed)
    return states, memory


def test_it_holds_the_expected_embeddings_of_what_the_model_would_say(folder):
    model = build(folder)
    states, memory = states_and_memory(model)
    table = model.generator.base.get_input_embeddings().weight
    logits = model.generator.base.lm_head(states)
    torch.testing.assert_close(memory, logits.softmax(-1) @ table)
    assert memory.shape == (2, 3, tiny.WIDTH)
    assert torch.equal(model.compress(QUESTION, DOCUMENTS).embeddings[0], memory)


def test_the_readout_is_what_the_model_would_say(folder):
    model = build(folder)
    batch = model.processor.collate([Record("1", QUESTION, tuple(DOCUMENTS), "London")], with_readout=True)
    states, _ = states_and_memory(model)
    targets = batch["readout_targets"]
    expected = F.cross_entropy(model.generator.base.lm_head(states).flatten(0, 1), targets.flatten(),
                               ignore_index=IGNORED)
    torch.testing.assert_close(model(batch).readout_loss, expected)


def test_it_is_saved_and_loaded(folder, tmp_path):
    model = build(folder)
    tiny.move_adapter(model)
    model.save_pretrained(tmp_path / "checkpoint")
    again = ScaleDownModel.from_pretrained(tmp_path / "checkpoint")
    assert torch.equal(states_and_memory(again)[1], states_and_memory(model)[1])


@pytest.mark.parametrize("kind", ["modernbert", "llm"])
def test_a_compressor_with_an_mlp_mixes_the_generators_tokens(kind, folder, tmp_path):
    other = str(tmp_path / "encoder")
    if kind == "modernbert":
        tiny.encoder_folder(tmp_path / "encoder")
    else:
        other = tiny.generator_folder(tmp_path / "encoder", hidden_size=48)
    model = build(folder, compressor_type=kind, compressor_model=other, compressor_lora_rank=None, memory_init=None)
    tiny.move_adapter(model)

    # What the MLP gives is read by the generator's own output head.
    states, memory = states_and_memory(model)
    table = model.generator.base.get_input_embeddings().weight
    logits = model.generator.base.lm_head(states)
    torch.testing.assert_close(memory, logits.softmax(-1) @ table)

    batch = model.processor.collate([Record("1", QUESTION, tuple(DOCUMENTS), "London")], with_readout=True)
    losses = model(batch)
    expected = F.cross_entropy(logits.flatten(0, 1), batch["readout_targets"].flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(losses.readout_loss, expected)
    losses.readout_loss.backward()
    assert model.compressor.mlp[0].weight.grad.abs().sum() > 0 and table.grad is None

    # The table belongs to the generator: it is neither trained nor saved here.
    model.save_pretrained(tmp_path / "checkpoint")
    assert not any("mixed_table" in name for name in load_file(tmp_path / "checkpoint" / "compressor.safetensors"))
    again = ScaleDownModel.from_pretrained(tmp_path / "checkpoint")
    assert torch.equal(states_and_memory(again)[1], memory)
    assert again.compressor.mixed_table is again.generator.base.get_input_embeddings().weight


def test_layers_that_have_no_output_head_are_refused(folder):
    with pytest.raises(ValueError, match="--soft_tokens belongs to --compressor_type modernbert or llm"):
        build(folder, compressor_type="n_layers", compressor_model=None, compressor_lora_rank=None, memory_init=None)


def test_it_needs_an_output_head_that_is_the_table(tmp_path):
    with pytest.raises(ValueError, match="--soft_tokens needs a generator whose output head"):
        build(tiny.generator_folder(tmp_path, tie_word_embeddings=False))


@pytest.mark.parametrize(("config", "is_plain"), [
    (LlamaConfig, True), (GraniteConfig, False), (CohereConfig, False), (Gemma2Config, False)])
def test_families_that_scale_or_bound_their_logits_are_told_apart(config, is_plain):
    settings = config(vocab_size=50, hidden_size=32, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                      num_key_value_heads=2, head_dim=16, tie_word_embeddings=True)
    assert decoder.head_is_table(AutoModel.from_config(settings)) == is_plain
