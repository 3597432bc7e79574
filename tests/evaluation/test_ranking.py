"""Ranking metrics against hand-made values and ir-measures; tasks from every source; the command and its mistakes."""

from __future__ import annotations

import json
import math

import ir_measures
import numpy as np
import pytest
import tiny
import tiny_encoders
from ir_measures import RR, R, nDCG
from sentence_transformers import SentenceTransformer

import example_dataset_generation
from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.data.pipeline.retrieval.vectors import load_bi_encoder
from scaledown.data.pipeline.trec import read_qrels, read_run, write_qrels
from scaledown.data.records import Record, eval_path, read_records, write_records
from scaledown.data.world.candidates import qrels_of, ranking_records
from scaledown.evaluation.ranking import __main__ as ranking
from scaledown.evaluation.ranking import rankings
from scaledown.evaluation.ranking.ranking_input import RankingInput
from scaledown.evaluation.ranking.ranking_task import Collection, RankingTask, of_records, read_texts
from scaledown.evaluation.ranking.rankings import score_ranking

QRELS = {"ties": {"d1": 1, "d2": 0, "d3": 2}, "missing": {"d1": 1}, "nothing": {"d1": 0}, "unjudged": {"d1": 1}}
RUN = {"ties": {"d1": 1.0, "d2": 1.0, "d3": 1.0, "d0": 2.0}, "nothing": {"d1": 1.0}, "stranger": {"d1": 1.0},
       "unjudged": {"x": 3.0, "d1": 2.0, "y": 1.0}}


def test_scores_are_those_of_hand_and_of_ir_measures():
    found = score_ranking(QRELS, RUN, num_resamples=50, seed=0, recall_at=(1, 2))
    # Ties come by falling id: d0, d3, d2, d1. d3 has grade 2 at rank 2, d1 has grade 1 at rank 4.
    ties = (2 / math.log2(3) + 1 / math.log2(5)) / (2 + 1 / math.log2(3))
    assert found.means["nDCG@10"] == pytest.approx((ties + 0 + 0 + 1 / math.log2(3)) / 4)
    assert found.means["RR@10"] == pytest.approx((1 / 2 + 0 + 0 + 1 / 2) / 4)
    assert found.means["R@1"] == 0 and found.means["R@2"] == pytest.approx((1 / 2 + 1) / 4)
    wanted = ir_measures.calc_aggregate([nDCG @ 10, RR @ 10, R @ 1, R @ 2], QRELS, RUN)
    assert found.means == pytest.approx({str(measure): value for measure, value in wanted.items()})
    assert found.num_queries == 4 and all(low <= found.means[name] <= high for name, (low, high) in found.ci95.items())


def test_all_measures_break_ties_alike():
    """The id that sorts last comes first: b, which is not judged, then a; of scores equal in single precision too."""
    for scores in ({"a": 1.0, "b": 1.0}, {"a": 1.0 + 1e-12, "b": 1.0}):
        found = score_ranking({"q": {"a": 1}}, {"q": scores}, num_resamples=10, seed=0)
        assert found.means["R@1"] == 0 and found.means["R@5"] == 1
        assert found.means["RR@10"] == 0.5
        assert found.means["nDCG@10"] == pytest.approx(1 / math.log2(3))


def test_documents_that_hold_the_answer_are_relevant_where_nobody_judged():
    records = [Record("a", "who?", ("It was Ada.", "Adam it was.", "ada!"), "Ada", document_ids=("x", "y", "z")),
               Record("b", "is it?", ("yes", "no"), "yes")]
    task = of_records(records)
    assert task.qrels == {"a": {"x": 1, "y": 0, "z": 1}, "b": {"0": 0, "1": 0}}
    assert task.candidates["b"] == {"0": "yes", "1": "no"}
    with pytest.raises(ValueError, match="judge none of the 2 records"):
        of_records(records, {"q": {"x": 1}})
    with pytest.raises(ValueError, match="two documents of one id"):
        of_records([Record("a", "?", ("1", "2"), "1", document_ids=("x", "x"))])


def test_every_field_of_a_collection_that_is_no_text_is_told(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (
        {"_id": "a", "text": "x"}, {"_id": 1, "text": None}, {"_id": "b", "text": "\ud83d", "title": ["T"]})))
    with pytest.raises(ValueError) as fault:
        read_texts(path)
    assert str(fault.value).splitlines() == [
        f"{path}: 4 faults in its lines", "  line 2: _id must be text, got 1", "  line 2: text must be text, got null",
        "  line 3: text must be text, got text with half a surrogate pair, which is no character and cannot be "
        "written as UTF-8", '  line 3: title must be text, got ["T"]']


