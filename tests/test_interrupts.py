"""Ctrl-C at the moments at which Python would show a traceback or swallow it, and the end of a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import guides
import pytest

from scaledown.cli.command import OUTPUT_CLOSED

SWALLOWED = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass
except BaseException:
    pass
"""
"""A module that is interrupted while it is imported, and goes on as if nothing had been, as callbacks in imports do."""


def start(*argv: str, modules: Path | None = None, **options) -> subprocess.Popen:
    environment = dict(os.environ)
    if modules is not None:
        environment["PYTHONPATH"] = str(modules)

    # A shell that starts the tests in the background lets Ctrl-C be ignored; its children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen([sys.executable, *argv], cwd=guides.ROOT, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    finally:
        signal.signal(signal.SIGINT, before)


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize("argv", [["example_usage.py"], ["-m", "scaledown.evaluation.cost"]], ids=["script", "module"])
@pytest.mark.parametrize("library", ["torch", "filelock"])
def test_an_interrupt_in_an_import_ends_the_command_there(argv, library, tmp_path):
    """filelock is imported with the command's own modules, torch in its main."""
    (tmp_path / f"{library}.py").write_text(SWALLOWED)
    code, _, err = ended(start(*argv, modules=tmp_path))
    assert (code, err) == (130, "interrupted\n")


def test_an_interrupt_while_a_file_is_read_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "records.json")
    process = start("train.py", "--train_data", str(tmp_path / "records.json"))
    # Opened when the command opens it to read, which then waits for the text.
    with open(tmp_path / "records.json", "w"):
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    assert (code, out, err) == (130, "", "interrupted\n")


def test_a_script_that_is_no_command_keeps_its_own_interrupt(tmp_path):
    (tmp_path / "own.py").write_text(
        "import os, signal, scaledown, scaledown.cli\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    input()\nexcept KeyboardInterrupt:\n    print('own')\n")
    code, out, err = ended(start(str(tmp_path / "own.py"), modules=guides.ROOT, stdin=subprocess.PIPE))
    assert (code, out, err) == (0, "own\n", "")


def test_an_ignored_interrupt_stays_ignored():
    code = ("import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.argv = ['-m'];"
            "sys.orig_argv = ['python', '-m', 'scaledown']; import scaledown;"
            "print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)")
    assert ended(start("-c", code))[1] == "True\n"


def test_a_finished_command_is_not_taken_down_piece_by_piece(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins, sys\n"
        "class Slow:\n    def __del__(self):\n        print('taken down', file=sys.stderr)\n"
        "builtins.kept = Slow()\n")
    code, out, err = ended(start("-m", "scaledown", modules=tmp_path))
    assert (code, err) == (0, "") and out.count("python") >= 20


def test_the_exit_code_is_that_of_main():
    assert ended(start("train.py", "--num_memory_tokens", "0"))[0] == 2
    assert ended(start("train.py", "--no_such_flag"))[0] == 2


def test_output_that_cannot_be_written_is_told():
    with open("/dev/full", "w") as full:
        process = subprocess.run([sys.executable, "-m", "scaledown"], cwd=guides.ROOT, stdout=full,
                                 stderr=subprocess.PIPE, text=True, check=False)
    assert process.returncode != 0 and "No space left on device" in process.stderr


def test_every_command_has_the_frame_that_does_this():
    assert all(hasattr(guides.module(name).main, "__wrapped__") for name in guides.command_names())


def test_an_output_that_nobody_reads_ends_a_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-u", "-m", "scaledown"], cwd=guides.ROOT, stdout=writer,
                           stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (OUTPUT_CLOSED, "")
