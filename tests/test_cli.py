from __future__ import annotations

import argparse
import dataclasses
import errno
import os
import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import train
import train_with_evaluation
from scaledown.cli import INTERRUPTED, USER_ERROR, add_flags, command, config_from, new_parser
from scaledown.config import EvaluationConfig, PretrainingConfig, RunConfig, ScaleDownConfig, TrainingConfig
from scaledown.settings import setting


@dataclass(frozen=True)
class Sample:
    """A config with a field of every kind that the project's own have."""

    num_steps: int = setting(3, "steps, of which 100% are taken")
    rate: float | None = setting(None, "rate")
    kind: str = setting("a", "kind", ("a", "b"))
    verbose: bool = setting(False, "talk")


def parse(*argv: str, cls: type = Sample, **options) -> argparse.Namespace:
    parser = new_parser("A sample.")
    add_flags(parser, cls, **options)
    return parser.parse_args(argv)


def test_no_flags_give_the_defaults_of_the_config():
    assert config_from(parse(), Sample) == Sample()


def test_flags_are_read_with_the_types_of_their_fields():
    config = config_from(parse("--num_steps", "7", "--rate", "1e-3", "--kind", "b", "--verbose"), Sample)
    assert config == Sample(num_steps=7, rate=1e-3, kind="b", verbose=True)


def test_a_switch_can_be_turned_off():
    assert config_from(parse("--no-verbose", verbose=True), Sample).verbose is False


def test_a_script_may_have_its_own_defaults_and_leave_flags_out():
    args = parse(but=["rate", "kind", "verbose"], num_steps=9)
    assert vars(args) == {"num_steps": 9}
    assert config_from(args, Sample) == Sample(num_steps=9)


def test_overrides_win_over_flags():
    assert config_from(parse("--num_steps", "7"), Sample, num_steps=1).num_steps == 1


@pytest.mark.parametrize("argv", [["--num_steps", "many"], ["--kind", "c"], ["--nonsense"]])
def test_a_bad_flag_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as end:
        parse(*argv)
    assert end.value.code == 2
    assert argv[0] in capsys.readouterr().err


@pytest.mark.parametrize("cls", [Sample, RunConfig, ScaleDownConfig, TrainingConfig, EvaluationConfig])
def test_help_names_every_field(cls, capsys):
    with pytest.raises(SystemExit) as end:
        parse("--help", cls=cls)
    assert end.value.code == 0
    text = capsys.readouterr().out
    named = {field.name for field in dataclasses.fields(cls) if f"--{field.name}" in text}
    assert named == {field.name for field in dataclasses.fields(cls)} - {"keep_threshold", "expand_threshold"}


def test_help_shows_defaults_that_are_not_none(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "steps, of which 100% are taken [3]" in text
    assert "None" not in text


@pytest.mark.parametrize("cls", [RunConfig, ScaleDownConfig, TrainingConfig, EvaluationConfig])
def test_every_config_survives_its_own_flags(cls):
    assert config_from(parse(cls=cls), cls) == cls()


def test_main_returns_its_code():
    assert command(lambda argv=None: 5)([]) == 5


def test_a_users_mistake_is_one_message_and_code_2(capsys):
    def main(argv=None):
        raise ValueError("no such file: x.json")

    assert command(main)([]) == USER_ERROR == 2
    assert capsys.readouterr().err == "error: no such file: x.json\n"


def test_a_disk_that_cannot_be_written_to_is_named(capsys, tmp_path):
    def main(argv=None):
        (tmp_path / "file").touch()
        (tmp_path / "file" / "below").write_text("x")

    assert command(main)([]) == USER_ERROR
    assert capsys.readouterr().err == f"error: {tmp_path / 'file' / 'below'}: Not a directory\n"


def test_a_full_disk_needs_no_name(capsys):
    def main(argv=None):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert command(main)([]) == USER_ERROR
    assert capsys.readouterr().err == "error: the disk: No space left on device\n"


def test_a_file_of_ours_that_is_missing_keeps_its_traceback():
    def main(argv=None):
        Path("nowhere").read_text()

    with pytest.raises(FileNotFoundError):
        command(main)([])


def test_ctrl_c_is_code_130(capsys):
    def main(argv=None):
        raise KeyboardInterrupt

    assert command(main)([]) == INTERRUPTED == 130
    assert "Traceback" not in capsys.readouterr().err


def test_our_own_faults_keep_their_traceback():
    def main(argv=None):
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        command(main)([])


def test_a_process_ends_with_the_code_and_without_a_traceback():
    script = ("import sys\nfrom scaledown.cli import command\n"
              "@command\ndef main(argv=None):\n    raise ValueError('broken')\nsys.exit(main())")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (2, "error: broken\n")


def test_a_warning_is_its_text_alone_and_those_for_programmers_say_where():
    script = ("import warnings\nfrom scaledown.cli import command\n"
              "@command\ndef main(argv=None):\n"
              "    warnings.warn('slow here')\n"
              "    warnings.warn('old name', FutureWarning)\n"
              "    return 0\n"
              "main()\nwarnings.warn('later')")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stderr.splitlines() == ["warning: slow here", "<string>:6: FutureWarning: old name",
                                         "<string>:9: UserWarning: later"]


def test_a_disk_that_torch_finds_full_gets_a_message(tmp_path, capsys):
    """torch tells it as a RuntimeError of its own writer, here under a limit on a file's size."""
    @command
    def save(argv):
        torch.save(torch.zeros(100_000), tmp_path / "optimizer.pt")
        return 0

    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, unlimited[1]))
    try:
        assert save([]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert "the disk is full" in capsys.readouterr().err

    @command
    def broken(argv):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        broken([])


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_text_that_standard_output_cannot_encode_is_no_reason_to_stop(encoding):
    code = ("from scaledown.cli import command\n"
            "main = command(lambda argv: print('\\u5317 half \\ud83d') or 0)\n"
            "raise SystemExit(main())")
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True,
                           env=os.environ | {"PYTHONIOENCODING": encoding})
    shown = "\u5317" if encoding == "utf-8" else "\\u5317"
    assert (ended.returncode, ended.stdout.decode()) == (0, f"{shown} half \\ud83d\n"), ended.stderr


@pytest.mark.parametrize("script", [train, train_with_evaluation])
def test_help_shows_thirty_flags_in_groups_and_help_all_the_others(script, capsys):
    shown = {}
    for flag in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as end:
            script.main([flag])
        assert end.value.code == 0
        shown[flag] = capsys.readouterr().out

    flags = {flag: re.findall(r"^  (?:-h, )?(--\w+)", text, re.MULTILINE) for flag, text in shown.items()}
    assert len(flags["--help"]) <= 30 and len(set(flags["--help_all"])) == len(flags["--help_all"])
    assert set(flags["--help"]) < set(flags["--help_all"])
    groups = re.findall(r"^(\w+):$", shown["--help"], re.MULTILINE)
    assert [group for group in groups if group != "evaluation"] == ["options", "data", "model", "training", "machine"]

    # Each flag of a setting is one of the two helps.
    names = {f"--{name}" for name in vars(script.build_parser().parse_args([]))}
    assert names | {"--help", "--help_all"} == set(flags["--help_all"])


def test_both_training_scripts_have_the_same_names_but_for_pretraining_and_the_evaluation():
    names = [set(vars(script.build_parser().parse_args([]))) for script in (train, train_with_evaluation)]
    assert names[0] - names[1] == {field.name for field in dataclasses.fields(PretrainingConfig)}
    assert names[1] - names[0] == {field.name for field in dataclasses.fields(EvaluationConfig)}
