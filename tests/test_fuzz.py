"""Broken records, configs and flags by the thousand: each gets a message and exit code 2, and leaves nothing behind.

Here some hundreds, in seconds; all of them: python -m pytest tests/test_fuzz.py --hypothesis-profile fuzz
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import example_dataset_generation
import prepare_small_real_dataset
import train
import train_with_evaluation
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data import prepare_dataset
from scaledown.data.records import Record
from scaledown.models.model import ScaleDownModel
from scaledown.training import run

SCRIPTS = {"train": train, "train_with_evaluation": train_with_evaluation}
GOOD = {"id": "a", "query": "Who?", "documents": ["Ada wrote it.", "Nobody."], "answer": "Ada", "answers": ["Ada"],
        "reranking_scores": [0.5, -1], "document_ids": ["x", "y"], "titles": ["", "t"]}
GOOD_BYTES = json.dumps([GOOD, GOOD | {"id": "b"}]).encode()


class Accepted(Exception):
    """The input was found good, and the real work would begin."""


@pytest.fixture(autouse=True)
def nothing_heavy(monkeypatch):
    """Cut off what comes once all input was checked."""
    def stop(*arguments, **settings):
        raise Accepted

    monkeypatch.setattr(run, "build_model", stop)
    monkeypatch.setattr(prepare_dataset, "run", stop)
    monkeypatch.setattr(prepare_dataset, "tell_plan", stop)
    monkeypatch.setattr(prepare_small_real_dataset, "prepare", stop)
    monkeypatch.setattr(example_dataset_generation, "write_records", stop)


@contextlib.contextmanager
def a_folder():
    """One folder an example: hypothesis shares pytest's tmp_path among all of them."""
    folder = Path(tempfile.mkdtemp(prefix="scaledown-fuzz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def outcome(main, argv, folder):
    """``main``'s exit code, 0 where the input was accepted; everything else that must hold is asserted."""
    before = sorted(folder.rglob("*"))
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(argv)
        except Accepted:
            code = 0
        except SystemExit as end:  # argparse's own way to refuse a flag
            code = end.code
    message = errors.getvalue()
    assert code in (0, 2), message
    assert sorted(folder.rglob("*")) == before, "something was left behind"
    if code == 2:
        assert "error: " in message and "Traceback" not in message
    return code


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8)


@st.composite
def damaged(draw, good):
    """Bytes that differ from ``good`` in one to four places: cut, changed, doubled, or with something put in."""
    content = draw(st.sampled_from([good] * 8 + [good * 2, b"[" * 10**5, b"9" * 5000]))
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted((draw(st.integers(0, len(content))), draw(st.integers(0, len(content)))))
        put_in = draw(st.binary(max_size=6) | st.sampled_from([b"[", b"{", b'"', b"\\u0000", b"null", b"NaN", b",,"]))
        content = draw(st.sampled_from([content[:start], content[:start] + put_in + content[start:],
                                        content[:start] + content[end:], content[:end] + content[start:]]))
    return content


@given(content=damaged(GOOD_BYTES) | st.binary(max_size=40), name=st.sampled_from(["data.json", "data.jsonl"]),
       script=st.sampled_from(sorted(SCRIPTS)))
def test_damaged_files_of_records(content, name, script):
    with a_folder() as folder:
        (folder / name).write_bytes(content)
        outcome(SCRIPTS[script].main, ["--train_data", str(folder / name), "--output_dir", str(folder / "run")],
                folder)


def is_wrong(field, value):
    """Whether a value is none that this field of a record may have."""
    if field in ("id", "query", "answer"):
        return not isinstance(value, str) and (value is not None or field != "id")
    return not isinstance(value, list) and (value is not None or field == "documents")


@given(field=st.sampled_from([field.name for field in dataclasses.fields(Record)]), value=json_values,
       place=st.integers(0, 3))
@example(field="reranking_scores", value=[10**400, 1], place=0)
def test_a_record_with_a_wrong_value_is_refused(field, value, place):
    assume(is_wrong(field, value) or field == "reranking_scores" and value == [10**400, 1])
    records = [GOOD | {"id": str(number)} for number in range(4)]
    records[place] = records[place] | {field: value}
    with a_folder() as folder:
        (folder / "data.json").write_text(json.dumps(records))
        assert outcome(train.main, ["--train_data", str(folder / "data.json"), "--output_dir", str(folder / "run")],
                       folder) == 2


GOOD_CONFIG = dataclasses.asdict(ScaleDownConfig())


@given(content=damaged(json.dumps(GOOD_CONFIG).encode())
       | st.builds(lambda name, value: json.dumps(GOOD_CONFIG | {name: value}).encode(),
                   st.sampled_from(sorted(GOOD_CONFIG)) | st.text(max_size=8), json_values)
       | json_values.map(lambda value: json.dumps(value).encode()))
@example(content=b"\xff\xfe{}")
@example(content=json.dumps(GOOD_CONFIG | {"train_memory_tokens": ["1", 8]}).encode())
def test_damaged_configs_of_checkpoints(content):
    with pytest.MonkeyPatch.context() as patch, a_folder() as folder:
        patch.setattr(ScaleDownModel, "__init__", lambda self, *arguments, **settings: (_ for _ in ()).throw(Accepted))
        (folder / "config.json").write_bytes(content)
        import example_usage
        outcome(example_usage.main, [str(folder)], folder)


FLAGS = sorted(f"--{field.name}" for cls in (ScaleDownConfig, TrainingConfig) for field in dataclasses.fields(cls))
flag_values = (st.integers(-2, 4).map(str) | st.integers().map(str) | st.floats().map(str) | st.text(max_size=12)
               | st.sampled_from(["", " ", "nan", "inf", "-inf", "1e400", "0x10", "9" * 5_000, "~nobody/x", "../..",
                                  "embedded", "true", "none", "-", "--", "@file", "%s", "{}", "ünï", "a\nb"]))
flag_lines = st.lists(st.tuples(st.sampled_from(FLAGS), flag_values), min_size=1, max_size=4)


@given(line=flag_lines, script=st.sampled_from(sorted(SCRIPTS)))
def test_flags_of_training(line, script):
    with a_folder() as folder:
        (folder / "data.json").write_bytes(GOOD_BYTES)
        argv = ["--train_data", str(folder / "data.json"), "--eval_data", str(folder / "data.json"), "--output_dir",
                str(folder / "run"), *(part for pair in line for part in pair)]
        outcome(SCRIPTS[script].main, argv, folder)


MAKERS = {
    prepare_dataset: ["--num_synthetic_queries", "--top_k_retrieval", "--top_k_reranking", "--max_corpus_size",
                      "--teacher_url", "--index_url", "--faiss_index", "--retriever", "--run_file", "--seed",
                      "--corpus_path", "--teacher_model", "--teacher_concurrency", "--output_file"],
    prepare_small_real_dataset: ["--dataset", "--num_examples", "--num_documents", "--split", "--source", "--seed",
                                 "--generator_model"],
    example_dataset_generation: ["--num_examples", "--seed"],
}
makers = st.sampled_from(list(MAKERS)).flatmap(lambda module: st.tuples(
    st.just(module), st.lists(st.tuples(st.sampled_from(MAKERS[module]), flag_values), min_size=1, max_size=4)))


@given(maker=makers, queries=damaged(b'{"query": "Who?", "id": "1", "answers": ["a"]}\n') | st.none())
def test_flags_and_queries_of_what_makes_records(maker, queries):
    module, line = maker
    argv = [part for pair in line for part in pair]
    with a_folder() as folder, contextlib.chdir(folder):
        if module is prepare_dataset:
            argv = ["--dry_run", "--teacher_model", "embedded", *argv]
            if queries is not None:
                (folder / "queries.jsonl").write_bytes(queries)
                argv += ["--queries_file", "queries.jsonl"]
        outcome(module.main, argv, folder)
