"""The builder of the compressors that ship, and its documents of many lengths."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lab.embedded import stage_records
from lab.embedded.compressors import main
from lab.embedded.recipe import AS_FOUND, NEAR, StageSteps
from lab.embedded.stage_records import best_documents, many_documents, mixed_and_best_documents, mixed_documents
from lab.embedded.stages import stages
from scaledown.data.world.candidates import ranking_records
from scaledown.data.world.lengths import of_many_lengths
from scaledown.data.world.synthetic import EASY_SCORE, GOLD_SCORE, synthetic_records
from scaledown.models.loading.parameters import trained
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.choosing import rankings

FEW = ["--many_steps", "1", "--mixed_steps", "3", "--name_steps", "1", "--joint_steps", "1", "--kept_steps", "1",
       "--enable_reranking"]


def test_documents_get_text_about_others_before_or_behind_them_up_to_a_length_of_their_own():
    records = list(synthetic_records(40, seed=1, split="eval"))
    longer = list(of_many_lengths(records, seed=2, share=1.0, longest_words=90, split="eval"))
    grown = []
    for one, other in zip(records, longer, strict=True):
        grown += zip(one.documents, other.documents, strict=True)
    assert all(old in new for old, new in grown)
    assert all(len(new.split()) <= max(90, len(old.split())) for old, new in grown)
    assert {new.startswith(old) for old, new in grown if new != old} == {True, False}
    assert len({len(new.split()) for _, new in grown}) > 30
    assert all(one.answer == other.answer and one.reranking_scores == other.reranking_scores
               for one, other in zip(records, longer, strict=True))
    assert longer == list(of_many_lengths(records, seed=2, share=1.0, longest_words=90, split="eval"))
    assert list(of_many_lengths(records, seed=2, share=0.0)) == records


def test_half_of_the_later_records_are_candidates_and_all_have_scores():
    records = many_documents(90, seed=3)
    assert len(records) == 90 and all(record.reranking_scores for record in records)
    assert 35 <= sum(record.id.startswith("ranking") for record in records) <= 55
    assert {len(record.documents) for record in records} >= {2, 3, 5, 8, 10}


def test_mixed_records_are_half_of_many_kinds_and_half_of_the_usual_one():
    records = mixed_documents(60, seed=3)
    usual = [record for record in records if record.id.startswith("synthetic-train-304-")]
    assert len(records) == 60 and len(usual) == 30
    assert {len(record.documents) for record in usual} == {2, 3, 4, 5, 6}
    assert records != sorted(records, key=lambda record: record.id) and records == mixed_documents(60, seed=3)


@pytest.fixture(scope="module")
def shipped() -> ScaleDownModel:
    return ScaleDownModel.from_pretrained("embedded")


def test_kept_candidates_are_the_models_best_best_first_and_one_is_relevant(shipped):
    records = best_documents(shipped, 18, 3, AS_FOUND)
    drawn = {record.id: record for record in ranking_records(18, seed=503)}
    assert {3, 4, 5, 6} >= {len(record.documents) for record in records} and len(records) == 18
    for record in records[:6]:
        whole = drawn[record.id]
        order, _ = shipped.rerank(whole.query, whole.documents)
        best = [whole.documents[number] for number in order[:len(record.documents)]]
        assert list(record.documents[:-1]) == best[:-1]
        relevant = [score == GOLD_SCORE for score in record.reranking_scores]
        assert any(relevant) and (record.documents[-1] == best[-1] or relevant == [False] * (len(best) - 1) + [True])
        assert [whole.reranking_scores[whole.documents.index(each)] for each in record.documents] == list(
            record.reranking_scores)


def test_a_relevant_document_takes_the_last_place_where_the_model_keeps_none(shipped, monkeypatch):
    def worst_first(memory):
        return [(ranking[::-1], scores) for ranking, scores in rankings(memory)]

    monkeypatch.setattr(stage_records, "rankings", worst_first)
    records = best_documents(shipped, 6, 3, AS_FOUND)
    assert all(GOLD_SCORE in record.reranking_scores for record in records)
    assert sum(record.reranking_scores.index(GOLD_SCORE) == len(record.documents) - 1 for record in records) >= 5


def test_half_of_the_last_records_are_kept_candidates(shipped):
    records = mixed_and_best_documents(shipped, 30, 3, AS_FOUND)
    assert len(records) == 30 and sum(record.id.startswith("ranking-train-503-") for record in records) == 15
    assert records == mixed_and_best_documents(shipped, 30, 3, AS_FOUND)


def test_near_candidates_are_more_and_of_the_kind_of_what_is_asked_for(shipped, monkeypatch):
    drawn = []

    def counted(memory):
        found = rankings(memory)
        drawn.extend(len(scores) for _, scores in found)
        return found

    monkeypatch.setattr(stage_records, "rankings", counted)
    assert len(best_documents(shipped, 4, 3, NEAR)) == 4 and drawn == [30] * 4
    assert not any(EASY_SCORE in record.reranking_scores for record in ranking_records(30, 3, **NEAR))
    assert EASY_SCORE in next(ranking_records(1, 3)).reranking_scores


def test_answers_are_learnt_first_then_scores_then_both(shipped):
    steps = StageSteps(enable_reranking=True, many_steps=2, mixed_steps=1, name_steps=1, joint_steps=1, kept_steps=1)
    all_stages = list(stages(steps))
    names = [stage.name for stage in all_stages]
    assert names == ["lessons", "many", "mixed", "names", "joint", "kept_1", "kept_2", "kept_3"]
    assert [stage.with_scores for stage in all_stages] == [False] * 3 + [True] * 5
    records = {stage.name: stage.records(shipped) for stage in all_stages[1:]}
    assert all(len(each) == 16 for each in records.values())
    assert [stage.training.batch_size for stage in all_stages] == [8] * 2 + [16] * 6
    ids = []
    for name in ("mixed", "joint", "kept_1", "kept_2", "kept_3"):
        ids.append({record.id for record in records[name]})
    assert len(set.union(*ids)) == sum(map(len, ids))
    weights = {stage.name: stage.training.reranking_loss_weight for stage in all_stages}
    assert weights["names"] > weights["kept_1"] == weights["kept_3"] > weights["joint"] > 0
    assert [stage.name for stage in stages(dataclasses.replace(steps, enable_reranking=False))] == names[:3]


def test_the_command_goes_on_stage_by_stage_and_ends_with_a_model_that_scores(tmp_path, capsys, shipped):
    flags = [*FEW, "--init_compressor", "embedded", "--device", "cpu", "--output_dir", str(tmp_path / "out")]
    assert main(flags) == 0
    printed = capsys.readouterr().out
    assert "lessons" not in printed and f"done: {tmp_path / 'out' / 'final'}" in printed
    model, whole = (ScaleDownModel.from_pretrained(tmp_path / "out" / name) for name in ("final", "kept_3/final"))
    for half, weight in zip(trained(model.compressor).values(), trained(whole.compressor).values(), strict=True):
        assert torch.equal(half, weight.half().float())
    order, scores = model.rerank("Who?", ["Ada was born in Oslo.", "Nobody."])
    assert sorted(order) == [0, 1] and len(scores) == 2
    assert not torch.equal(model.compressor.memory_rows, shipped.compressor.memory_rows)
    assert main(flags) == 0
    assert capsys.readouterr().out.count("done already") == 7
    assert main([*flags, "--seed", "7"]) == 2, "a folder of other settings is left alone"
    assert "--seed was 42, is 7" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--many_steps", "--mixed_steps", "--name_steps", "--joint_steps", "--kept_steps"])
def test_steps_below_none_are_refused(flag, capsys):
    assert main([flag, "-1"]) == 2
    assert flag in capsys.readouterr().err


@pytest.mark.parametrize("name", ["embedded", "embedded_modernbert"])
def test_what_ships_answers(name):
    model, records = ScaleDownModel.from_pretrained(name), list(synthetic_records(20, seed=9, split="eval"))
    answers = model.answer([record.query for record in records], [record.documents for record in records],
                           max_new_tokens=16)
    assert sum(answer == record.answer for answer, record in zip(answers, records, strict=True)) >= 15
