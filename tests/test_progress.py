"""Progress bars where nobody watches them, and what else goes to standard error beside them."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from scaledown import progress

ROOT = Path(__file__).resolve().parents[1]
Capture = pytest.CaptureFixture[str]


class Clock:
    """A clock that a test moves on."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


def redraw(bar: tqdm, times: int, clock: Clock, seconds: float) -> None:
    """Draw ``bar`` after each of so many updates, ``seconds`` apart."""
    for _ in range(times):
        clock.seconds += seconds
        bar.update()
        bar.refresh()


def test_a_bar_is_a_line_every_thirty_seconds_and_one_at_its_end(clock: Clock, capsys: Capture) -> None:
    with progress.as_lines(), tqdm(total=1000, desc="answering") as bar:
        redraw(bar, 1000, clock, 0.125)
    shown = capsys.readouterr().err
    assert [line.partition("| ")[2].split()[0] for line in shown.splitlines()] == [
        "240/1000", "480/1000", "720/1000", "960/1000", "1000/1000"]
    assert "\r" not in shown


def test_a_bar_that_is_wiped_out_leaves_no_line(clock: Clock, capsys: Capture) -> None:
    with progress.as_lines(), tqdm(total=10, leave=False) as bar:
        redraw(bar, 10, clock, 0.1)
    assert capsys.readouterr().err == ""


def test_messages_beside_a_bar_get_lines_of_their_own_at_once(clock: Clock, capsys: Capture) -> None:
    with progress.as_lines():
        print("first", file=sys.stderr)
        with tqdm(total=4, desc="answering") as bar:
            redraw(bar, 2, clock, 0.1)
            print("beside it", file=sys.stderr)
            assert capsys.readouterr().err == "first\nbeside it\n"
            logging.StreamHandler(sys.stderr).emit(logging.LogRecord("x", logging.WARNING, "", 0, "logged", (), None))
            redraw(bar, 2, clock, 0.1)
        print("last", end="", file=sys.stderr)
    logged, bar, last = capsys.readouterr().err.split("\n")
    assert (logged, last) == ("logged", "last") and "4/4" in bar


def test_bars_one_below_the_other_are_few_lines_too(clock: Clock, capsys: Capture) -> None:
    with progress.as_lines():
        with tqdm(total=10, desc="outer") as outer:
            for _ in range(10):
                with tqdm(total=100, desc="inner", leave=False) as inner:
                    redraw(inner, 100, clock, 0.125)
                redraw(outer, 1, clock, 0.0)
        with tqdm(total=2, desc="next") as bar:
            redraw(bar, 2, clock, 0.125)
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) <= 3 * (125 // progress.SECONDS_A_LINE) and lines[-2].startswith("next: 100%")
    assert all(lines[:-1]) and not any(progress.UP in line for line in lines)


def test_a_bar_that_had_another_below_it_still_has_its_last_line(clock: Clock, capsys: Capture) -> None:
    with progress.as_lines(), tqdm(total=5, desc="reranking") as outer:
        with tqdm(total=5, desc="Loading weights") as inner:
            redraw(inner, 5, clock, 0.125)
        redraw(outer, 5, clock, 0.125)
    shown = capsys.readouterr().err
    assert [line.partition("|")[0] for line in shown.splitlines()] == ["reranking:   0%", "Loading weights: 100%",
                                                                       "reranking: 100%"]


def test_the_trainers_bar_is_lines_and_its_log_stays(clock: Clock, tmp_path: Path, capsys: Capture) -> None:
    arguments, state = TrainingArguments(str(tmp_path), use_cpu=True), TrainerState(max_steps=600)
    bar = ProgressCallback()
    with progress.as_lines():
        bar.on_train_begin(arguments, state, TrainerControl())
        for state.global_step in range(1, 601):
            clock.seconds += 0.1
            bar.on_step_end(arguments, state, TrainerControl())
            if state.global_step % 10 == 0:
                bar.on_log(arguments, state, TrainerControl(), logs={"loss": 1.5})
        bar.on_train_end(arguments, state, TrainerControl())
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["{'loss': '1.5'}"] * 60
    assert 2 <= len(shown.err.splitlines()) <= 3


def test_on_a_terminal_bars_are_redrawn(clock: Clock, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.as_lines(), tqdm(total=5) as bar:
        redraw(bar, 5, clock, 0.1)
    assert capsys.readouterr().err.count("\r") >= 5


def test_every_command_draws_its_bars_as_lines() -> None:
    code = ("from tqdm import tqdm; from scaledown import cli\n"
            "@cli.command\n"
            "def main(argv=None):\n"
            "    for _ in tqdm(range(200), mininterval=0): pass\n"
            "    raise ValueError('no such file')\n"
            "print(main())")
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    bar, error = ended.stderr.splitlines()
    assert "200/200" in bar and error == "error: no such file" and ended.stdout == "2\n"
