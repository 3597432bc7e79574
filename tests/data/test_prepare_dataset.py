"""The pipeline from queries to records: resumed after kills, remade where settings changed, and clear about faults.

``RELIABILITY=full python -m pytest tests/data/test_prepare_dataset.py`` kills up to twenty times, otherwise six.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import time
from collections import Counter
from pathlib import Path

import pytest
import tiny_encoders
from pipeline_fakes import FakeReranker, FakeTeacher, start

from scaledown.data.pipeline.queries import Query
from scaledown.data.pipeline.stages import finding, teacher_answers
from scaledown.data.pipeline.stages.writing import split_queries
from scaledown.data.pipeline.trec import read_run
from scaledown.data.prepare_dataset.__main__ import main
from scaledown.data.records import eval_path, read_records
from scaledown.data.storage import append_log

SYNTHETIC = ["--num_synthetic_queries", "24", "--seed", "7"]
KILLS = 20 if os.environ.get("RELIABILITY") == "full" else 6
LONGEST_SECONDS = 240
CHUNK = 4
"""Items that two processes are handed at a time."""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What the teacher was asked, over all runs."""
    path = tmp_path / "asked"
    monkeypatch.setattr(teacher_answers, "load_teacher", lambda config: FakeTeacher(path))
    monkeypatch.setattr(finding, "Reranker", FakeReranker)
    return path


@pytest.fixture
def flags(tmp_path):
    """Flags for a run with the fakes; what their fingerprints are taken of are any models."""
    reranker = tiny_encoders.cross_encoder(tmp_path / "reranker")
    return [*SYNTHETIC, "--teacher_model", "embedded", "--reranker_model", reranker, "--enable_reranking",
            "--eval_share", "0", "--output_file", str(tmp_path / "out.json")]


def questions_of(asked):
    return asked.read_text().splitlines() if asked.exists() else []


def test_records_are_what_the_stages_say(asked, flags, tmp_path, capsys):
    assert main([*flags, "--top_k_retrieval", "9", "--top_k_reranking", "3"]) == 0
    records = read_records(tmp_path / "out.json")
    assert len(records) == 24
    for record in records:
        assert len(record.documents) == 3 == len(set(record.document_ids))
        assert list(record.reranking_scores) == sorted(record.reranking_scores, reverse=True)
        for document, score in zip(record.documents, record.reranking_scores, strict=True):
            assert score == pytest.approx(len(set(record.query) & set(document)) + len(document) / 997, rel=1e-5)
        assert record.answer == f"{record.query[::-1]} 3" and record.answers[0] not in ("", record.answer)
    out = capsys.readouterr().out
    assert "records: 24" in out and "first 5 found" in out and "read 240 tokens, said 48" in out
    assert [record.id for record in records] != sorted(record.id for record in records)


def test_a_second_run_redoes_nothing_and_a_changed_setting_only_what_depends_on_it(asked, flags, tmp_path, capsys):
    assert main(flags) == 0
    first, before = (tmp_path / "out.json").read_bytes(), len(questions_of(asked))
    capsys.readouterr()
    assert main(flags) == 0
    out = capsys.readouterr().out
    assert len(questions_of(asked)) == before == 24 and (tmp_path / "out.json").read_bytes() == first
    assert out.count("24 of them") == 3 and "made again" not in out and "cutting" not in out
    assert main([*flags, "--top_k_reranking", "2"]) == 0
    out = capsys.readouterr().out
    assert "made again" not in out and "24 of them done before" in out and len(questions_of(asked)) == 48
    assert main([*flags, "--top_k_retrieval", "6"]) == 0
    out = capsys.readouterr().out
    assert "retrieval: made again: top_k_retrieval was 20, is 6" in out and "passages: made again" not in out
    assert main(flags) == 0
    assert (tmp_path / "out.json").read_bytes() == first


def test_more_queries_ask_only_for_what_is_new(asked, flags, tmp_path):
    assert main([*flags, "--max_queries", "10"]) == 0
    assert len(questions_of(asked)) == 10
    assert main(flags) == 0
    assert len(questions_of(asked)) == 24 == len(set(questions_of(asked)))


