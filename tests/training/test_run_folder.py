from __future__ import annotations

import argparse
import json
import shutil

import pytest

from scaledown.training import checkpoints
from scaledown.training.presets.run_settings import parse_or_resume
from scaledown.training.run_folder import claimed

RUN = {"settings": {"seed": 1, "device": "cpu"}, "commit": None}


def claim(folder, run, **flags):
    """A run that ends as soon as it has the folder; what it would go on from."""
    with claimed(folder, run, **flags) as last:
        return last


def checkpoint(folder, step, is_whole=True):
    draft = folder / checkpoints.DRAFT / f"checkpoint-{step}"
    draft.mkdir(parents=True)
    (draft / "weights").write_text("0123456789")
    if is_whole:
        checkpoints.seal(draft, folder / draft.name)
    return folder / draft.name


def test_a_new_folder_is_made_and_says_what_the_run_is(tmp_path):
    assert claim(tmp_path / "a" / "b", RUN) is None
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text()) == RUN


def test_another_run_is_left_alone(tmp_path):
    claim(tmp_path, RUN)
    with pytest.raises(ValueError, match="--resume.*--overwrite"):
        claim(tmp_path, {"settings": {"seed": 2}})
    assert json.loads((tmp_path / "config.json").read_text()) == RUN


def test_overwrite_removes_the_other_runs_checkpoints(tmp_path):
    claim(tmp_path, RUN)
    path = checkpoint(tmp_path / "checkpoints", 5)
    first_stage = checkpoint(tmp_path / "pretraining", 5)
    (tmp_path / "mine.txt").write_text("keep")
    assert claim(tmp_path, RUN, overwrite=True) is None
    assert not path.exists() and not first_stage.exists() and (tmp_path / "mine.txt").exists()


def test_resume_finds_the_last_whole_checkpoint(tmp_path):
    claim(tmp_path, RUN)
    checkpoint(tmp_path, 9)
    last = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 11, is_whole=False)
    assert claim(tmp_path, RUN, resume=True) == last


@pytest.mark.parametrize("name", ["checkpoint-best", "checkpoint-4-2", "checkpoint-4.old"])
def test_a_copy_of_a_checkpoint_is_the_users(tmp_path, name):
    claim(tmp_path, RUN)
    copy = shutil.copytree(checkpoint(tmp_path, 4), tmp_path / name)

    # A later save keeps one checkpoint, beside the copy.
    draft = tmp_path / checkpoints.DRAFT / "checkpoint-6"
    draft.mkdir(parents=True)
    checkpoints.keep(draft, tmp_path, num_kept=1)
    assert checkpoints.complete(tmp_path) == [tmp_path / "checkpoint-6"] and copy.is_dir()
    assert claim(tmp_path, RUN, resume=True) == tmp_path / "checkpoint-6"

    claim(tmp_path, RUN, overwrite=True)
    assert checkpoints.complete(tmp_path) == [] and copy.is_dir()


@pytest.mark.parametrize(("damage", "message"), [
    (lambda path: (path / "weights").write_text("01234"), "weights was changed or cut short"),
    (lambda path: (path / "weights").write_text("0123456780"), "weights was changed or cut short"),
    (lambda path: (path / "weights").unlink(), "weights is missing"),
    (lambda path: (path / checkpoints.FILES).write_text("{"), "files.json cannot be read")])
def test_a_damaged_checkpoint_is_named_and_the_one_before_offered(tmp_path, damage, message):
    claim(tmp_path, RUN)
    checkpoint(tmp_path / "checkpoints", 9)
    damage(checkpoint(tmp_path / "checkpoints", 10))
    with pytest.raises(ValueError, match=f"checkpoint-10 is damaged: {message}.*go on from checkpoint-9"):
        claim(tmp_path, RUN, resume=True)


def test_resume_before_the_first_checkpoint_starts_anew(tmp_path):
    claim(tmp_path, RUN)
    assert claim(tmp_path, RUN, resume=True) is None


def test_resume_with_other_settings_names_them(tmp_path):
    claim(tmp_path, RUN)
    with pytest.raises(ValueError, match="--seed was 1, is 2"):
        claim(tmp_path, {"settings": {"seed": 2, "device": "cuda"}}, resume=True)
    assert claim(tmp_path, {"settings": {"seed": 1, "device": "cuda"}}, resume=True) is None


def test_a_run_that_met_the_end_of_memory_goes_on_in_smaller_parts(tmp_path):
    claim(tmp_path, {"settings": {"batch_size": 8, "gradient_accumulation_steps": 1}})
    assert claim(tmp_path, {"settings": {"batch_size": 8, "gradient_accumulation_steps": 4}}, resume=True) is None


def test_resume_without_a_run_says_so(tmp_path):
    with pytest.raises(ValueError, match="no run in"):
        claim(tmp_path / "nothing", RUN, resume=True)


def test_resume_and_overwrite_contradict_each_other(tmp_path):
    claim(tmp_path, RUN)
    last = checkpoint(tmp_path, 1)
    with pytest.raises(ValueError, match="give one of them"):
        claim(tmp_path, RUN, overwrite=True, resume=True)
    assert last.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--output_dir .*file/run: this folder cannot be made"):
        claim(tmp_path / "file" / "run", RUN)


def test_a_damaged_config_and_a_file_in_the_way_are_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        claim(tmp_path, RUN, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        claim(tmp_path / "file", RUN)


def test_a_run_with_settings_that_are_gone_goes_on_if_they_were_as_they_are_for_every_run_now(tmp_path):
    claim(tmp_path / "usual", {"settings": {"seed": 1, "pad_to_max": None, "pretrain_learning_rate": 1e-4}})
    assert claim(tmp_path / "usual", RUN, resume=True) is None
    claim(tmp_path / "unusual", {"settings": {"seed": 1, "pad_to_max": True}})
    with pytest.raises(ValueError, match=r"--pad_to_max was True \(gone: every run is now as with its default, None\)"):
        claim(tmp_path / "unusual", RUN, resume=True)


@pytest.mark.parametrize("text", [b"\xff{}", b"[" * 100_000, b'{"settings": []}', b'{"settings": 1}', b"[]"])
def test_a_config_that_is_no_runs_is_damaged(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"config.json is damaged; start again with --overwrite"):
        claim(tmp_path, RUN, resume=True)


@pytest.mark.parametrize("settings", ["[]", "3", "null"])
def test_settings_of_a_measurement_that_are_no_object_are_named(tmp_path, settings):
    (tmp_path / "config.json").write_text(f'{{"settings": {settings}}}')
    parser = argparse.ArgumentParser()
    for flag in ("--resume", "--overwrite"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--output_dir")
    with pytest.raises(ValueError, match="config.json cannot be read"):
        parse_or_resume(parser, ["--resume", "--output_dir", str(tmp_path)])
