"""Broken files, configs and flags: each gets a message and exit code 2, never a traceback, never half an output.

``RELIABILITY=full python -m pytest tests/test_fuzz.py`` tries 5,000 of them, otherwise 300.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import example_dataset_generation
import prepare_small_real_dataset
import train
import train_with_evaluation
from scaledown.config import ScaleDownConfig
from scaledown.data.prepare_dataset import __main__ as prepare_dataset
from scaledown.data.records import read_records
from scaledown.data.reranking import __main__ as reranking
from scaledown.evaluation.pipelines import __main__ as pipelines
from scaledown.evaluation.ranking import __main__ as ranking
from scaledown.evaluation.ranking import rankings
from scaledown.evaluation.robustness import __main__ as robustness
from scaledown.hub import connection
from scaledown.models.model import ScaleDownModel
from scaledown.training import run

SHARE = 5000 if os.environ.get("RELIABILITY") == "full" else 300
FIELDS = ("id", "query", "documents", "answer", "answers", "reranking_scores", "document_ids", "titles", "question")
GOOD = {"id": "1", "query": "who?", "documents": ["Ada", "Oslo"], "answer": "Ada", "reranking_scores": [1.0, 2.0]}
JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
                    max_leaves=8)
VALUES = st.one_of(st.integers(-10, 10), st.integers(), st.floats(), st.text(max_size=12),
                   st.sampled_from(["nan", "inf", "-1", "0", "1e400", "", " ", "embedded", ".", "\x00"])).map(
                       lambda value: str(value).replace("\ud800", ""))


def fuzz(share: float) -> Callable[[Any], Any]:
    """Settings for so much of the whole."""
    return settings(max_examples=int(SHARE * share), deadline=None, database=None, derandomize=True,
                    suppress_health_check=list(HealthCheck))


def call(main: Callable[[list[str]], int], argv: list[str]) -> tuple[int, str]:
    """Exit code and what was written to standard error; argparse leaves with SystemExit."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(argv)
        except SystemExit as end:
            code = end.code
    return code, said.getvalue()


def refused(main: Callable[[list[str]], int], argv: list[str], output: Path) -> None:
    """It must have said something, and have left nothing."""
    code, said = call(main, argv)
    assert code == 2 and "error: " in said and "Traceback" not in said, (argv, code, said)
    assert not output.exists() or not any(output.iterdir()), list(output.iterdir())


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever passes the checks ends here, as the refusal that a missing model would be."""
    def stop(*arguments: Any, **settings: Any) -> Any:
        raise ValueError("all checks passed")

    for place, name in ((run, "build_model"), (prepare_small_real_dataset, "prepare"),
                        (prepare_small_real_dataset, "require_source"), (prepare_dataset, "run"),
                        (prepare_dataset, "check_needs"), (prepare_dataset, "tell_plan"),
                        (example_dataset_generation, "write_records"), (rankings, "load_scoring_model")):
        monkeypatch.setattr(place, name, stop)
    monkeypatch.setattr(ScaleDownModel, "__init__", stop)
    monkeypatch.setattr(connection, "ask_in_time", lambda name, revision, kind: "the Hub is not asked here.")


@st.composite
def broken_records(draw: st.DrawFn) -> bytes:
    """Records with fields missing, of wrong kinds, of wrong lengths or unknown; or bytes that are no JSON at all."""
    kind = draw(st.sampled_from(["bytes", "text", "json", "field", "unknown", "missing", "cut", "lengths"]))
    record = dict(GOOD)
    if kind == "bytes":
        return draw(st.binary(max_size=60))
    if kind == "text":
        return draw(st.text(max_size=60)).encode("utf-8", "surrogatepass")
    if kind == "json":
        return json.dumps(draw(JSON)).encode()
    if kind == "field":
        record[draw(st.sampled_from(FIELDS[:8]))] = draw(JSON)
    elif kind == "unknown":
        record[draw(st.text(max_size=8))] = draw(JSON)
    elif kind == "missing":
        del record[draw(st.sampled_from(["query", "documents", "answer"]))]
    elif kind == "lengths":
        record["reranking_scores"] = draw(st.lists(st.floats(), max_size=5))
    text = json.dumps([GOOD, record]).encode()
    return text[:draw(st.integers(0, len(text) - 1))] if kind == "cut" else text


@fuzz(0.5)
@given(content=broken_records(), suffix=st.sampled_from([".json", ".jsonl"]))
def test_broken_records_are_refused_or_good(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder) / f"data{suffix}", Path(folder) / "out"
        path.write_bytes(content)
        flags = ["--train_data", str(path), "--device", "cpu", "--output_dir", str(output)]
        refused(train.main, flags, output)
        try:
            records = read_records(path)
        except ValueError as fault:
            assert str(path) in str(fault)
        else:
            assert all(record.query.strip() and isinstance(record.documents, tuple) for record in records)


@fuzz(0.1)
@given(changes=st.dictionaries(st.sampled_from([*ScaleDownConfig.__dataclass_fields__, "new_setting"]), JSON,
                               min_size=1, max_size=3), cut=st.integers(0, 400))
def test_a_broken_config_is_refused_or_good(changes: dict[str, Any], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ScaleDownConfig().save(folder)
        path = Path(folder) / "config.json"
        text = json.dumps(json.loads(path.read_text()) | changes)
        path.write_text(text[:len(text) - cut] if cut > 200 else text)
        try:
            ScaleDownConfig.load(folder)
        except ValueError as fault:
            assert "config" in str(fault) or "--" in str(fault)


COMMANDS = {main.__module__: (main, parser) for main, parser in (
    (train.main, train.build_parser), (train_with_evaluation.main, train_with_evaluation.build_parser),
    (prepare_small_real_dataset.main, prepare_small_real_dataset.build_parser),
    (prepare_dataset.main, prepare_dataset.build_parser), (reranking.main, reranking.build_parser),
    (ranking.main, ranking.build_parser), (pipelines.main, pipelines.build_parser),
    (robustness.main, robustness.build_parser))}


@pytest.mark.parametrize("name", COMMANDS)
@fuzz(0.4 / len(COMMANDS))
@given(data=st.data())
def test_flags_are_refused_or_good(name: str, data: st.DataObject) -> None:
    """Half of the values are of a kind that the flag takes, so that more than the first check is tried."""
    main, build_parser = COMMANDS[name]
    actions = [action for action in build_parser()._actions if "--help" not in action.option_strings]
    argv = []
    for action in data.draw(st.lists(st.sampled_from(actions), min_size=1, max_size=5, unique_by=id)):
        argv.append(data.draw(st.sampled_from(action.option_strings)))
        if action.nargs != 0:
            fitting = st.sampled_from(list(action.choices)) if action.choices else st.integers(-2, 50)
            argv.append(str(data.draw(fitting | VALUES)))
    argv += data.draw(st.sampled_from([[], ["--no_such_flag", "1"]]))
    with tempfile.TemporaryDirectory() as folder:
        here = Path.cwd()
        os.chdir(folder)
        try:
            code, said = call(main, argv)
        finally:
            os.chdir(here)
        assert code == 0 or (code == 2 and "error: " in said and not list(Path(folder).iterdir())), (argv, code, said)
