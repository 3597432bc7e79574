"""JSON that Python's parser itself gives up on is a fault of the file like any other."""

from __future__ import annotations

import json

import pytest

from scaledown.config import ScaleDownConfig
from scaledown.data.pipeline.queries import read_queries_file
from scaledown.data.records import read_records
from scaledown.data.storage.lines import Faults, json_lines
from scaledown.files import parse_json

TOO_MUCH = {"nested too deeply": "[" * 100_000, "a number with too many digits": "9" * 5_000}


def of_lines(path):
    faults = Faults(path, "lines")
    list(json_lines(path, faults))
    faults.raise_any()


@pytest.mark.parametrize("reason", TOO_MUCH)
@pytest.mark.parametrize("read", [read_records, of_lines, read_queries_file, ScaleDownConfig.load],
                         ids=["records", "lines", "queries", "config"])
def test_what_python_does_not_parse_is_named_with_its_file(read, reason, tmp_path):
    path = tmp_path / ("config.json" if read == ScaleDownConfig.load else "data.jsonl")
    path.write_text(f'{{"query": {TOO_MUCH[reason]}')
    with pytest.raises(ValueError, match=f"(?s){tmp_path}.*{reason}"):
        read(tmp_path if read == ScaleDownConfig.load else path)


def test_other_faults_stay_as_they_are():
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}
    with pytest.raises(json.JSONDecodeError, match="Expecting value: line 2"):
        parse_json('{"a":\n}')
    with pytest.raises(UnicodeDecodeError):
        parse_json(b'"\xff"')


@pytest.mark.parametrize("score", ["1" + "0" * 400, "-1" + "0" * 400, "NaN", "1e400"])
def test_a_score_that_no_float_holds_is_no_score(score, tmp_path):
    path = tmp_path / "data.json"
    path.write_text(f'[{{"query": "q", "documents": ["d"], "answer": "a", "reranking_scores": [{score}]}}]')
    with pytest.raises(ValueError, match="reranking_scores must be a list of finite numbers"):
        read_records(path)


@pytest.mark.parametrize("content", [b"\xff\xfe{}", None])
def test_a_config_that_cannot_be_read_is_named(content, tmp_path):
    path = tmp_path / "config.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="config.json: cannot be read"):
        ScaleDownConfig.load(tmp_path)
