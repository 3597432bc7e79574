"""Results kept one by one: nothing finished is lost, nothing torn is taken for a result."""

from __future__ import annotations

import errno
import os

import pytest

from scaledown.data.storage import append_log
from scaledown.data.storage.append_log import AppendLog, key_of


def test_what_is_kept_is_there_again(tmp_path):
    log = AppendLog(tmp_path)
    log.append([("a", [1.5, "é\n"]), ("b", None)])
    log.append([("c", {"x": []})])
    assert log["a"] == [1.5, "é\n"] and "c" in log and "d" not in log
    log.close()
    again = AppendLog(tmp_path)
    assert len(again) == 3
    assert [again[key] for key in "abc"] == [[1.5, "é\n"], None, {"x": []}]


@pytest.mark.parametrize("torn", [b'{"key": "b", "va', b'{"key": "b", "value": 2}', b"\x00" * 70000, b"\xff"])
def test_a_torn_line_is_no_result_and_is_written_over(tmp_path, torn):
    log = AppendLog(tmp_path)
    log.append([("a", 1)])
    log.close()
    with (tmp_path / "process-00000.jsonl").open("ab") as file:
        file.write(torn)
    other = AppendLog(tmp_path, rank=1)
    assert "a" in other and "b" not in other
    log = AppendLog(tmp_path)
    log.append([("c", 3)])
    assert AppendLog(tmp_path)["c"] == 3
    assert (tmp_path / "process-00000.jsonl").read_bytes().count(b"\n") == 2


def test_a_file_without_any_whole_line_is_emptied(tmp_path):
    (tmp_path / "process-00000.jsonl").write_bytes(b"x" * 200_000)
    assert len(AppendLog(tmp_path)) == 0
    assert (tmp_path / "process-00000.jsonl").stat().st_size == 0


def test_a_damaged_line_counts_as_not_there(tmp_path):
    (tmp_path / "process-00000.jsonl").write_bytes(b'{"key": "a", "value": 1}\n{"k\xff\n[]\n{"key": "c"}\n'
                                                   b'{"key": "b", "value": 2}\n')
    log = AppendLog(tmp_path)
    assert len(log) == 2 and log["b"] == 2


def test_processes_read_what_others_wrote(tmp_path):
    first, second = AppendLog(tmp_path, 0), AppendLog(tmp_path, 1)
    first.append([("a", 1)])
    second.append([("b", 2)])
    assert "b" not in first
    first.refresh()
    assert first["b"] == 2 and len(first) == 2


def test_a_full_disk_is_told_and_leaves_no_half_line(tmp_path, monkeypatch):
    log = AppendLog(tmp_path)
    log.append([("a", 1)])
    write = os.write

    def full_after_three_bytes(file, content):
        if len(content) <= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[:3])

    monkeypatch.setattr(append_log.os, "write", full_after_three_bytes)
    with pytest.raises(ValueError, match="No space left on device.*run the same command again"):
        log.append([("b", 2)])
    monkeypatch.undo()
    assert "b" not in log
    log.append([("c", 3)])
    assert (tmp_path / "process-00000.jsonl").read_text() == '{"key": "a", "value": 1}\n{"key": "c", "value": 3}\n'
    assert AppendLog(tmp_path)["c"] == 3


def test_keys_tell_texts_apart():
    keys = {key_of(), key_of(""), key_of("", ""), key_of("ab"), key_of("a", "b"), key_of("b", "a"), key_of("a1:b")}
    assert len(keys) == 7
    assert all(len(key) == 32 for key in keys)
