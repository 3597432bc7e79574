"""Figures are drawn after the numbers, each on its own; text from data stands in them as it is."""

from __future__ import annotations

import ast
import errno
import warnings
from functools import partial
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from scaledown.evaluation.figures import heat_maps, style
from scaledown.evaluation.figures.style import Figures, label, one_line, printable

EVALUATION = Path(style.__file__).parents[1]
HOSTILE = ("Did it cost more than $5?", "$x_1$ and $y^2$", "$\\frac{1}{$", "a_b^c {d} % & # ~",
           "\\alpha \\n", "`code` |", "<script>alert(1)</script>", "北京在哪里？ 🎉 👩\u200d👧",
           "مرحبا بالعالم שלום", "\u202eabc\u202c", "[31m")
UNSEEN = "two\nlines\tand \x00\x1b[31m\x7f half \ud83d"


def example(text: str) -> dict:
    """A memory to draw, all of whose texts are ``text``."""
    row = [{"token": text, "cosine": 0.5}] * 3
    return {"query": text, "answer": text, "tokens": [text, "is", text], "answer_tokens": [2, 2],
            "similarity": [[0.1, 0.2, 0.9]] * 4, "nearest": [row] * 4}


def likeness(text: str) -> dict:
    line = {"distance_tokens": [-1, 0, 1], "cosine": [0.1, 0.5, 0.2]}
    return {"n": 1, "around": {"asked": line, "not_asked": line}, "example": example(text)}


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("text", ["$5 or $x_1$ and $\\frac{1}{$", "w" * 5000, "北京" * 500])
@pytest.mark.parametrize("narrow", [False, True])
def test_the_memory_s_picture_shows_text_from_data_as_it_is(tmp_path: Path, saved: list[Figure], text: str,
                                                            narrow: bool) -> None:
    figures = Figures(tmp_path)
    figures.draw("memory.png", partial(heat_maps.plot_memory, narrow=narrow), {"after_training": example(text)})
    assert figures.drawn == ["memory.png"]
    figure, = saved
    shown = " ".join(each.get_text() for each in figure.texts).replace("\n", "").replace(" ", "")
    assert label(text, 40 if narrow else 72).replace(" ", "") in shown
    assert not any(each.get_parse_math() for each in figure.findobj(Text))


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that were saved."""
    figures: list[Figure] = []
    save = style.save
    monkeypatch.setattr(style, "save", lambda figure, path: (save(figure, path), figures.append(figure)))
    return figures


@pytest.mark.filterwarnings("ignore:Glyph")  # of the drawing that measures it
@pytest.mark.parametrize("text", [*HOSTILE, UNSEEN, "w" * 5000, "北京" * 500])
def test_text_from_data_is_drawn_as_it_is_and_without_a_warning(tmp_path: Path, saved: list[Figure], text: str) -> None:
    figures = Figures(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.draw("needle.png", heat_maps.plot_needle, likeness(text))
    assert figures.drawn == ["needle.png"] and not figures.left_out
    heat, = (axes for axes in saved[0].axes if axes.get_title(loc="left"))
    shown = [each.get_text() for each in heat.get_xticklabels()]
    assert shown == [label(text, 16), "is", label(text, 16)]
    assert heat.get_title(loc="left") == f'"{label(text, 72)}"  (answer: {label(text, 24)})'
    assert not any(each.get_parse_math() for each in saved[0].findobj(Text))
    saved[0].canvas.draw()


def test_a_users_settings_of_matplotlib_change_no_text(tmp_path: Path, saved: list[Figure]) -> None:
    with matplotlib.rc_context({"text.usetex": True, "axes.formatter.use_mathtext": True}):
        Figures(tmp_path).draw("memory.png", heat_maps.plot_memory, {"after_training": example("$5")})
    assert not any(each.get_usetex() or "mathdefault" in each.get_text() for each in saved[0].findobj(Text))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_can_be_seen_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == one_line(text) == label(text, 80) == text


def test_what_cannot_be_seen_is_spelt_out_in_one_line() -> None:
    assert one_line(UNSEEN) == "two lines and \\x00\\x1b[31m\\x7f half \\ud83d"
    assert printable("one\ntwo\r") == "one\ntwo\\r"


@pytest.mark.parametrize(("text", "shown"), [("abcdef", "abcdef"), ("abcdefg", "abcdef…"), ("北京在", "北京在"),
                                             ("北京在哪", "北京在…"), ("ab    cdefg", "ab cde…"), ("", "")])
def test_labels_are_cut_by_the_columns_they_take(text: str, shown: str) -> None:
    assert label(text, 6) == shown


def fail(path: Path, fault: Exception) -> None:
    raise fault


def blank(path: Path) -> None:
    style.save(style.new_figure(2, 2), path)


@pytest.mark.parametrize(("fault", "told"), [
    (KeyError("n"), "KeyError: 'n'"), (MemoryError(), "MemoryError: no message"),
    (RuntimeError("no font\nand more"), "RuntimeError: no font"), (ValueError("no needle"), "no needle")])
def test_a_figure_that_fails_is_left_out_and_the_next_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                               fault: Exception, told: str) -> None:
    figures = Figures(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"of an earlier run")
    figures.draw("bad.png", fail, fault)
    figures.draw("good.png", blank)
    assert (figures.left_out, figures.drawn) == ({"bad.png": told}, ["good.png"])
    assert [path.name for path in tmp_path.iterdir()] == ["good.png"]
    assert capsys.readouterr().err == f"warning: {tmp_path / 'bad.png'}: this figure is left out ({told})\n"


def test_a_full_disk_costs_the_figure_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(figure: Figure, path: Path, **settings: object) -> None:
        path.write_bytes(b"\x89PNG")
        raise OSError(errno.ENOSPC, "No space left on device")

    figures = Figures(tmp_path)
    monkeypatch.setattr(Figure, "savefig", half)
    figures.draw("memory.png", blank)
    assert figures.left_out == {"memory.png": "cannot be written (No space left on device)"}
    assert not list(tmp_path.iterdir())


def test_ctrl_c_is_no_fault_of_a_figure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Figures(tmp_path).draw("memory.png", fail, KeyboardInterrupt())


@pytest.mark.parametrize("path", sorted(EVALUATION.rglob("*.py")), ids=lambda path: path.name)
def test_every_figure_is_drawn_where_its_faults_are_caught(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    names = {getattr(call.func, "id", None) or getattr(call.func, "attr", "") for call in calls}
    assert not {name for name in names if name.startswith("plot_") and name != "plot_whole"}
