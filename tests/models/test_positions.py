"""How long a text a model reads exactly, and that nothing longer reaches it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    ElectraConfig,
    ElectraModel,
    GenerationConfig,
    RobertaConfig,
)
from transformers import RobertaModel as Roberta

from scaledown.config import ScaleDownConfig
from scaledown.models.engine.positions import position_limit
from scaledown.models.model import ScaleDownModel

DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128,
            "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
BUDGETS = {"num_layers": 2, "num_memory_tokens": 2, "compression_rate": 4, "query_tokens": 8}
ENCODER = {"vocab_size": len(tiny.tokenizer(None)), "hidden_size": 24, "num_hidden_layers": 2,
           "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}


def generator_folder(folder: Path, rope: dict[str, object]) -> str:
    config = tiny.generator().config
    config.rope_parameters = rope
    config.max_position_embeddings = 128 if rope["rope_type"] == "dynamic" else 512
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("rope", [DYNAMIC, LONGROPE], ids=["dynamic", "longrope"])
def test_rotary_positions_that_depend_on_the_batch_are_exact_or_refused(rope, tmp_path):
    folder = generator_folder(tmp_path / "generator", rope)
    model = ScaleDownModel(ScaleDownConfig(generator_model=folder, **BUDGETS))
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()

    # Within the limit a text beside a longer one is read as alone.
    short, longer = ("who?", ["Ada."]), ("who wrote the first program?", ["Ada Lovelace."] * 3)
    prompts = model.prefill_text([short[0], longer[0]], [short[1], longer[1]])
    prompt, = model.processor.text_prompts([short[0]], [short[1]])
    with torch.no_grad():
        found, wanted = tiny.first_logits(model.generator, prompts)[0], plain(torch.tensor([prompt])).logits[0, -1]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)

    # Beyond it nothing is read: in text, from memory, in training, or for an answer that would grow beyond.
    too_long = "where is it? " * 12
    for read in (lambda: model.prefill_text([too_long], [["Ada."]]), lambda: model.answer([too_long], [["Ada."]]),
                 lambda: model.answer(["who?"], [["Ada."]], max_new_tokens=100),
                 lambda: model.answer(["who?"], [["Ada."]], generation_config=GenerationConfig(max_new_tokens=100)),
                 lambda: next(model.answer(["who?"], [["Ada."]], max_new_tokens=100, stream=True))):
        with pytest.raises(ValueError, match=f"more than 128 rope type '{rope['rope_type']}'"):
            read()


def test_a_compressor_whose_rotary_positions_depend_on_the_batch_is_refused_at_the_start(tmp_path):
    folder = generator_folder(tmp_path / "generator", DYNAMIC)
    with pytest.raises(ValueError, match=r"longest input of the compressor .* takes \d+ positions, .* 'dynamic'"):
        ScaleDownModel(ScaleDownConfig(generator_model=folder, num_layers=2))


@pytest.mark.parametrize("model, number", [
    (lambda: BertModel(BertConfig(**ENCODER)), 64),
    # RoBERTa's positions begin behind its padding token's number, 1.
    (lambda: Roberta(RobertaConfig(**ENCODER)), 62),
    (lambda: tiny.generator("llama"), None),
], ids=["bert", "roberta", "llama"])
def test_learned_positions_are_counted(model, number):
    limit = position_limit(model())
    assert limit is None if number is None else limit.num_positions == number


@pytest.mark.parametrize("settings, fits", [({"query_tokens": 29}, True), ({"query_tokens": 30}, False)])
def test_an_encoder_reads_up_to_its_last_position(settings, fits, tmp_path):
    """[CLS] and [SEP], 30 tokens of the document, 2 memory tokens and a rerank token leave 29 for the query."""
    generator = tiny.generator_folder(tmp_path / "generator")
    BertModel(BertConfig(**ENCODER)).save_pretrained(tmp_path / "bert")
    tiny.tokenizer(None, cls_token="[CLS]", sep_token="[SEP]").save_pretrained(tmp_path / "bert")
    config = ScaleDownConfig(generator_model=generator, compressor_type="modernbert", mlp_width=16,
                             compressor_model=str(tmp_path / "bert"), enable_reranking=True, num_memory_tokens=2,
                             compression_rate=15, **settings)
    if not fits:
        with pytest.raises(ValueError, match="takes 65 positions, and a bert model has 64 learned ones"):
            ScaleDownModel(config)
        return
    memory = ScaleDownModel(config).compress(["who? " * 50], [["Ada was born. " * 30]])
    assert memory.embeddings.isfinite().all() and memory.scores.isfinite().all()


def test_an_encoder_with_narrow_embeddings(tmp_path):
    """ELECTRA's token embeddings are narrower than its states: memory tokens have the one width, the head the other."""
    generator = tiny.generator_folder(tmp_path / "generator")
    ElectraModel(ElectraConfig(**ENCODER, embedding_size=16)).save_pretrained(tmp_path / "electra")
    tiny.tokenizer(None, cls_token="[CLS]", sep_token="[SEP]").save_pretrained(tmp_path / "electra")
    model = ScaleDownModel(ScaleDownConfig(
        generator_model=generator, compressor_type="modernbert", mlp_width=16, enable_reranking=True,
        compressor_model=str(tmp_path / "electra"), **(BUDGETS | {"num_layers": None})))
    assert model.compressor.memory_rows.shape == (2, 16) and model.compressor.rerank_head.weight.shape == (1, 24)
    memory = model.compress(["who?", "where?"], [["Ada.", "Oslo."], []])
    assert memory.embeddings.shape == (2, 2, 2, tiny.WIDTH) and memory.scores[0].isfinite().all()

    model.save_pretrained(tmp_path / "checkpoint")
    loaded = ScaleDownModel.from_pretrained(tmp_path / "checkpoint")
    before, after = (each.compress(["who?"], [["Ada."]]) for each in (model, loaded))
    torch.testing.assert_close(before.scores, after.scores)
