"""The work folder: stages are found again, a changed setting remakes what depends on it, and two runs never mix."""

from __future__ import annotations

import json

import pytest

from scaledown.data.storage import fingerprints
from scaledown.data.storage.work_folder import WorkFolder
from scaledown.processes import Processes


@pytest.fixture
def open_folder(tmp_path):
    opened = []

    def open_one():
        while opened:
            opened.pop().close()
        opened.append(WorkFolder(tmp_path / "work", Processes()))
        return opened[0]

    yield open_one
    for folder in opened:
        folder.close()


def make(work, size=1, top_k=2):
    passages = work.stage("passages", {"size": size})
    return passages, work.stage("retrieval", {"top_k": top_k}, [passages])


def test_a_finished_stage_is_found_with_its_report(open_folder):
    work = open_folder()
    for stage in make(work):
        stage.folder.mkdir()
        assert not work.is_finished(stage) and stage.reason is None
        work.spend(stage, 1.5)
        work.finish(stage, {"lines": 3})
    work = open_folder()
    for stage in make(work):
        assert work.is_finished(stage) and work.report(stage) == {"lines": 3} and work.seconds(stage) == 1.5


def test_a_changed_setting_remakes_what_depends_on_it_and_says_so(open_folder):
    before = make(open_folder())
    after = make(open_folder(), top_k=3)
    assert after[0].id == before[0].id and after[0].reason is None
    assert after[1].id != before[1].id and "top_k was 2, is 3" in after[1].reason
    upstream = make(open_folder(), size=5, top_k=3)
    assert "size was 1, is 5" in upstream[0].reason and "a stage before it has changed" in upstream[1].reason
    back = make(open_folder())
    assert [stage.id for stage in back] == [stage.id for stage in before] and back[1].reason is None


def test_a_stage_whose_folder_is_gone_is_not_finished(open_folder):
    work = open_folder()
    stage = make(work)[0]
    work.finish(stage, {})
    assert not work.is_finished(stage)


def test_a_second_run_is_turned_away(open_folder, tmp_path):
    open_folder()
    with pytest.raises(ValueError, match="another run works in it"):
        WorkFolder(tmp_path / "work", Processes())


@pytest.mark.parametrize("content", [
    '{"stages": ', '{"stages": []}', '{"stages": {"a": null}}', '{"stages": {"a": {"stage": "queries"}}}',
    '{"stages": {"a": {"stage": "a", "settings": {}, "inputs": [], "finished": 5, "seconds": 1.0, "report": {}}}}'])
def test_a_damaged_manifest_is_told(open_folder, tmp_path, content):
    make(open_folder())
    (tmp_path / "work" / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json: damaged.*move it away"):
        open_folder()


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        WorkFolder(tmp_path / "file", Processes())


def test_the_manifest_says_what_each_folder_is(open_folder, tmp_path):
    passages, retrieval = make(open_folder())
    entry = json.loads((tmp_path / "work" / "manifest.json").read_text())["stages"][retrieval.id]
    assert entry["stage"] == "retrieval" and entry["settings"] == {"top_k": 2} and entry["inputs"] == [passages.id]


def test_fingerprints_go_by_content(tmp_path, monkeypatch):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"x" * 100)
    second.write_bytes(b"x" * 100)
    assert fingerprints.of_files([first]) == fingerprints.of_files([second])
    second.write_bytes(b"x" * 99 + b"y")
    assert fingerprints.of_files([first]) != fingerprints.of_files([second])
    assert fingerprints.of_files([first, second]) != fingerprints.of_files([second, first])
    monkeypatch.setattr(fingerprints, "WHOLE_BYTES", 10)
    monkeypatch.setattr(fingerprints, "END_BYTES", 10)
    assert fingerprints.of_files([first]) != fingerprints.of_files([second])
    with pytest.raises(ValueError, match="cannot be read"):
        fingerprints.of_files([tmp_path / "c"])


def test_shares_of_processes_are_everything_once():
    items = list(range(10))
    shares = [Processes(rank, 3).share(items) for rank in range(3)]
    assert sorted(sum(shares, [])) == items
