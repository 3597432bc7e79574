"""A line on a terminal before torch is imported, once, and nothing where nobody looks."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import pty
import subprocess
import sys

import guides
import pytest

from scaledown.cli import loading_note


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A module that stands for torch, not imported yet."""
    (tmp_path / "slow_library.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(loading_note, "TORCH", "slow_library")
    yield "slow_library"
    sys.modules.pop("slow_library", None)


@pytest.mark.parametrize(("terminal", "told"), [(Terminal, "loading torch and transformers ...\n"), (io.StringIO, "")])
def test_an_import_is_told_on_a_terminal(library, terminal, told, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal())
    with loading_note.on_import():
        importlib.util.find_spec(library)
        assert sys.stderr.getvalue() == "", "nothing is loaded yet"
        for _ in range(2):
            importlib.import_module(library)
    assert sys.stderr.getvalue() == told


def test_of_several_processes_one_tells(library, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("RANK", "1")
    with loading_note.on_import():
        importlib.import_module(library)
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("argv", [["example_usage.py"], ["-m", "scaledown.evaluation.ranking", "--eval_examples", "1"]])
def test_a_command_tells_before_it_loads_torch(argv, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit(7)")
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, *argv], cwd=guides.ROOT, stderr=theirs, stdout=subprocess.DEVNULL,
                               env=os.environ | {"PYTHONPATH": str(tmp_path)})
    os.close(theirs)
    assert process.wait(timeout=120) == 7
    assert os.read(ours, 1000).decode().splitlines() == ["loading torch and transformers ..."]
    os.close(ours)
