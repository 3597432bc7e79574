"""A stranger's first hour: types, in a fresh clone, what the README says, and the first command of each guide.

    bash tests/first_hour.sh

Everything is typed twice: once with its output piped, once on a terminal. A command passes if it shows no traceback,
ends with the exit code that a newcomer expects, and, piped, prints at most ``MOST_LINES`` lines if it succeeds. On a
terminal, waits of more than ``LONGEST_WAIT_SECONDS`` without a sign of life are reported. Long trainings get flags that
make them short (``SHORTER``). It needs no package, since it starts before there is an environment.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import guides
from guides import GUIDES, ROOT, Step

MOST_LINES = 40
LONGEST_WAIT_SECONDS = 3.0
LONGEST_STEP_SECONDS = 3600
TRACEBACK = "Traceback (most recent call last)"
LEFT_OUT = {
    "LOG.md": "a log: commands of their day",
    "CONTRIBUTING.md": "for those who stay longer than an hour: all tests",
    "TESTING.md": "all tests",
    "RELIABILITY.md": "tests of an hour",
    "COLAB_GUIDE.md": "for a browser; tests/test_notebook.py runs the notebook",
}
SHORTER = (  # Flags behind those of the guides, for every command that matches.
    (r"python train_with_evaluation\.py", "--max_steps 4 --eval_examples 8 --timed_queries 2 --max_new_tokens 8 "
                                          "--bootstrap_resamples 50"),
    (r"python train\.py", "--max_steps 2 --batch_size 2 --gradient_accumulation_steps 1"),
    (r"pytest -n auto", "tests/test_config.py"),
)
MAY_BE_REFUSED = r"--dataset squad|small_real_dataset\.json|data\.json"
"""Commands that need the Hub, or a file that a reader has or makes: exit code 2, with a message, is fine, too."""
STAYS = r"source |cd |export |[A-Z_]+=\S*$"
"""What is typed here changes the shell itself, and so holds for all that is typed afterwards."""


class Shown(NamedTuple):
    """What a command showed at one moment."""

    seconds: float
    text: str


class Outcome(NamedTuple):
    """How a command ended.

    Attributes:
        code: its exit code.
        seconds: from its start to its end.
        shown: all that it printed, in pieces as they came.
    """

    code: int
    seconds: float
    shown: list[Shown]

    @property
    def text(self) -> str:
        """All that it printed."""
        return "".join(piece.text for piece in self.shown).replace("\r\n", "\n")


def typed() -> Iterator[Step]:
    """Yield all that is typed: the README's lines, then the first command of every other guide."""
    for path in GUIDES:
        found = list(guides.steps(path, as_typed=True))
        if path.name == "README.md":
            yield from found
        elif path.name not in LEFT_OUT:
            yield from [step for step in found if not step.is_python][:1]


def command(step: Step) -> str:
    """Return a step as a line for the shell, with the flags that make it short."""
    if step.is_python:
        return f"python -c {shlex.quote(step.text)}"
    flags = [flags for pattern, flags in SHORTER if re.search(pattern, step.text)]
    return " ".join([step.text, *flags])


def run(line: str, folder: Path, is_terminal: bool) -> Outcome:
    """Run a line of the shell in ``folder`` and note when it shows what; it is ended after ``LONGEST_STEP_SECONDS``."""
    ours, theirs = pty.openpty() if is_terminal else os.pipe()
    if is_terminal:
        # A new one has no columns, and bars draw nothing there.
        termios.tcsetwinsize(theirs, (24, 100))
    start = time.monotonic()
    process = subprocess.Popen(["bash", "-c", line], cwd=folder, stdin=theirs if is_terminal else subprocess.DEVNULL,
                               stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)

    shown = []
    while True:
        left = LONGEST_STEP_SECONDS - (time.monotonic() - start)
        if not select.select([ours], [], [], max(left, 0))[0]:
            # Its own session, so only what it started itself is ended.
            os.killpg(process.pid, signal.SIGTERM)
            break
        try:
            piece = os.read(ours, 65536)
        except OSError:
            # A terminal that its last program has left ends in this way.
            piece = b""
        if not piece:
            break
        shown.append(Shown(time.monotonic() - start, piece.decode(errors="replace")))

    code = process.wait()
    os.close(ours)
    return Outcome(code, time.monotonic() - start, shown)