def test_the_trec_run_is_of_this_run_s_queries_though_all_were_searched_before(asked, flags, tmp_path):
    flags = [*flags, "--last_stage", "retrieval"]
    assert main(flags) == 0
    found, = (tmp_path / "out_work").glob("retrieval-*/found.run")
    whole = found.read_bytes()
    found.unlink()  # as after a kill before it was written
    assert main(flags) == 0
    assert found.read_bytes() == whole
    assert main([*flags, "--max_queries", "10"]) == 0
    assert len(read_run(found)) == 10


def both_halves(path):
    return path, eval_path(path)


def test_the_evaluation_half_is_drawn_by_the_seed_and_not_trained_on(asked, flags, tmp_path, capsys):
    assert main(flags) == 0
    train, evaluation = both_halves(tmp_path / "out.json")
    everything = {record.id: record for record in read_records(train)}
    assert not evaluation.exists()
    drawn = []
    for seed in ("7", "7", "8"):
        assert main([*flags, "--eval_share", "0.3", "--seed", seed]) == 0
        halves = [read_records(path) for path in (train, evaluation)]
        assert [len(half) for half in halves] == [17, 7]
        both = [*halves[0], *halves[1]]
        assert len({record.id for record in both}) == 24
        drawn.append([record.id for record in halves[1]])
        if seed == "7":
            assert all(everything[record.id] == record for record in both)
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(questions_of(asked)) == len({*questions_of(asked)})
    assert main([*flags, "--eval_share", "1"]) == 2
    assert "--eval_share" in capsys.readouterr().err


def test_damaged_queries_in_the_work_folder_are_named(asked, flags, tmp_path, capsys):
    assert main([*flags, "--last_stage", "queries"]) == 0
    path, = (tmp_path / "out_work").glob("queries-*/queries.jsonl")
    for content in ('{"id": "a"', '{"id": "a"}', "[]", '{"id": "a", "text": "b", "answers": 5}'):
        path.write_text(content)
        assert main([*flags, "--last_stage", "queries"]) == 2
        assert f"{path}: damaged" in capsys.readouterr().err


def test_equal_queries_stay_in_one_half():
    queries = []
    for i in range(12):
        guises = (f"what is {i}", f"What is {i}?", f"what  is {i} .")
        queries += [Query(f"{i} {guise}", text) for guise, text in enumerate(guises)]
    for seed in range(3):
        train, evaluation = split_queries(queries, 0.1, seed)
        assert len(train) == 27 and len(evaluation) == 9
        assert not {query.id.split()[0] for query in train} & {query.id.split()[0] for query in evaluation}


@pytest.mark.parametrize("share", ["0", "0.01"])
def test_records_without_an_evaluation_half_never_lie_beside_one_of_others(asked, flags, tmp_path, capsys, share):
    assert main([*flags, "--eval_share", "0.3"]) == 0
    before = [path.read_bytes() for path in both_halves(tmp_path / "out.json")]
    assert main([*flags, "--eval_share", share]) == 2
    assert "out_eval.json: would be taken for the evaluation half" in capsys.readouterr().err
    assert [path.read_bytes() for path in both_halves(tmp_path / "out.json")] == before


def test_stages_one_after_another_are_the_whole(asked, flags, tmp_path):
    assert main([*flags, "--work_dir", str(tmp_path / "a"), "--output_file", str(tmp_path / "a.json")]) == 0
    for stage in ("queries", "passages", "index", "retrieval", "reranking", "teacher"):
        assert main([*flags, "--last_stage", stage]) == 0
        assert not (tmp_path / "out.json").exists()
    assert main(flags) == 0
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "a.json").read_bytes()


def run_and_kill(flags: list[str], asked: Path, seconds: float) -> bool:
    """Run in a process of its own and kill it after ``seconds``; whether it had come to its end."""
    with start(flags, asked, pause_seconds=0.01) as process:
        time.sleep(seconds)
        process.kill()
    return process.returncode == 0


