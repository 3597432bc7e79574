"""Scores of a cross-encoder: the model's own logits, in any batch; a killed run goes on; users' mistakes."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch

from scaledown.data.records import Record, read_records, write_records
from scaledown.data.reranking import __main__ as reranking
from scaledown.data.reranking.cross_encoder import Reranker, RerankerConfig, pairs_of
from scaledown.data.storage.append_log import AppendLog, key_of

RECORDS = [Record("a", "who was born in London?", ("Ada Lovelace was born in London in 1815.", "Oslo."), "Ada"),
           Record("b", "capital of Norway?", (), "Oslo"),
           Record("c", "capital?", ("The capital of France is Paris, and that of Norway is Oslo.",), "Paris")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.cross_encoder_folder(tmp_path_factory.mktemp("cross_encoder"))


@pytest.fixture
def data(tmp_path):
    write_records(tmp_path / "records.json", RECORDS)
    return tmp_path / "records.json"


def run(data, model, output, *more):
    return reranking.main(["--train_data", str(data), "--reranker_model", model, "--output_file", str(output), *more])


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_scores_are_the_models_own_logits_longest_pairs_first(model, batch_size):
    reranker = Reranker(RerankerConfig(model, reranker_batch_size=batch_size))
    network, tokenizer = reranker.cross_encoder[0].auto_model, reranker.cross_encoder.tokenizer
    pairs = pairs_of(RECORDS)
    with torch.no_grad():
        wanted = [network(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in pairs]
    found = list(reranker.scores(pairs))
    assert [number for number, _ in found] == [2, 0, 1]
    assert [dict(found)[number] for number in range(3)] == pytest.approx(wanted, abs=1e-5)
    assert not all(0 < score < 1 for score in wanted), "raw logits, where a sigmoid would show"


def test_the_command_adds_scores_and_a_killed_run_goes_on(model, data, tmp_path, monkeypatch):
    assert run(data, model, tmp_path / "whole.json") == 0
    whole = read_records(tmp_path / "whole.json")
    assert [len(record.reranking_scores or ()) for record in whole] == [2, 0, 1]
    assert [record.documents for record in whole] == [record.documents for record in RECORDS]

    scores, asked = Reranker.scores, []

    def killed(self, pairs):
        yield next(scores(self, pairs))
        raise KeyboardInterrupt

    monkeypatch.setattr(Reranker, "scores", killed)
    assert run(data, model, tmp_path / "out.json") == 130
    assert not (tmp_path / "out.json").exists()
    partial = tmp_path / ".out.json.scores" / "process-00000.jsonl"
    partial.write_text(partial.read_text() + '{"key": "torn", "val')
    monkeypatch.setattr(Reranker, "scores", lambda self, pairs: (asked.extend(pairs), scores(self, pairs))[1])
    assert run(data, model, tmp_path / "out.json") == 0
    assert asked == pairs_of(RECORDS)[:2], "the longest was scored before the kill"
    for record, other in zip(read_records(tmp_path / "out.json"), whole, strict=True):
        assert record.reranking_scores == pytest.approx(other.reranking_scores, abs=1e-5)
    assert not partial.parent.exists()


def test_scores_by_another_model_are_not_taken(model, data, tmp_path):
    """Its folder has the same name; what is in it counts."""
    log, (query, document) = AppendLog(tmp_path / ".out.json.scores"), pairs_of(RECORDS)[0]
    log.append([(key_of("another model", query, document), 100.0)])
    log.close()
    assert run(data, model, tmp_path / "out.json") == 0
    assert read_records(tmp_path / "out.json")[0].reranking_scores[0] != 100.0


def test_a_pair_that_comes_twice_is_scored_once(model, tmp_path, monkeypatch):
    record, asked, scores = RECORDS[0], [], Reranker.scores
    twice = [record, dataclasses.replace(record, id="again", documents=record.documents[::-1])]
    write_records(tmp_path / "records.json", twice)
    monkeypatch.setattr(Reranker, "scores", lambda self, pairs: (asked.extend(pairs), scores(self, pairs))[1])
    assert run(tmp_path / "records.json", model, tmp_path / "out.json") == 0
    one, again = read_records(tmp_path / "out.json")
    assert asked == pairs_of([record]) and one.reranking_scores == again.reranking_scores[::-1]


@pytest.mark.parametrize(("name", "message"), [
    ("nobody/nothing", "embedded.reranker"), ("/nowhere/to/be", "no such folder"),
    ("GENERATOR", "not a cross-encoder"), ("TWO", "gives 2 numbers")])
def test_a_model_that_is_none_gets_a_message(name, message, data, tmp_path, capsys):
    made = {"GENERATOR": tiny.generator_folder, "TWO": lambda folder: tiny.cross_encoder_folder(folder, num_labels=2)}
    name = made[name](tmp_path / "model") if name in made else name
    assert run(data, name, tmp_path / "out.json") == 2
    error = capsys.readouterr().err
    assert message in error and "--reranker_model" in error
    assert not list(tmp_path.glob("*out.json*"))


def test_a_batch_size_below_one_is_refused(data, model, tmp_path, capsys):
    assert run(data, model, tmp_path / "out.json", "--reranker_batch_size", "0") == 2
    assert "--reranker_batch_size" in capsys.readouterr().err