def test_the_worlds_candidates_are_as_told():
    records = list(ranking_records(60, seed=3))
    assert records == list(ranking_records(60, seed=3))
    qrels = qrels_of(records)
    assert {sum(grades.values()) for grades in qrels.values()} == {1, 2}
    assert {len(record.documents) for record in records} == {20}
    num_silent = 0
    for record in records:
        for name, document, title in zip(record.document_ids, record.documents, record.titles, strict=True):
            if qrels[record.id][name]:
                assert title in record.query and record.answer in document
            elif title in record.query:
                num_silent += 1
    assert num_silent > 20, "documents about the right entity that do not answer"
    assert all(len(record.documents) == 3 for record in ranking_records(20, num_candidates=3))


COLLECTION = Collection({"q": "red fox"}, {"a": "red fox", "b": "blue", "c": "red hen"}, {"q": {"b": 0, "a": 1}})


def test_candidates_of_a_corpus():
    assert list(COLLECTION.judged().candidates["q"]) == ["b", "a"]
    assert list(COLLECTION.found_by_bm25(2).candidates["q"]) == ["a", "c"]
    assert COLLECTION.task({}).candidates == {"q": {}}
    with pytest.raises(ValueError, match="1 candidates are not in the corpus, such as z"):
        COLLECTION.task({"q": ["a", "z"]})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    generator = tiny.generator_folder(folder / "generator")
    config = ScaleDownConfig(generator, num_layers=1, num_memory_tokens=2, enable_reranking=True)
    ScaleDownModel(config).save_pretrained(folder / "checkpoint")
    return str(folder / "checkpoint")


@pytest.fixture
def beir(tmp_path):
    (tmp_path / "qrels").mkdir()
    corpus = [{"_id": "a", "title": "Fox", "text": "a red one"}, {"_id": "b", "title": "", "text": "blue whale"}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "fox"}) + '\n{"_id": "p", "text": "?"}')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    return tmp_path


def test_the_command_on_a_beir_folder_with_a_teacher(checkpoint, beir, tmp_path, capsys):
    reranker = tiny.cross_encoder_folder(tmp_path / "reranker")
    out, run = tmp_path / "figures.json", tmp_path / "run.trec"
    assert ranking.main(["--checkpoint", checkpoint, "--eval_data", str(beir), "--output_file", str(out),
                         "--output_run", str(run), "--reranker_model", reranker]) == 0
    figures = json.loads(out.read_text())
    assert list(figures["systems"]) == ["order given", "BM25", "teacher", "scaledown"]
    assert figures["systems"]["BM25"]["means"]["nDCG@10"] == 1
    model = ScaleDownModel.from_pretrained(checkpoint)
    _, scores = model.rerank("fox", ["Fox. a red one", "blue whale"])
    assert read_run(run)["q"] == pytest.approx(dict(zip("ab", scores, strict=True)), abs=1e-5)
    assert "1 queries with 2.0 candidates" in capsys.readouterr().out


def test_a_bi_encoder_ranks_by_the_cosine_of_its_vectors(checkpoint, tmp_path):
    folder = tiny_encoders.dense(tmp_path / "encoder")
    candidates = {"q": {"a": "red fox", "b": "blue whale"}, "p": {"b": "blue whale"}, "none": {}}
    task = RankingTask({"q": "fox", "p": "?", "none": "who?"}, candidates, {"q": {"a": 1}})
    run = rankings.bi_encoder(task, load_bi_encoder(folder))
    assert {query: list(scores) for query, scores in run.items()} == {"q": ["a", "b"], "p": ["b"], "none": []}

    model = SentenceTransformer(folder, device="cpu")
    query, fox, whale = model.encode(["fox", "red fox", "blue whale"])
    wanted = [vector @ query / np.linalg.norm(vector) / np.linalg.norm(query) for vector in (fox, whale)]
    assert list(run["q"].values()) == pytest.approx(wanted, abs=1e-5)

    out = tmp_path / "figures.json"
    assert ranking.main(["--checkpoint", checkpoint, "--eval_examples", "3", "--num_candidates", "5", "--bi_encoder",
                         folder, "--output_file", str(out)]) == 0
    systems = json.loads(out.read_text())["systems"]
    assert list(systems) == ["order given", "BM25", "bi-encoder", "scaledown"]