def test_killed_at_random_moments_the_records_are_the_same(asked, flags, tmp_path):
    flags += ["--num_synthetic_queries", "60", "--top_k_retrieval", "10", "--eval_share", "0.2"]
    begin = time.monotonic()
    assert main(flags) == 0
    whole, expected = time.monotonic() - begin, [path.read_bytes() for path in both_halves(tmp_path / "out.json")]
    asked.unlink()
    rng, num_kills = random.Random(0), 0
    other = [*flags, "--work_dir", str(tmp_path / "killed"), "--output_file", str(tmp_path / "killed.json")]
    while num_kills < KILLS:
        if run_and_kill(other, asked, rng.uniform(0.05, 1.0) * (whole + 0.6) / 3):
            break
        num_kills += 1
    assert num_kills > 3
    assert main(other) == 0
    assert [path.read_bytes() for path in both_halves(tmp_path / "killed.json")] == expected
    # The teacher hands out one answer at a time here: a kill can cost the one in flight.
    assert len(set(questions_of(asked))) == 60 <= len(questions_of(asked)) <= 60 + num_kills


def test_a_full_disk_is_told_and_the_run_goes_on_from_there(asked, flags, tmp_path, monkeypatch, capsys):
    write, room = os.write, [12]

    def fills_up(file, content):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        return write(file, content)

    monkeypatch.setattr(append_log.os, "write", fills_up)
    assert main(flags) == 2
    assert "No space left on device" in capsys.readouterr().err and not (tmp_path / "out.json").exists()
    monkeypatch.setattr(append_log.os, "write", write)
    before = len(questions_of(asked))
    assert main(flags) == 0
    assert 0 < before < 24 and len(questions_of(asked)) == 25
    assert len(read_records(tmp_path / "out.json")) == 24


def test_a_teacher_that_fails_loses_nothing_and_one_without_answer_is_counted(asked, flags, tmp_path, monkeypatch,
                                                                              capsys):
    class Failing(FakeTeacher):
        def answers(self, questions):
            for place, (number, answer) in enumerate(super().answers(questions)):
                if place == 5:
                    raise ValueError("the server is gone")
                yield number, {2: "", 3: f"{answer} \ud83d"}.get(place, answer)

    monkeypatch.setattr(teacher_answers, "load_teacher", lambda config: Failing(asked))
    assert main(flags) == 2
    assert "the server is gone" in capsys.readouterr().err
    monkeypatch.setattr(teacher_answers, "load_teacher", lambda config: FakeTeacher(asked))
    assert main(flags) == 0
    told = capsys.readouterr().out
    assert "1 left out: the teacher had nothing to say" in told
    assert "1 left out: the teacher's answer holds half a surrogate pair" in told
    assert len(questions_of(asked)) == 25 and len(read_records(tmp_path / "out.json")) == 22


def real_corpus(tmp_path):
    """A small corpus with a damaged line, and queries for it."""
    pages = [{"id": f"d{number}", "title": f"Town {number}",
              "text": f"Town {number} lies on river number {number}. " + "Nobody knows more about it. " * 30}
             for number in range(10, 40)]
    corpus, queries = tmp_path / "corpus.jsonl", tmp_path / "queries.jsonl"
    corpus.write_text("\n".join([*map(json.dumps, pages), '{"id": "cut of']))
    queries.write_text("\n".join(json.dumps({"id": f"q{number}", "question": f"Where is Town {number}?", "answers":
                                             [f"river number {number}"]}) for number in range(10, 16)) + "\n\n")
    return ["--queries_file", str(queries), "--corpus_path", str(corpus), "--generator_model", "embedded",
            "--teacher_model", "embedded", "--output_file", str(tmp_path / "real.json")]


