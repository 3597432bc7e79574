"""What is shown: users' texts as text, bars and heat where the numbers are, and colours that can be read."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from scaledown.demo.asking import AskedQuestion, ReadPassage
from scaledown.demo.html.answers_html import answers_html, notice_html
from scaledown.demo.html.costs_html import costs_html, gflops_text, seconds_text
from scaledown.demo.html.documents_html import documents_html
from scaledown.demo.html.scores_html import ScoreScale, score_html
from scaledown.demo.html.strip_html import selection_css, strip_html
from scaledown.demo.memory_look import MemoryLook, NearToken, TextSegment
from scaledown.demo.page_updates import page_updates
from scaledown.demo.timed_answer import AnswerSeconds, GrowingText
from scaledown.evaluation.cost.flops import Flops
from scaledown.evaluation.figures.colours import contrast

BAD = "<script>alert(1)</script><img src=x onerror=\"alert(2)\">&amp;'"
CSS = files("scaledown.demo").joinpath("page.css").read_text(encoding="utf-8")


def look(text: str = "word") -> MemoryLook:
    return MemoryLook([TextSegment(text, (.25, -.5)), TextSegment(" ", ())],
                      [[NearToken(text, .5)], [NearToken("\x00", .4), NearToken("  ", .3)]])


def passage(name: str, score: float | None, is_kept: bool = False, place: tuple[int, int] | None = None,
            with_look: bool = True) -> ReadPassage:
    return ReadPassage(name, f"text of {name}", place, score, is_kept, look() if with_look else None)


def ended(system: str, prompt: int, seconds: float, total: float) -> GrowingText:
    return GrowingText(system, "answer", prompt, 2, AnswerSeconds(0, seconds / 4, seconds / 2, seconds),
                       Flops(0, total, 0))


def test_no_text_of_a_user_becomes_html():
    bad = ReadPassage(BAD, BAD, (0, 5), 1.0, True, look(BAD))
    answers = {"scaledown": GrowingText("scaledown", BAD), "full_text": GrowingText("full_text", fault=BAD)}
    shown = [documents_html(AskedQuestion((bad,), None, {})), notice_html(BAD), strip_html(look(BAD), "look-0", 1.0),
             answers_html(answers),
             documents_html(AskedQuestion((ReadPassage(BAD, BAD, None, None, True),), None, {}))]
    for html in shown:
        assert "<script" not in html and "<img" not in html
        assert "&lt;script&gt;" in html


def test_answers_stand_in_their_places_and_say_their_state():
    html = answers_html({"scaledown": GrowingText("scaledown", "Sarik")})
    assert re.findall(r'sd-card sd-(\w+) sd-(\w+)"', html) == [
        ("scaledown", "grows"), ("full_text", "waits"), ("no_documents", "waits")]
    assert '<p class="sd-text">Sarik</p>' in html
    empty = GrowingText("scaledown", "", seconds=AnswerSeconds(0, 1, 1, 1))
    assert "(an empty answer)" in answers_html({"scaledown": empty})


def test_costs_compare_the_systems_row_by_row():
    html = costs_html({"scaledown": ended("scaledown", 50, 1.0, 5e8), "full_text": ended("full_text", 200, 0.5, 2e9),
                       "no_documents": GrowingText("no_documents", "unfin")})
    rows = dict(re.findall(r'<tr><th scope="row">([^<]+)</th>(.*?)</tr>', html))
    assert re.findall(r"<td[^>]*>([^<]+)<", rows["Prompt tokens"]) == ["50", "200", "\u2013"]
    assert re.findall(r"width:([\d.]+)%", rows["Prompt tokens"]) == ["25.0", "100.0"]
    assert re.findall(r"<td[^>]*>([^<]+)<", rows["GFLOPs"]) == ["0.5", "2", "\u2013"]
    assert re.findall(r"<td[^>]*>([^<]+)<", rows["Whole answer after"]) == ["1.00 s", "500 ms", "\u2013"]
    assert "no_documents" not in "".join(re.findall(r'sd-bar sd-\w+', html))


@pytest.mark.parametrize(("value", "text"), [(0.0004, "0 ms"), (0.0354, "35 ms"), (1.236, "1.24 s"), (75.4, "75 s")])
def test_seconds_are_short(value, text):
    assert seconds_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(8.81e6, "0.00881"), (1.052e9, "1.05"), (93.6e9, "93.6"),
                                             (1234.5e9, "1,234")])
def test_gflops_are_short(value, text):
    assert gflops_text(value) == text


def test_bars_of_scores_go_from_zero_to_their_place():
    scale = ScoreScale.of([-3.0, 6.0], 3.0)
    assert [scale.percent(score) for score in (-3.0, 0.0, 6.0)] == [0, pytest.approx(33.33, abs=.01), 100]
    assert 'sd-fill" style="left:33.3%;width:66.7%' in score_html(6.0, scale)
    below = score_html(-3.0, scale)
    assert 'sd-fill" style="left:0.0%;width:33.3%' in below and "\u22123.0" in below
    assert 'sd-threshold" style="left:66.7%' in below
    # All positive scores begin at the left end, and a threshold beyond all has its place.
    assert ScoreScale.of([2.0, 4.0], None).percent(0.0) == 0 and ScoreScale.of([1.0], 5.0).highest == 5
    assert score_html(0.0, ScoreScale.of([0.0], None))


def test_documents_stand_best_first_and_say_what_was_kept():
    passages = (passage("low", -2.0), passage("best", 5.0, True, (3, 1200)), passage("middle", 1.0, with_look=False))
    html = documents_html(AskedQuestion(passages, 3.0, {}))
    assert re.findall(r'sd-name">(\w+) ', html) == ["best", "middle", "low"]
    assert re.findall(r'sd-badge[^>]*>([\w ]+)<', html) == ["kept", "left out", "left out"]
    assert "1 of 3 passages were kept" in html and "at 3.0, from which on <b>auto</b> keeps" in html
    assert "Characters 3 to 1,200" in html and html.count("<details open>") == 1
    # Radio buttons of one strip are one group.
    assert set(re.findall(r'name="([^"]+)"', html)) == {"look-0", "look-1"}

    titled = ReadPassage("Canal", "Canal. It opened.", None, 1.0, True)
    assert "<small>It opened.</small>" in documents_html(AskedQuestion((titled,), None, {}))

    unscored = documents_html(AskedQuestion((passage("a", None, True), passage("b", None, True)), None, {}))
    assert "has no scores, so all are kept" in unscored and "sd-track" not in unscored
    assert re.findall(r'sd-name">(\w+) ', unscored) == ["a", "b"]


def test_heat_is_the_share_of_the_highest_cosine():
    html = strip_html(look(), "look-7", 0.5)
    # The largest of all embeddings, then each; below 0 is no likeness.
    assert 'style="--e0:0.50;--e1:0.50;--e2:0.00" title="0.25">word</span> </p>' in html
    assert re.findall(r'value="(\w+)"( checked)?', html) == [("all", " checked"), ("1", ""), ("2", "")]
    assert html.count("\N{OPEN BOX}") == 1 and "\x00" not in html and r"\x00" in html
    assert "--e0:0.00" in strip_html(look(), "look-7", 0.0)


def test_each_embedding_has_a_rule_by_which_its_heat_is_shown():
    rules = selection_css(8).splitlines()
    assert len(rules) == 8
    assert rules[2] == '.sd-look:has(input[value="3"]:checked) .sd-token { --shown: var(--e3); }'


@pytest.mark.parametrize(("block", "text", "page"), [(".gradio-container {", "#1f2937", "#ffffff"),
                                                     (".dark .gradio-container", "#f3f4f6", "#1f2937")])
def test_text_can_be_read_on_the_most_heat_light_and_dark(block, text, page):
    """By the guidelines' contrast of 4.5, on Gradio's colours of text and cards (slate)."""
    rule = CSS[CSS.index(block):].split("}")[0]
    heat = [int(number) for number in re.search(r"--heat: (\d+) (\d+) (\d+)", rule).groups()]
    most = float(re.search(r"--heat-most: ([\d.]+)", rule)[1])
    below = [int(page[place:place + 2], 16) for place in (1, 3, 5)]
    mixed = [round(most * hot + (1 - most) * cold) for hot, cold in zip(heat, below, strict=True)]
    assert contrast("#" + "".join(f"{channel:02x}" for channel in mixed), text) >= 4.5


def test_only_what_changed_is_sent_and_a_fault_takes_the_place_of_all():
    first = AskedQuestion((passage("a", 1.0),), None, {})
    states = [first, AskedQuestion(first.passages, None, {"scaledown": GrowingText("scaledown", "S")}),
              AskedQuestion(first.passages, None, {"scaledown": ended("scaledown", 5, 1.0, 1e9)}),
              AskedQuestion((passage("a", 1.0, True),), None, {"scaledown": ended("scaledown", 5, 1.0, 1e9)})]
    sent = []
    for update in page_updates(iter(states)):
        sent.append([part is not None for part in update])
    assert sent == [[True, True, True], [True, False, False], [True, True, False], [False, False, True]]

    def failing():
        yield first
        raise ValueError(BAD)

    *_, last = page_updates(failing())
    assert last.costs == last.documents == "" and "&lt;script&gt;" in last.answers and 'role="alert"' in last.answers