def test_the_command_ranks_a_run_of_anothers_again(checkpoint, beir, tmp_path):
    (tmp_path / "run").write_text("q Q0 b 1 9.5 other\nq Q0 a 2 9.0 other\nunjudged Q0 a 1 1 other\n")
    out = tmp_path / "figures.json"
    assert ranking.main(["--checkpoint", checkpoint, "--eval_data", str(beir), "--run_file", str(tmp_path / "run"),
                         "--output_file", str(out)]) == 0
    assert json.loads(out.read_text())["systems"]["order given"]["means"]["RR@10"] == 0.5


def test_the_command_on_records_with_the_teachers_scores_and_qrels(checkpoint, tmp_path, capsys):
    records = [Record(str(number), "who?", ("Ada", "Bob", "Eve")[:number], "Ada",
                      reranking_scores=(3.0, 2.0, 1.0)[:number]) for number in (1, 3)]
    write_records(tmp_path / "records.json", records)
    write_qrels(tmp_path / "qrels", {"1": {"0": 1}, "3": {"0": 1}})
    assert ranking.main(["--checkpoint", checkpoint, "--eval_data", str(tmp_path / "records.json"),
                         "--qrels_file", str(tmp_path / "qrels")]) == 0
    teacher = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("teacher"))
    assert teacher.split()[1] == "1.000"


def test_ids_that_no_run_can_have_are_told_before_the_work(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rankings, "scaledown", lambda *_: pytest.fail("ranked before the ids were looked at"))
    write_records(tmp_path / "records.json", [Record("1", "who?", ("Ada",), "Ada", document_ids=("Ada Lovelace",))])
    assert ranking.main(["--checkpoint", checkpoint, "--eval_data", str(tmp_path / "records.json"), "--output_run",
                         str(tmp_path / "run")]) == 2
    assert "'Ada Lovelace' is not allowed in a TREC file" in capsys.readouterr().err


def test_the_embedded_world_needs_no_data(checkpoint, capsys):
    assert ranking.main(["--checkpoint", checkpoint, "--eval_examples", "3", "--num_candidates", "5"]) == 0
    assert "the embedded world: 3 queries with 5.0 candidates" in capsys.readouterr().out
    task, teacher = RankingInput(eval_examples=2).read()
    assert task.num_candidates == 20 and not teacher, "relevance known by construction is no teacher"


@pytest.mark.parametrize(("flags", "message"), [
    (["--eval_data", "nowhere.json"], "nowhere.json"), (["--num_candidates", "0"], "--num_candidates"),
    (["--corpus_path", "x"], "--corpus_path, --queries_file and --qrels_file go together"), (["--judged"], "--judged"),
    (["--eval_data", ".", "--run_file", "x", "--judged"], "give one"), (["--eval_data", "."], "corpus.jsonl"),
    (["--corpus_path", "x", "--queries_file", "y", "--qrels_file", "z", "--eval_data", "w"], "give one"),
    (["--bi_encoder", "/nowhere/at/all"], "--bi_encoder"),
    (["--reranker_model", "/nowhere/at/all"], "--reranker_model"), (["--checkpoint", "/nowhere/at/all"], "no such"),
])
def test_a_users_mistake_gets_a_message(flags, message, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert ranking.main(["--checkpoint", checkpoint, *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_without_a_head_is_told_before_the_work(tmp_path, capsys):
    config = ScaleDownConfig(tiny.generator_folder(tmp_path / "generator"), num_layers=1, num_memory_tokens=2)
    ScaleDownModel(config).save_pretrained(tmp_path / "plain")
    assert ranking.main(["--checkpoint", str(tmp_path / "plain"), "--eval_examples", "2"]) == 2
    told = capsys.readouterr()
    assert "--enable_reranking" in told.err and not told.out


def test_ranking_records_and_their_qrels_are_written_together(tmp_path, capsys):
    path = tmp_path / "world.json"
    assert example_dataset_generation.main(["--ranking", "--num_examples", "5", "--output_file", str(path)]) == 0
    for half in (path, eval_path(path)):
        records, qrels = read_records(half), read_qrels(half.with_name(f"{half.stem}_qrels.txt"))
        assert {len(record.documents) for record in records} == {20} and qrels == qrels_of(records)
    assert str(path) in capsys.readouterr().out
