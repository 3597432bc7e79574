"""Rerank and answer: which documents each pipeline's system gets, and what it costs, against hand-made values."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.data.records import Record, write_records
from scaledown.evaluation.cost.flops import TokenCounts
from scaledown.evaluation.cost.shapes import DecoderShape, EncoderShape
from scaledown.evaluation.pipelines import __main__ as command
from scaledown.evaluation.pipelines.comparison import pipelines, reranker_shape, reranking_flops

RECORDS = [Record("a", "who?", ("Ada", "Bob", "Eve"), "Ada", document_ids=("x", "y", "z")),
           Record("b", "where?", ("Oslo",), "Oslo")]
RUNS = {"BM25": {"a": {"x": 1.0, "y": 1.0, "z": 2.0}, "b": {"0": 0.0}},
        "cross-encoder": {"a": {"x": -5.0, "y": 9.0, "z": -4.0}, "b": {"0": 0.0}}}
DECODER = DecoderShape.gated(num_layers=2, hidden_size=8, intermediate_size=12, num_attention_heads=2,
                             num_key_value_heads=1, head_size=4, vocab_size=50)


def test_each_system_gets_the_documents_that_its_reranker_chose():
    found = {each.name: each for each in pipelines(RECORDS, RUNS, num_kept=2, has_threshold=True)}
    assert list(found) == ["cross-encoder, full text", "cross-encoder, ScaleDown", "ScaleDown in one pass",
                           "the same, auto", "BM25, ScaleDown", "ScaleDown, all", "full text, all"]
    for name in ("cross-encoder, full text", "cross-encoder, ScaleDown"):
        assert [record.documents for record in found[name].records] == [("Bob", "Eve"), ("Oslo",)]
    assert found["BM25, ScaleDown"].records[0].documents == ("Eve", "Ada")
    assert found["ScaleDown in one pass"].records is RECORDS
    assert found["cross-encoder, ScaleDown"].records[0].references == ("Ada",)
    without = pipelines(RECORDS, {"BM25": RUNS["BM25"]}, num_kept=2, has_threshold=False)
    assert [each.name for each in without] == ["ScaleDown in one pass", "BM25, ScaleDown", "ScaleDown, all",
                                               "full text, all"]


def test_a_cross_encoder_reads_the_query_with_each_document():
    tokens = TokenCounts(query_tokens=10, document_tokens=17, num_documents=4, memory_tokens=8, prompt_tokens=70,
                         new_tokens=5, rerank_tokens=1)
    # 10 + 17 + 3 special tokens, 4 times; causal attention over 30 positions: 30 * 31 / 2 pairs.
    weights = 2 * (2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 12)
    assert reranking_flops(DECODER, tokens) == 4 * (2 * weights * 30 + 4 * 2 * 8 * 30 * 31 / 2)
    assert reranking_flops(EncoderShape(100, 3, 8, 0, 0), tokens) == 4 * (2 * 100 * 30 + 4 * 3 * 8 * 30 * 30)


def test_shapes_of_cross_encoders(tmp_path):
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(tiny.cross_encoder_folder(tmp_path))
    shape = reranker_shape(encoder)
    assert (shape.num_layers, shape.hidden_size, shape.map_weights) == (4, 24, 0)
    # Each layer: queries, keys and values, their output, a gated feed-forward part; a dense map and the score's head.
    assert shape.body_weights == 4 * (24 * 72 + 24 * 24 + 24 * 64 + 32 * 24) + 24 * 24 + 24


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "olmo2"])
def test_a_decoder_of_any_family_reads_causally(family):
    config = AutoConfig.for_model(family, vocab_size=50, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
                                  num_attention_heads=2, num_key_value_heads=1, head_dim=4, pad_token_id=0,
                                  num_labels=1)
    # What sentence-transformers makes of one: a module around the model, with its config.
    cross_encoder = torch.nn.Sequential(AutoModelForSequenceClassification.from_config(config))
    cross_encoder.config = config
    assert reranker_shape(cross_encoder) == DECODER


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    ScaleDownModel(ScaleDownConfig(tiny.generator_folder(root / "generator"), num_layers=1, num_memory_tokens=2,
                                   enable_reranking=True, keep_threshold=0.0)).save_pretrained(root / "checkpoint")
    return str(root / "checkpoint")


def run(checkpoint, tmp_path, *flags):
    write_records(tmp_path / "records.json", RECORDS)
    argv = ["--checkpoint", checkpoint, "--eval_data", str(tmp_path / "records.json"), "--max_new_tokens", "2",
            "--bootstrap_resamples", "20", *flags]
    return command.main(argv)


def test_the_command_compares_all_pipelines(checkpoint, tmp_path, capsys):
    out = tmp_path / "figures.json"
    assert run(checkpoint, tmp_path, "--keep_documents", "2", "--output_file", str(out),
               "--reranker_model", tiny.cross_encoder_folder(tmp_path / "reranker")) == 0
    rows = json.loads(out.read_text())["pipelines"]
    told = capsys.readouterr().out
    assert len(rows) == 7 and all(name in told for name in rows)
    flops = {name: row["flops"] for name, row in rows.items()}
    text, ours, one_pass = (flops[name] for name in ("cross-encoder, full text", "cross-encoder, ScaleDown",
                                                     "ScaleDown in one pass"))
    assert text["rerank"] == ours["rerank"] > 0 == one_pass["rerank"]
    assert text["compress"] == 0 < ours["compress"] < one_pass["compress"] == flops["ScaleDown, all"]["compress"]
    assert rows["ScaleDown in one pass"]["mean_prompt_tokens"] == rows["BM25, ScaleDown"]["mean_prompt_tokens"]
    assert rows["ScaleDown in one pass"]["mean_prompt_tokens"] < rows["ScaleDown, all"]["mean_prompt_tokens"]
    for row in flops.values():
        assert row["total"] == row["rerank"] + row["compress"] + row["generate"]


def test_without_a_cross_encoder_that_is_said(checkpoint, tmp_path, capsys):
    assert run(checkpoint, tmp_path) == 0
    assert "no --reranker_model" in capsys.readouterr().out


@pytest.mark.parametrize(("flags", "message"), [(["--keep_documents", "0"], "--keep_documents"),
                                               (["--eval_data", "no.json"], "no.json"),
                                                (["--reranker_model", "/not/there"], "--reranker_model")])
def test_a_users_mistake_gets_a_message(flags, message, checkpoint, tmp_path, capsys):
    assert run(checkpoint, tmp_path, *flags) == 2
    assert message in capsys.readouterr().err
