"""The memory that training needs: the estimate from shapes is held against the bytes that live in a real training."""

from __future__ import annotations

import itertools

import pytest
import tiny
import torch
from live_bytes import LiveBytes
from torch import nn

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.evaluation.cost.empty_model import EmptyModel
from scaledown.evaluation.cost.flops import TokenCounts
from scaledown.evaluation.cost.needed_memory import answering_need, training_need
from scaledown.models.model import ScaleDownModel
from scaledown.training import run

SIZES = {"layers": 6, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4,
         "head_dim": 32}
QUERY, DOCUMENT, ANSWER = "who wrote the first program? " * 3, "Ada Lovelace was born in London. " * 9, "Paris " * 9


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"), **SIZES)


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("llm"), **SIZES | {"layers": 3})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    own = tiny.tokenizer(None, cls_token="[CLS]", sep_token="[SEP]")
    config = tiny.encoder_config(len(own), hidden_size=256, intermediate_size=384, num_attention_heads=8)
    tiny.ModernBertModel(config).save_pretrained(folder)
    own.save_pretrained(folder)
    return str(folder)


def records(number, num_documents=2):
    return [Record(str(each), QUERY, (DOCUMENT,) * num_documents, ANSWER) for each in range(number)]


def token_counts(model, record):
    """The tokens of a record as the model's own processor lays them out."""
    batch = model.processor.collate([record], 128)
    documents, new_tokens = batch["documents"], len(batch["answer_targets"])
    num_documents = len(record.documents)
    num_memory = model.config.num_memory_tokens
    if model.config.compressor_type == "modernbert":
        query, document = 0, documents.packing.prefixes.positions.shape[1] - num_memory
    elif model.config.reads_text:
        query = document = 0
    else:
        query = documents.packing.prefixes.positions.shape[1]
        document = documents.packing.suffixes.positions.shape[1] - num_memory
    return TokenCounts(query, document, num_documents, num_memory, len(batch["prompts"].ids) - new_tokens, new_tokens)


SETTINGS = {
    "n_layers": ({"num_layers": 3}, {}, "float32"),
    "n_layers twice": ({"num_layers": 3}, {"gradient_checkpointing": True}, "float32"),
    "n_layers in parts, bfloat16": ({"num_layers": 3}, {"gradient_accumulation_steps": 2}, "bfloat16"),
    "n_layers by LoRA, bfloat16": ({"num_layers": 3, "compressor_lora_rank": 8}, {}, "bfloat16"),
    "llm by LoRA, bfloat16": ({"compressor_type": "llm", "mlp_width": 512, "compressor_lora_rank": 8}, {}, "bfloat16"),
    "llm by Muon, twice": ({"compressor_type": "llm", "mlp_width": 512},
                           {"gradient_checkpointing": True, "optimizer": "muon"}, "float32"),
    "modernbert": ({"compressor_type": "modernbert", "mlp_width": 512}, {}, "float32"),
    "text": ({"compressor_type": "none"}, {}, "float32"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_estimate_is_within_5_percent_of_what_lives_in_a_training(name, generator, llm, encoder, tmp_path):
    model_settings, settings, dtype = SETTINGS[name]
    other = {"llm": llm, "modernbert": encoder}.get(model_settings.get("compressor_type"))
    config = ScaleDownConfig(generator_model=generator, compressor_model=other, **model_settings)
    training = TrainingConfig(batch_size=2, max_steps=2, **settings)
    model = run.build_model(config, "cpu", seed=1, dtype=dtype)

    with LiveBytes(itertools.chain(model.parameters(), model.buffers())) as live:
        run.train(model, training, records(4), tmp_path)
    need = training_need(EmptyModel.of(config, getattr(torch, dtype)), training, token_counts(model, records(1)[0]),
                         "cpu")

    assert need.peak == pytest.approx(live.most, rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("settings", [
    {"compressor_type": "n_layers", "num_layers": 3},
    {"compressor_type": "n_layers", "num_layers": 3, "compressor_lora_rank": 8}, {"compressor_type": "none"},
    {"compressor_type": "llm", "mlp_width": 512, "compressor_lora_rank": 8}],
    ids=["n_layers", "n_layers by LoRA", "text", "the generator itself"])
def test_weights_of_a_model_that_answers_are_those_that_it_holds(settings, dtype, generator):
    """As loaded, and folded: then all are in one number format, and shared ones that an adapter changes are twofold."""
    other = generator if settings["compressor_type"] == "llm" else None
    config = ScaleDownConfig(generator_model=generator, compressor_model=other, **settings)
    model = ScaleDownModel(config, "cpu", dtype)
    empty, tokens = EmptyModel.of(config, getattr(torch, dtype)), TokenCounts(8, 32, 2, 2, 40, 8)
    for only_answers in (False, True):
        if only_answers:
            model.for_answering()
        held = {weight.data_ptr(): weight.nbytes for weight in model.parameters()}
        need = answering_need(empty, 2, tokens, only_answers)
        assert need.fixed == pytest.approx(sum(held.values()), rel=1e-3)
        assert need.parts.get("weights in bfloat16", 0) == 0 or (dtype == "bfloat16" and not only_answers)


def test_live_bytes_are_those_of_tensors_worked_out_by_hand():
    linear, states = nn.Linear(100, 200, bias=False), torch.randn(50, 100)
    with LiveBytes([linear.weight, states]) as live:
        assert live.now == 4 * (20_000 + 5_000)
        view = linear(states).view(100, 100)
        assert live.now == 4 * (20_000 + 5_000 + 10_000), "a view is no second tensor"
        view.sum().backward()
        del view
        assert live.now == 4 * (2 * 20_000 + 5_000), "the gradient stays, the output is gone"
    assert live.most > live.now