def faults(line: str, outcome: Outcome, is_terminal: bool) -> list[str]:
    """Return in words what a newcomer would trip over."""
    found = []
    if TRACEBACK in outcome.text:
        found.append("a traceback")
    allowed = (0, 2) if re.search(MAY_BE_REFUSED, line) else (0,)
    if outcome.code not in allowed:
        found.append(f"exit code {outcome.code}, expected {' or '.join(map(str, allowed))}")
    if outcome.code != 0 and not outcome.text.strip():
        found.append("a failure without a message")

    # Failures may say more: the whole output of pip, for example.
    num_lines = len(outcome.text.splitlines())
    if not is_terminal and outcome.code == 0 and num_lines > MOST_LINES:
        found.append(f"{num_lines} lines of output, expected at most {MOST_LINES}")
    return found


def waits(outcome: Outcome) -> list[str]:
    """Return in words each wait without a sign of life, and after which line it came."""
    found, previous, last_line = [], 0.0, "the start"
    for piece in [*outcome.shown, Shown(outcome.seconds, "")]:
        if piece.seconds - previous > LONGEST_WAIT_SECONDS:
            found.append(f"{piece.seconds - previous:.1f} s without a sign of life after {last_line!r}")
        previous = piece.seconds
        # A piece may hold several lines, or only a part of one, or nothing that can be read.
        lines = [line.strip() for line in re.split(r"[\r\n]+", piece.text) if line.strip()]
        last_line = lines[-1] if lines else last_line
    return found


def walk(folder: Path, is_terminal: bool) -> int:
    """Type everything in ``folder``, print how it went, and return the number of faults."""
    num_faults, lasting = 0, ""
    for step in typed():
        line = command(step)
        print(f"\n{step.file}: {step.name.partition(': ')[2]}", flush=True)
        outcome = run(lasting + line, folder, is_terminal)
        if re.match(STAYS, step.text) and not step.is_python:
            lasting += f"{line}\n"

        found = faults(line, outcome, is_terminal)
        num_faults += len(found)
        lines = outcome.text.splitlines()
        print(f"  exit code {outcome.code}, {outcome.seconds:.0f} s, {len(lines)} lines")
        if is_terminal:
            found += waits(outcome)
        for fault in found:
            print(f"  LOOK: {fault}")
        # All of it goes to a file, with the second at which each piece came.
        with (folder.parent / f"{'terminal' if is_terminal else 'piped'}.log").open("a", encoding="utf-8") as log:
            log.write(f"\n$ {line}\n")
            for piece in outcome.shown:
                texts = re.split(r"[\r\n]+", piece.text)
                log.writelines(f"[{piece.seconds:7.1f}] {text}\n" for text in texts if text)
    return num_faults


def clone(folder: Path, environment: str | None) -> None:
    """Clone the project into ``folder``, with a finished environment as its ``.venv`` if there is one."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    if environment:
        (folder / ".venv").symlink_to(Path(environment).resolve())


def main(environment: str | None) -> int:
    """Walk twice; exit code 1 if anything is to be mended."""
    place = Path(tempfile.mkdtemp(prefix="first-hour-"))
    print(f"first_hour: the last commit of {ROOT}, in {place}; without VENV_FOLDER it begins with an installation")
    num_faults = 0
    for is_terminal in (False, True):
        folder = place / ("terminal" if is_terminal else "piped")
        print(f"\n=== {folder.name} ===")
        clone(folder, environment)
        num_faults += walk(folder, is_terminal)
        # The second walk need not install everything again.
        environment = environment or str(folder / ".venv")
    print(f"\nfirst_hour: {num_faults} faults; all that was shown, second by second: {place}/piped.log, terminal.log")
    return 1 if num_faults else 0


if __name__ == "__main__":
    # As in a shell that was just opened.
    venv = os.environ.pop("VENV_FOLDER", None)
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
        os.environ.pop(name, None)
    sys.exit(main(venv))
