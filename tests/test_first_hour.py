"""What tests/first_hour.sh types and what it finds; people run the script itself, which takes an hour."""

from __future__ import annotations

import re
import subprocess
import sys

import first_hour
import pytest
from first_hour import Outcome, Shown
from guides import GUIDES, ROOT


def outcome(text: str, code: int = 0, *moments: float) -> Outcome:
    """A command that ended at the last of these moments, and showed the same text at each of the others."""
    *shown, end = moments or (0.0, 1.0)
    return Outcome(code, end, [Shown(moment, text) for moment in shown])


def test_it_types_the_readme_line_by_line_and_the_first_command_of_each_guide():
    steps = list(first_hour.typed())
    assert steps[0].text == "bash setup_env.sh python train_with_evaluation.py"
    assert sum(step.is_python for step in steps) == 1
    files = [step.file for step in steps]
    assert files.count("README.md") > 5 and files.count("QUICKTEST_GUIDE.md") == 1
    without_commands = {"ARCHITECTURE.md", "API.md", "INTEGRATIONS.md", "SECURITY.md", "CHANGELOG.md"}
    with_commands = {path.name for path in GUIDES} - first_hour.LEFT_OUT.keys() - without_commands
    assert with_commands == set(files)


def test_long_commands_are_shortened():
    lines = [first_hour.command(step) for step in first_hour.typed()]
    for pattern, flags in first_hour.SHORTER:
        assert any(line.endswith(flags) for line in lines if re.search(pattern, line)), pattern
    assert any(re.search(first_hour.MAY_BE_REFUSED, line) for line in lines)
    assert any(re.match(first_hour.STAYS, line) for line in lines)


@pytest.mark.parametrize(("line", "ended", "is_terminal", "found"), [
    ("python x.py", outcome("ok\n"), False, []),
    ("python x.py", outcome("Traceback (most recent call last):\n", 1), False, ["a traceback", "exit code 1"]),
    ("python x.py", outcome("error: no file\n", 2), True, ["exit code 2, expected 0"]),
    ("python train.py --train_data data.json", outcome("error: data.json: no such file\n", 2), False, []),
    ("python train.py --train_data data.json", outcome(" ", 2), False, ["without a message"]),
    ("python x.py", outcome("line\n" * 41), False, ["41 lines of output"]),
    ("python x.py", outcome("line\n" * 41), True, []),
    ("python train.py --train_data data.json", outcome("line\n" * 41, 2), False, [])])
def test_faults_are_found(line, ended, is_terminal, found):
    faults = first_hour.faults(line, ended, is_terminal)
    assert len(faults) == len(found)
    for fault, part in zip(faults, found, strict=True):
        assert part in fault


def test_waits_are_found():
    assert first_hour.waits(outcome("step 1\rstep 2\n", 0, 2.0, 4.0, 6.5)) == []
    [at_first, later, last] = first_hour.waits(outcome("step 1\rstep 2\n", 0, 3.5, 9.0, 20.0))
    assert at_first == "3.5 s without a sign of life after 'the start'"
    blank = Outcome(0, 9.0, [Shown(1.0, "loading\r\n"), Shown(2.0, "\r\n")])
    assert first_hour.waits(blank) == ["7.0 s without a sign of life after 'loading'"]
    assert later == "5.5 s without a sign of life after 'step 2'" and last.startswith("11.0 s")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_command_is_run_piped_or_on_a_terminal(is_terminal, tmp_path):
    code = "import os, sys; print(sys.stdout.isatty(), os.getcwd()); sys.exit(2)"
    ended = first_hour.run(f'{sys.executable} -c "{code}"', tmp_path, is_terminal)
    assert (ended.code, ended.text) == (2, f"{is_terminal} {tmp_path}\n")


def test_a_command_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(first_hour, "LONGEST_STEP_SECONDS", 0)
    assert first_hour.run("sleep 1000", tmp_path, False).code != 0


def test_the_script_is_valid_bash():
    subprocess.run(["bash", "-n", str(ROOT / "tests" / "first_hour.sh")], check=True)
