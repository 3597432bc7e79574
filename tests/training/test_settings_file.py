"""--config: a run's settings from a file, below the flags; and what is wrong with such a file."""

from __future__ import annotations

import json

import pytest
import tiny
from safetensors.torch import load_file

import train
import train_with_evaluation
from scaledown.data.records import eval_path, write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.settings import RETIRED
from scaledown.training import presets
from scaledown.training.presets import PRESETS

SCRIPTS = [train, train_with_evaluation]
QUICK = ["--batch_size", "2", "--max_steps", "2", "--logging_steps", "1", "--num_memory_tokens", "2"]


@pytest.fixture
def parse(tmp_path):
    """A parser of flags behind ``--config``, with the text of that file."""
    def parsed(script, text, *flags, name="run.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return presets.parse(script.build_parser(), ["--config", str(tmp_path / name), *flags])

    return parsed


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_file_sets_what_flags_set_and_flags_win(parse, script):
    args = parse(script, "train_data: x.json\nbatch_size: 6\nenable_reranking: true\ntrain_memory_tokens: [4, 8]\n",
                 "--batch_size", "5")
    assert (args.train_data, args.batch_size, args.enable_reranking) == ("x.json", 5, True)
    assert args.train_memory_tokens == [4, 8] and args.num_layers is None
    assert not parse(script, "enable_reranking: true", "--no-enable_reranking").enable_reranking
    assert not hasattr(args, "config")


def test_json_is_read_too_and_an_empty_file_says_nothing(parse):
    assert parse(train, '{"batch_size": 6, "num_epochs": 2}', name="run.json").num_epochs == 2
    assert parse(train, "# nothing yet\n") == presets.parse(train.build_parser(), [])


def test_numbers_without_a_point_are_numbers(parse):
    """YAML reads 1e-3 as a text."""
    args = parse(train, "learning_rate_generator: 1e-3\nlearning_rate_compressor: 2.0e-3\nweight_decay: 0")
    assert (args.learning_rate_generator, args.learning_rate_compressor, args.weight_decay) == (1e-3, 2e-3, 0)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_preset_in_the_file_gives_way_to_it_and_one_on_the_command_line_does_not(parse, script):
    text = "preset: laptop\nbatch_size: 6\ntrain_data: x.json"
    args = parse(script, text)
    assert (args.batch_size, args.answer_tokens) == (6, PRESETS["laptop"]["answer_tokens"])
    args = parse(script, text, "--preset", "colab_t4", "--answer_tokens", "3")
    assert (args.batch_size, args.answer_tokens) == (PRESETS["colab_t4"]["batch_size"], 3)


def test_the_demos_settings_are_below_the_file(parse):
    args = parse(train, "generator_model: embedded\nbatch_size: 6\ncompressor_type: llm\ntrain_data: x.json")
    assert (args.batch_size, args.mlp_width, args.optimizer) == (6, 512, "muon")


def test_one_learning_rate_wins_over_both_of_the_file(parse):
    args = parse(train, "learning_rate_generator: 0.1\nlearning_rate_compressor: 0.2", "--learning_rate", "0.3")
    assert args.learning_rate_generator == args.learning_rate_compressor == 0.3


def test_settings_of_the_other_script_are_left_out(parse):
    text = "eval_examples: 5\npretrain_steps: 3"
    assert not hasattr(parse(train, text), "eval_examples") and parse(train, text).pretrain_steps == 3
    assert not hasattr(parse(train_with_evaluation, text), "pretrain_steps")


@pytest.mark.parametrize("script", SCRIPTS)
def test_all_unknown_names_are_told_together(script, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("batchsize: 4\nnum_layer: 2\nfoo: 1\nseed: 1\n1: 2\n")
    assert script.main(["--config", str(tmp_path / "run.yaml"), "--output_dir", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert (f"{tmp_path / 'run.yaml'}: unknown settings: 1, batchsize (did you mean batch_size?), foo, "
            "num_layer (did you mean num_layers?)") in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "message"), [
    ("batch_size: many", "batch_size is 'many', expected a whole number"),
    ("batch_size:", "batch_size is None, expected a whole number"),
    ("seed: true\nnum_layers: 2.5",
     "seed is True, expected a whole number; num_layers is 2.5, expected a whole number"),
    ("learning_rate: fast", "learning_rate is 'fast', expected a number"),
    ("train_memory_tokens: [1, x]", "train_memory_tokens is [1, 'x'], expected a list of whole numbers"),
    ("device: quantum", "device is 'quantum', expected one of auto, gpu"),
    ("preset: [paper]", "preset is ['paper'], expected"),
    ("batch_size: 0\ntrain_data: x.json", "--batch_size must be above 0"),
    ("eval_steps: 0\ntrain_data: x.json", "--eval_steps must be above 0"),
    ("keep_threshold: 2.5", "keep_threshold (gone: every run is now as with its default, None)"),
    ("pretrain_learning_rate: 0.001", "pretrain_learning_rate (gone: every run is now as with its default, 0.0001)"),
    ("batch_size: [", "not valid YAML"), ("- 4", "expected settings by name"), ("when: 2026-13-45", "not valid YAML"),
    ("[" * 1500, "not valid YAML"), ("batch_size: \x00", "not valid YAML")])
def test_a_bad_file_is_named(text, message, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(text)
    assert train.main(["--config", str(tmp_path / "run.yaml")]) == 2
    told = capsys.readouterr().err
    assert message in told and ("run.yaml" in told or message.startswith("--"))


@pytest.mark.parametrize(("name", "content", "message"), [
    ("run.json", b"{", "not valid JSON (line 1"), ("run.yaml", b"caf\xe9: 1", "not UTF-8"),
    ("nowhere.yaml", None, "no such file"), (".", None, "cannot be read")])
def test_a_file_that_cannot_be_read_is_named(name, content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert train.main(["--config", str(tmp_path / name)]) == 2
    assert f"--config {tmp_path / name}: {message}" in capsys.readouterr().err


def test_a_runs_own_config_makes_the_run_again_and_goes_on_with_it(tmp_path):
    data = tmp_path / "records.json"
    write_records(data, list(synthetic_records(6, seed=3)))
    write_records(eval_path(data), list(synthetic_records(2, seed=3, split="eval")))
    generator = tiny.generator_folder(tmp_path / "generator")
    first, second = tmp_path / "first", tmp_path / "second"
    assert train.main(["--train_data", str(data), "--generator_model", generator, "--output_dir", str(first),
                       "--learning_rate", "1e-3", "--overwrite", *QUICK]) == 0
    own = str(first / "config.json")

    # It is refused in the folder that holds the run: --overwrite does not come along.
    assert train.main(["--config", own]) == 2
    assert train.main(["--config", own, "--resume"]) == 0
    assert train.main(["--resume", "--output_dir", str(first)]) == 0
    assert train.main(["--config", own, "--output_dir", str(second)]) == 0
    weights = [load_file(folder / "final" / "compressor.safetensors") for folder in (first, second)]
    assert all(tensor.equal(weights[1][name]) for name, tensor in weights[0].items())

    settings = [json.loads((folder / "config.json").read_text())["settings"] for folder in (first, second)]
    different = {name for name in settings[0] if settings[0][name] != settings[1][name]}
    assert different == {"output_dir", "overwrite"}


def test_a_run_of_an_older_version_is_read_if_it_had_what_every_run_has_now(parse):
    old = {"settings": {"batch_size": 6, "resume": True, **RETIRED}, "commit": None}
    args = parse(train, json.dumps(old), name="config.json")
    assert args.batch_size == 6 and not args.resume and not hasattr(args, "pad_to_max")
    with pytest.raises(ValueError, match=r"pad_to_max \(gone: every run is now as with its default, None\)"):
        parse(train, json.dumps({"settings": {"pad_to_max": True}}), name="config.json")
