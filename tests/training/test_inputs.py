"""A run that goes on must read what it read before: each input that changed is named, all of them in one message."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file, save_file

import train
import train_with_evaluation
from scaledown.data.records import read_records, write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.evaluation.robustness import __main__ as robustness
from scaledown.training import run_folder

QUICK = ["--batch_size", "2", "--max_steps", "2", "--save_steps", "1", "--num_memory_tokens", "2",
         "--compression_rate", "8", "--mlp_width", "64", "--device", "cpu"]
MEASURED = ["--eval_examples", "2", "--eval_steps", "1", "--timed_queries", "1", "--max_new_tokens", "2",
            "--bootstrap_resamples", "5"]


def change_records(path: Path) -> None:
    """One record says something else."""
    first, *others = read_records(path)
    write_records(path, [dataclasses.replace(first, answer=f"not {first.answer}"), *others])


def change_weights(path: Path) -> None:
    save_file({name: weight + 0.01 for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})


def change_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "model"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Records, their evaluation half, texts and models."""
    write_records(tmp_path / "data.json", list(synthetic_records(4, seed=3)))
    write_records(tmp_path / "data_eval.json", list(synthetic_records(2, seed=3, split="eval")))
    (tmp_path / "texts.txt").write_text("\n\n".join(record.documents[0] for record in synthetic_records(4, seed=3)))
    tiny.generator_folder(tmp_path / "generator")
    tiny.encoder_folder(tmp_path / "encoder")
    return tmp_path


def flags(place: Path, *more: str) -> list[str]:
    return ["--train_data", str(place / "data.json"), "--generator_model", str(place / "generator"), *QUICK, *more]


def refused(main: object, argv: list[str], capsys: pytest.CaptureFixture) -> str:
    capsys.readouterr()
    assert main([*argv, "--resume"]) == 2
    return capsys.readouterr().err


def test_everything_that_a_run_reads_is_compared_and_named_together(place: Path, capsys: pytest.CaptureFixture) -> None:
    argv = flags(place, "--compressor_type", "modernbert", "--compressor_model", str(place / "encoder"),
                 "--pretrain_steps", "2", "--pretrain_data", str(place / "texts.txt"), "--output_dir",
                 str(place / "run"))
    assert train.main(argv) == 0
    before = {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()}
    shutil.rmtree(place / "run" / "pretraining")
    change_records(place / "data.json")
    change_records(place / "data_eval.json")
    change_weights(place / "encoder" / "model.safetensors")
    change_template(place / "generator")
    (place / "texts.txt").write_text((place / "texts.txt").read_text() + " and more")
    # Other settings are told before anything is read.
    assert "other settings: --seed was 42, is 7" in refused(train.main, [*argv, "--seed", "7"], capsys)
    told = refused(train.main, argv, capsys)
    assert "other inputs: " in told
    for flag, name in (("train_data", "data.json"), ("eval_data", "data_eval.json"), ("generator_model", "generator"),
                       ("compressor_model", "encoder"), ("pretrain_data", "texts.txt")):
        assert f"--{flag} {place / name} has changed" in told
    assert all(path.read_bytes() == content for path, content in before.items() if path.exists())


@pytest.mark.parametrize("script", [train, train_with_evaluation], ids=["train", "train_with_evaluation"])
def test_each_script_compares_its_records(script: object, place: Path, capsys: pytest.CaptureFixture) -> None:
    argv = flags(place, "--output_dir", str(place / "run"), *(MEASURED if script is train_with_evaluation else []))
    assert script.main(argv) == 0
    change_records(place / "data.json")
    told = refused(script.main, argv, capsys)
    assert f"--train_data {place / 'data.json'} has changed" in told and "eval_data" not in told
    write_records(place / "data.json", synthetic_records(4, seed=3))  # the same again: only what it says counts
    assert script.main([*argv, "--resume"]) == 0


def test_an_evaluation_half_that_came_or_went_is_named(place: Path, capsys: pytest.CaptureFixture) -> None:
    half, argv = place / "data_eval.json", flags(place, "--output_dir", str(place / "run"))
    assert train.main(argv) == 0
    half.rename(place / "elsewhere.json")
    assert f"--eval_data {half} is not there any more" in refused(train.main, argv, capsys)
    assert train.main([*argv, "--overwrite"]) == 0
    (place / "elsewhere.json").rename(half)
    assert f"--eval_data {half} was not there" in refused(train.main, argv, capsys)


@pytest.mark.parametrize("change", [lambda folder: change_weights(folder / "generator.safetensors"),
                                    lambda folder: change_template(folder / "tokenizer")])
def test_another_checkpoint_to_start_from_is_named(change: object, place: Path, capsys: pytest.CaptureFixture) -> None:
    assert train.main(flags(place, "--output_dir", str(place / "first"))) == 0
    start = place / "first" / "final"
    argv = flags(place, "--init_compressor", str(start), "--output_dir", str(place / "run"))
    assert train.main(argv) == 0
    change(start)
    assert f"--init_compressor {start} has changed" in refused(train.main, argv, capsys)


def test_texts_that_are_used_up_need_not_be_there(place: Path) -> None:
    argv = flags(place, "--pretrain_steps", "2", "--pretrain_data", str(place / "texts.txt"), "--output_dir",
                 str(place / "run"))
    assert train.main(argv) == 0
    (place / "texts.txt").unlink()
    assert train.main([*argv, "--resume"]) == 0


def test_a_run_that_was_started_before_inputs_were_kept_goes_on(place: Path) -> None:
    argv, path = flags(place, "--output_dir", str(place / "run")), place / "run" / run_folder.RUN_FILE
    assert train.main(argv) == 0
    content = json.loads(path.read_text())
    assert content.pop(run_folder.INPUTS)
    path.write_text(json.dumps(content))
    assert train.main([*argv, "--resume"]) == 0


def test_robustness_measures_no_second_model_or_data_into_the_same_rows(place: Path,
                                                                        capsys: pytest.CaptureFixture) -> None:
    assert train.main(flags(place, "--compression_rate", "128", "--output_dir", str(place / "run"))) == 0
    checkpoint = place / "run" / "final"
    argv = ["--checkpoint", str(checkpoint), "--eval_data", str(place / "data.json"), "--output_dir",
            str(place / "robust"), "--eval_examples", "1", "--max_new_tokens", "1", "--bootstrap_resamples", "5",
            "--device", "cpu"]
    assert robustness.main(argv) == 0
    change_records(place / "data.json")
    change_weights(checkpoint / "compressor.safetensors")
    told = refused(robustness.main, argv, capsys)
    assert f"--checkpoint {checkpoint} has changed; --eval_data {place / 'data.json'} has changed" in told
