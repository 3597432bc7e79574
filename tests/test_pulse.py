"""Signs of life on a terminal: a counter in silence, erased before the next text; nothing beside a bar or a prompt."""

from __future__ import annotations

import io
import sys

import pytest

from scaledown.cli import pulse
from scaledown.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        """What was written since the last call."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pulse, "monotonic", lambda: now[0])
    return now


def test_silence_is_counted_and_erased_before_the_next_text(clock):
    terminal = Terminal()
    beating = pulse.Pulse(terminal)
    beating.write(terminal, "loading ...\n")
    clock[0] += 1
    beating.beat()
    assert terminal.shown() == "loading ...\n", "one second is no silence"

    clock[0] += 3
    beating.beat()
    assert terminal.shown() == "\r  4 s ..."
    beating.write(terminal, "loaded\n")
    assert terminal.shown() == f"{pulse.ERASE_LINE}loaded\n"
    beating.beat()
    assert terminal.shown() == ""


def test_a_line_that_is_being_written_is_left_alone(clock):
    terminal = Terminal()
    beating = pulse.Pulse(terminal)
    beating.write(terminal, "question: ")
    clock[0] += 60
    beating.beat()
    beating.end()
    assert terminal.shown() == "question: "


def test_the_end_leaves_nothing(clock):
    terminal = Terminal()
    beating = pulse.Pulse(terminal)
    clock[0] += 5
    beating.beat()
    beating.end()
    beating.beat()
    assert terminal.shown() == f"\r  5 s ...{pulse.ERASE_LINE}"


def test_an_open_bar_is_drawn_again_instead(clock):
    terminal = Terminal()
    beating = pulse.Pulse(terminal)
    with Bar(total=2, desc="answering", file=terminal, mininterval=0) as bar:
        terminal.shown()
        clock[0] += 5
        beating.beat()
        assert "answering" in terminal.shown() and not bar.disable
    terminal.shown()
    beating.beat()
    assert "answering" not in terminal.shown(), "a closed bar is not drawn"


@pytest.mark.parametrize(("stream", "rank", "is_watched"), [(Terminal, "0", True), (Terminal, "1", False),
                                                            (io.StringIO, "0", False)])
def test_only_the_terminal_of_the_first_process_is_watched(monkeypatch, stream, rank, is_watched):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setenv("RANK", rank)
    before = sys.stderr
    with pulse.beating():
        assert (sys.stderr is not before) == is_watched
        print("text", file=sys.stderr)
    assert sys.stderr is before and before.getvalue() == "text\n"
