"""``--layers``: compressors that have some of the generator's layers, not only its first ones."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from torch import nn

from lab.smollm2.fewer_layers import with_fewer_layers
from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.settings import numbers_in

QUESTION, DOCUMENTS = "Where was Ada born?", ["Ada Lovelace was born in London.", "Oslo is the capital of Norway."]
LLM = {"compressor_type": "llm", "compressor_lora_rank": 2, "soft_tokens": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"), tie_word_embeddings=True)


def build(folder: str, **settings) -> ScaleDownModel:
    torch.manual_seed(1)
    if settings.get("compressor_type") == "llm":
        settings = {"compressor_model": folder} | settings
    return ScaleDownModel(ScaleDownConfig(**{"generator_model": folder, "num_memory_tokens": 3,
                                             "input_order": "document_first", **settings}))


def memory(model: ScaleDownModel) -> torch.Tensor:
    return model.compress(QUESTION, DOCUMENTS).embeddings[0]                  # (K, L, D)


@pytest.mark.parametrize(("text", "numbers"), [
    ("0-5,24-29", [0, 1, 2, 3, 4, 5, 24, 25, 26, 27, 28, 29]), ("3", [3]), ("0,2-3", [0, 2, 3]),
    ("", []), ("1-", [1]), ("-1", []), ("a", []), ("0,,1", []), ("0 1", [])])
def test_ranges_are_read(text, numbers):
    assert numbers_in(text) == numbers


def test_the_first_layers_are_those_of_num_layers(folder):
    assert torch.equal(memory(build(folder, layers="0-1")), memory(build(folder, num_layers=2)))


@pytest.mark.parametrize("settings", [{}, LLM], ids=["n_layers", "llm"])
def test_the_layers_that_are_named_are_run_in_their_order(folder, settings):
    model = build(folder, layers="0,2-3", **settings)
    base = model.generator.base.base_model
    body = model.compressor.body
    assert len(body.layers) == body.config.num_hidden_layers == 3 and base.config.num_hidden_layers == 4

    # What the whole decoder computes if its second layer passes its input on; the adapters do nothing yet.
    whole = build(folder, **(settings or {"num_layers": 4}))
    expected = memory_without_layer(whole, 1)
    torch.testing.assert_close(memory(model), expected)
    assert not torch.allclose(memory(model), memory(whole))


def memory_without_layer(model: ScaleDownModel, number: int) -> torch.Tensor:
    class Passes(nn.Module):
        attention_type = "full_attention"

        def forward(self, states, *arguments, **settings):
            return states

    model = copy.deepcopy(model)
    model.compressor.body.layers[number] = Passes()
    return memory(model)


@pytest.mark.parametrize("settings", [{}, LLM], ids=["n_layers", "llm"])
def test_documents_are_read_ahead_as_before(folder, settings):
    model = build(folder, layers="0,2-3", **settings)
    store = model.read_documents(DOCUMENTS)
    found = model.compress(QUESTION, DOCUMENTS, store=store).embeddings[0]
    torch.testing.assert_close(found, memory(model))


@pytest.mark.parametrize("settings", [{}, LLM, {"compressor_type": "llm"}], ids=["n_layers", "llm", "whole llm"])
def test_it_is_saved_and_loaded(folder, tmp_path, settings):
    model = build(folder, layers="1,3", **settings)
    tiny.move_adapter(model)
    model.save_pretrained(tmp_path / "checkpoint")
    again = ScaleDownModel.from_pretrained(tmp_path / "checkpoint")
    assert torch.equal(memory(again), memory(model)) and again.config.layers == "1,3"
    assert "(2 layers)" in repr(again)
    assert "layers 1,3" in (tmp_path / "checkpoint" / "README.md").read_text()


def test_with_lora_the_layers_share_the_generators_weights(folder):
    model = build(folder, layers="1,3", **LLM)
    for own, number in zip(model.compressor.body.layers, (1, 3), strict=True):
        of_generator = model.generator.base.base_model.layers[number]
        own_weight = own.mlp.up_proj.base_layer.weight
        assert own_weight.data_ptr() == of_generator.mlp.up_proj.base_layer.weight.data_ptr()


def test_kinds_of_layers_are_kept_with_them(tmp_path):
    kinds = ["sliding_attention", "full_attention"] * 2
    folder = tiny.generator_folder(tmp_path, family="qwen2", layer_types=kinds, sliding_window=4,
                                   use_sliding_window=True)
    model = build(folder, layers="0,2-3")
    assert model.compressor.body.config.layer_types == [kinds[0], kinds[2], kinds[3]]
    assert model.generator.config.layer_types == kinds


@pytest.mark.parametrize(("settings", "message"), [
    ({"layers": "0-x"}, "--layers must be rising numbers such as 0-5,24-29"),
    ({"layers": "2,1"}, "--layers must be rising numbers"),
    ({"layers": "0-1", "num_layers": 2}, "leave --num_layers 2 out"),
    ({"layers": "0-1", "compressor_type": "modernbert"}, "--layers belongs to"),
    ({"layers": "0-1", "compressor_type": "llm", "compressor_model": "another"}, "--layers belongs to"),
    ({"layers": "0-1", "compressor_type": "none", "input_order": "query_first"}, "--layers belongs to a compressor"),
    ({"layers": "0-4"}, "only 4 layers, the last is number 3")])
def test_layers_that_cannot_be_are_refused(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        build(folder, **settings)


def test_a_smaller_compressor_starts_as_the_trained_one_without_the_layers(folder):
    trained = build(folder, enable_reranking=True, **LLM)
    tiny.move_adapter(trained)
    three = with_fewer_layers(trained, "0,2-3")
    torch.testing.assert_close(memory(three), memory_without_layer(trained, 1))
    # And again, from the smaller one: layers keep the numbers that they have in the generator.
    two = with_fewer_layers(three, "0,3")
    torch.testing.assert_close(memory(two), memory_without_layer(three, 1))
    assert two.answer(QUESTION, DOCUMENTS, max_new_tokens=4) is not None

    with pytest.raises(ValueError, match="has no layer 1"):
        with_fewer_layers(three, "0-1")
    with pytest.raises(ValueError, match="takes layers away from an llm compressor"):
        with_fewer_layers(build(folder), "0-1")