def test_a_real_corpus_with_a_damaged_line(asked, tmp_path, capsys):
    flags = real_corpus(tmp_path)
    assert main([*flags, "--strict"]) == 2
    message = capsys.readouterr().err
    assert "1 of 31 lines" in message and "line 31: not valid JSON" in message and "--strict" in message
    assert main(flags) == 0
    out = capsys.readouterr().out
    assert "they are left out" in out and "1 left out: empty" in out
    records = read_records(tmp_path / "real.json")
    assert len(records) == 6 and records[0].reranking_scores is None
    best = {record.id: record.document_ids[0] for record in records}
    assert best == {f"q{number}": f"d{number}-0" for number in range(10, 16)}


def test_words_are_cut_to_what_the_student_reads(asked, tmp_path):
    from scaledown import hub

    flags = [*real_corpus(tmp_path), "--passage_words", "50", "--passage_tokens", "20"]
    assert main(flags) == 0
    tokenizer = hub.load_tokenizer("embedded")
    for record in read_records(tmp_path / "real.json"):
        lengths = [len(tokenizer(document, add_special_tokens=False).input_ids) for document in record.documents]
        assert max(lengths) == 20


def test_a_run_of_another_engine(asked, tmp_path, capsys):
    flags = [*real_corpus(tmp_path), "--retriever", "run", "--run_file", str(tmp_path / "x.run")]
    (tmp_path / "x.run").write_text("q11 Q0 d17-0 1 3 x\nq11 Q0 d18-1 2 4 x\nq12 Q0 d12-0 1 1 x\n")
    assert main(flags) == 0
    assert "4 left out: no passage was found for them" in capsys.readouterr().out
    found = {record.id: record.document_ids for record in read_records(tmp_path / "real.json")}
    assert found == {"q11": ("d18-1", "d17-0"), "q12": ("d12-0",)}
    (tmp_path / "x.run").write_text("q11 Q0 nowhere 1 3 x\n")
    assert main(flags) == 2
    assert "not in the corpus, such as nowhere; expected ids such as d10-0" in capsys.readouterr().err
    (tmp_path / "x.run").write_text("z Q0 d11-0 1 3 x\n")
    assert main(flags) == 2
    assert "not one of its queries" in capsys.readouterr().err


@pytest.mark.parametrize("retriever", ["dense", "splade"])
def test_encoders_go_the_same_way(asked, tmp_path, retriever):
    if retriever == "splade":
        pytest.importorskip("seismic")
    model = getattr(tiny_encoders, retriever)(tmp_path / "model")
    assert main([*real_corpus(tmp_path), "--retriever", retriever, "--retriever_model", model]) == 0
    assert all(len(record.documents) == 5 for record in read_records(tmp_path / "real.json"))


def test_hybrid_searches_the_indexes_of_both_its_parts_and_makes_neither_twice(asked, tmp_path, capsys):
    model = ["--retriever_model", tiny_encoders.dense(tmp_path / "model")]
    # A page is one passage: 30, so 90 asks for the whole rankings.
    flags = [*real_corpus(tmp_path), "--last_stage", "retrieval", "--top_k_retrieval", "90", "--passage_words", "400"]
    runs, work = {}, tmp_path / "real_work"
    for retriever, indexed in (("bm25", ["bm25"]), ("hybrid", ["dense"]), ("dense", [])):
        before = set(work.glob("retrieval-*"))
        assert main([*flags, "--retriever", retriever, *(model if retriever != "bm25" else [])]) == 0
        out = capsys.readouterr().out
        assert re.findall(r"index: .* for (\w+) into", out) == indexed and "index: made again" not in out
        folder, = set(work.glob("retrieval-*")) - before
        runs[retriever] = read_run(folder / "found.run")

    for query, fused in runs["hybrid"].items():
        wanted = Counter()
        for part in ("bm25", "dense"):
            wanted.update({name: 1 / (60 + rank) for rank, name in enumerate(runs[part][query], 1)})
        assert fused == pytest.approx(dict(wanted), rel=1e-5) and len(fused) == 30


