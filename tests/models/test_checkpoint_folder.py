"""Where a checkpoint or a merged generator is written: no other model is destroyed, no part of an old one stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.models import merge
from scaledown.models.loading.pretrained import load_generator_tokenizer

LONG_NAME = "x" * 300


def build(generator: str, **settings: object) -> ScaleDownModel:
    return ScaleDownModel(ScaleDownConfig(generator_model=generator, lora_rank=4, **settings))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def generator(tmp_path: Path) -> str:
    return tiny.generator_folder(tmp_path / "generator")


def test_no_file_of_another_model_is_touched(generator: str, tmp_path: Path) -> None:
    model, before = build(generator), contents(Path(generator))
    with pytest.raises(ValueError, match="generator: holds another model .a llama, .*give a folder of its own"):
        model.save_pretrained(generator)
    for write in (model.merge, model.save_adapter):
        with pytest.raises(ValueError, match="generator: holds a model already .config.json.*give a new or empty"):
            write(generator)
    assert contents(Path(generator)) == before
    assert [path.name for path in tmp_path.iterdir()] == ["generator"]


def test_neither_is_a_checkpoint_replaced_by_a_merged_generator_or_an_adapter(generator: str, tmp_path: Path) -> None:
    model = build(generator)
    model.save_pretrained(tmp_path / "checkpoint")
    before = contents(tmp_path / "checkpoint")
    for write in (model.merge, model.save_adapter):
        with pytest.raises(ValueError, match="checkpoint: holds a model already"):
            write(tmp_path / "checkpoint")
    assert contents(tmp_path / "checkpoint") == before


def test_nothing_of_an_old_checkpoint_stays_but_the_users_own_files(generator: str, tmp_path: Path) -> None:
    encoder = tiny.encoder_folder(tmp_path / "encoder")
    folder = tmp_path / "checkpoint"
    build(generator, compressor_type="modernbert", compressor_model=encoder, mlp_width=16).save_pretrained(folder)
    (folder / "tokenizer" / "added_tokens.json").write_text("{}")
    (folder / "notes.txt").write_text("my own")
    (folder / "compressor" / "mine").mkdir()
    (folder / "compressor" / "mine" / "old.json").write_text("{}")

    text_model = build(generator, compressor_type="none")
    text_model.save_pretrained(folder)
    text_model.save_pretrained(tmp_path / "new")
    assert contents(folder).keys() == contents(tmp_path / "new").keys() | {"notes.txt"}
    assert ScaleDownModel.from_pretrained(folder).config.reads_text


@pytest.mark.parametrize(("name", "message"), [
    ("file", "file: is a file, expected a folder"), ("file/inside", "folder .*file.*: this folder cannot be made"),
    (LONG_NAME, "cannot be (written|made) .File name too long"),
    (f"{LONG_NAME}/x", "cannot be made .File name too long"),
])
def test_a_name_that_can_be_no_folder_is_refused(generator: str, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    model = build(generator)
    for write in (model.save_pretrained, model.merge, model.save_adapter):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / name)


@pytest.mark.parametrize("name", ["file", "file/inside", LONG_NAME])
def test_merge_refuses_such_a_name_before_it_loads_the_model(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(ScaleDownModel, "from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    assert merge.main(["--checkpoint", "embedded", "--output_dir", str(tmp_path / name)]) == 2
    told = capsys.readouterr().err
    assert "--output_dir" in told and name in told and "Traceback" not in told


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version":', "null", "5"])
def test_a_damaged_tokenizer_is_named_by_its_folder(tmp_path: Path, name: str, text: str) -> None:
    folder = tmp_path / "tokenizer"
    tiny.tokenizer().save_pretrained(folder)
    (folder / name).write_text(text)
    # Some settings may be missing; whatever cannot be read is named.
    try:
        load_generator_tokenizer(ScaleDownConfig(), tmp_path)
    except ValueError as fault:
        assert f"{folder}: its tokenizer cannot be read" in str(fault)
    else:
        assert (name, text) == ("tokenizer_config.json", "{}")


def test_an_adapter_names_a_local_generator_as_a_checkpoint_does(generator: str, tmp_path: Path) -> None:
    model = build(generator)
    model.save_pretrained(tmp_path / "checkpoint")
    ScaleDownModel.from_pretrained(tmp_path / "checkpoint").save_adapter(tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "../generator"
