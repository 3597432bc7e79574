"""Progress bars where nobody watches them, and what else goes to standard error beside them."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

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


def test_a_bar_is_a_line_at_ever_larger_intervals_and_one_at_its_end(clock: Clock, capsys: Capture) -> None:
    with progress.as_lines(), tqdm(total=1000, desc="answering") as bar:
        redraw(bar, 1000, clock, 0.125)
    shown = capsys.readouterr().err
    assert [line.split()[:3] for line in shown.splitlines()] == [
        ["answering:", "24%", "240/1000"], ["answering:", "72%", "720/1000"], ["answering:", "100%", "1000/1000"]]
    assert "\r" not in shown and "|" not in shown


def test_a_bar_of_days_still_has_a_line_every_ten_minutes(clock: Clock, capsys: Capture) -> None:
    with progress.as_lines(), tqdm(total=1000, desc="answering") as bar:
        redraw(bar, 1000, clock, 60.0)
    lines = len(capsys.readouterr().err.splitlines())
    assert lines == pytest.approx(1000 * 60 / progress.LONGEST_SILENCE_SECONDS, abs=5)


def test_a_bar_of_less_than_thirty_seconds_leaves_no_line(clock: Clock, capsys: Capture) -> None:
    with progress.as_lines():
        clock.seconds += 100
        for _ in range(3):
            with tqdm(total=10, desc="Loading weights") as bar:
                redraw(bar, 10, clock, 2.5)
    assert capsys.readouterr().err == ""


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
            redraw(bar, 2, clock, 40.0)
        print("last", end="", file=sys.stderr)
    logged, *bars, last = capsys.readouterr().err.split("\n")
    assert (logged, last) == ("logged", "last") and "4/4" in bars[-1]


def test_bars_one_below_the_other_are_few_lines_too(clock: Clock, capsys: Capture) -> None:
    with progress.as_lines():
        with tqdm(total=10, desc="outer") as outer:
            for _ in range(10):
                with tqdm(total=100, desc="inner", leave=False) as inner:
                    redraw(inner, 100, clock, 0.125)
                redraw(outer, 1, clock, 0.0)
        with tqdm(total=2, desc="next") as bar:
            redraw(bar, 2, clock, 40.0)
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) <= 3 * (205 // progress.SECONDS_A_LINE) and lines[-2].startswith("next: 100%")
    assert all(lines[:-1]) and not any(progress.UP in line for line in lines)


def test_a_bar_that_had_another_below_it_still_has_its_last_line(clock: Clock, capsys: Capture) -> None:
    with progress.as_lines(), tqdm(total=5, desc="reranking") as outer:
        with tqdm(total=5, desc="Loading weights") as inner:
            redraw(inner, 5, clock, 0.125)
        redraw(outer, 5, clock, 20.0)
    shown = capsys.readouterr().err
    assert shown.count("Loading weights") <= 1 and shown.splitlines()[-1].startswith("reranking: 100% 5/5")


@pytest.mark.parametrize(("seconds", "words"), [
    (0.4, "0 s"), (89.4, "89 s"), (90, "2 min"), (3540, "59 min"), (3599, "1 h 0 min"), (11100, "3 h 5 min"),
    (200000, "2 days 7 h")])
def test_a_time_in_words_has_two_units_at_most(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words


def test_on_a_terminal_bars_are_redrawn(clock: Clock, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.as_lines(), tqdm(total=5) as bar:
        redraw(bar, 5, clock, 0.1)
    assert capsys.readouterr().err.count("\r") >= 5


def test_every_command_draws_its_bars_as_lines() -> None:
    code = ("from tqdm import tqdm; from scaledown import cli, progress\n"
            "@cli.command\n"
            "def main(argv=None):\n"
            "    progress.SECONDS_A_LINE = 0\n"
            "    for _ in tqdm(range(200), mininterval=0): pass\n"
            "    raise ValueError('no such file')\n"
            "print(main())")
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *_, bar, error = ended.stderr.splitlines()
    assert "200/200" in bar and error == "error: no such file" and ended.stdout == "2\n"