@pytest.mark.parametrize(("flags", "message"), [
    ([], "not none"), (["--num_synthetic_queries", "3", "--corpus_path", "x"], "leave out --corpus_path"),
    (["--queries_file", "x"], "--corpus_path is missing"), ([*SYNTHETIC, "--passage_tokens", "3"], "--passage_tokens"),
    ([*SYNTHETIC, "--last_stage", "reranking"], "needs --enable_reranking"),
    ([*SYNTHETIC, "--top_k_reranking", "0"], "--top_k_reranking"),
    ([*SYNTHETIC, "--generator_model", "nobody/nothing"], "nobody/nothing"),
    ([*SYNTHETIC, "--retriever", "dense", "--retriever_model", "nobody/nothing"], "--retriever bm25"),
    (["--queries_file", "none.txt", "--corpus_path", "none.jsonl"], "none.txt: no such file\n--corpus_path none.jsonl"),
    ([*SYNTHETIC, "--teacher_model", "nobody/nothing"], "--teacher_url")])
@pytest.mark.parametrize("dry", [[], ["--dry_run"]], ids=["run", "dry_run"])
def test_a_users_mistake_gets_a_message_and_leaves_nothing(flags, message, dry, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*flags, *dry]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == []


def test_the_plan_has_every_stage_and_writes_nothing(asked, flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("scaledown.data.pipeline.plan.load_teacher", lambda config: FakeTeacher(tmp_path / "plan"))
    monkeypatch.setattr("scaledown.data.pipeline.plan.Reranker", FakeReranker)
    assert main([*flags, "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["queries", "passages", "index", "retrieval", "reranking",
                                                       "teacher", "records", "together", "records:"]
    assert "about 120 from 120 pages" in lines[3] and "480 pairs" in lines[6]
    assert not (tmp_path / "out.json").exists() and not (tmp_path / "out_work").exists()


def test_the_plan_of_hybrid_has_both_its_indexes(tmp_path, capsys):
    model = tiny_encoders.dense(tmp_path / "model")
    flags = [*SYNTHETIC, "--retriever", "hybrid", "--retriever_model", model, "--last_stage", "retrieval", "--work_dir",
             str(tmp_path / "work")]
    assert main([*flags, "--dry_run"]) == 0
    indexes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("index")]
    assert len(indexes) == 2 and "for bm25" in indexes[0] and f"encoded by {model}" in indexes[1]


def run_as_two(flags: list[str], asked: Path, port: int) -> list[int | None]:
    """Run in two processes that know of each other, as a launcher starts them; their exit codes, None if one hangs."""
    children = [start(flags, asked.with_suffix(f".{rank}"), chunk=CHUNK, WORLD_SIZE="2", RANK=str(rank),
                      LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)) for rank in range(2)]
    end = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < end and any(child.poll() is None for child in children):
        time.sleep(0.05)
    codes = [child.poll() for child in children]
    for child in children:
        child.kill()
        child.communicate()
    return codes


@pytest.mark.parametrize("retriever", ["bm25", "hybrid"])
def test_two_processes_share_the_work_and_give_the_same_records(asked, tmp_path, retriever):
    flags = [*SYNTHETIC, "--enable_reranking", "--reranker_model", tiny_encoders.cross_encoder(tmp_path / "reranker"),
             "--teacher_model", "embedded", "--output_file", str(tmp_path / "two.json")]
    if retriever != "bm25":
        flags += ["--retriever", retriever, "--retriever_model", tiny_encoders.dense(tmp_path / "model")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert run_as_two(flags, asked, port) == [0, 0]
    one = [*flags, "--output_file", str(tmp_path / "one.json"), "--work_dir", str(tmp_path / "one")]
    assert main(one) == 0
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    shares = [questions_of(asked.with_suffix(f".{rank}")) for rank in range(2)]
    assert [len(share) for share in shares] == [12, 12] and len({*shares[0], *shares[1]}) == 24
    for name in ("retrieval", "reranking"):
        logs = list((tmp_path / "two_work").glob(f"{name}-*/process-*.jsonl"))
        assert len(logs) == 2 and all(path.stat().st_size for path in logs)
