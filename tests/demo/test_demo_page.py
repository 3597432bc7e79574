"""The functions that the page calls, without a browser, and the page as Gradio describes it."""

from __future__ import annotations

import base64
import dataclasses
import json

import pytest

from scaledown import ScaleDownModel
from scaledown.demo.samples import samples_for

gr = pytest.importorskip("gradio", reason="needs Gradio: pip install -e '.[demo]'")
from scaledown.demo import page, page_server  # noqa: E402 - they import Gradio


@pytest.fixture(scope="module")
def model() -> ScaleDownModel:
    return ScaleDownModel.from_pretrained("embedded", device="cpu")


@pytest.fixture(scope="module")
def description(model) -> dict:
    return page.build_page(model, "<b>name</b>").get_config_file()


def test_a_sample_is_answered_and_all_parts_are_shown(model):
    sample = samples_for("embedded")[0]
    parts = ["", "", ""]
    for update in page.answered(model, sample.question, sample.box, "auto"):
        parts = [old if new is None else new for old, new in zip(parts, update, strict=True)]
    answers, costs, documents = parts
    assert f'<p class="sd-text">{sample.answer}</p>' in answers
    assert "Prompt tokens" in costs and costs.count("sd-bar") == 5 * 3
    assert "1 of 5 documents were kept" in documents and "sd-token" in documents


@pytest.mark.parametrize(("question", "box", "message"), [
    ("", "text", "Question: type one"), (None, "text", "Question: type one"),
    ("Who?", " ", "Documents: paste"), ("Who?", None, "Documents: paste")])
def test_bad_input_is_a_message_on_the_page(model, question, box, message):
    [update] = page.answered(model, question, box, "all")
    assert 'role="alert"' in update.answers and message in update.answers and update.costs == ""


def test_a_file_fills_the_box_or_says_its_fault():
    content = base64.b64encode(json.dumps(["one", {"title": "Two", "text": "three"}]).encode()).decode()
    assert page.opened("a.json", content) == ["one\n\n# Two\nthree", *page.NOTHING_YET]
    for name, content, words in (("a.json", base64.b64encode(b"{").decode(), "a.json: no JSON"),
                                 ("a.txt", "not base64!", "did not come whole"), ("<i>.pdf", "", "&lt;i&gt;.pdf")):
        box, message, *others = page.opened(name, content)
        assert box == gr.skip() and words in message and 'role="alert"' in message and others == ["", ""]
    assert page.opened("", "") == [gr.skip()] * 4


def test_choices_are_those_that_the_checkpoint_has(model, monkeypatch):
    assert page.keep_choices(model)[:3] == ["auto", "all", "best 1"]
    with monkeypatch.context() as patch:
        patch.setattr(model, "config", dataclasses.replace(model.config, keep_threshold=None))
        assert page.keep_choices(model)[:2] == ["all", "best 1"]
    assert [page.keep_of(choice) for choice in ("auto", "all", "best 10")] == ["auto", None, 10]
    without_scores = ScaleDownModel.from_pretrained("embedded_modernbert", device="cpu")
    assert page.keep_choices(without_scores) == ["all"]
    kept = [each for each in page.build_page(without_scores, "x").get_config_file()["components"]
            if each["props"].get("label") == "Keep"]
    assert [each["props"]["visible"] for each in kept] == [False]


def test_nothing_of_the_page_is_taken_from_or_sent_to_another_host(model, description):
    assert description["analytics_enabled"] is False
    fonts = page.theme()._stylesheets
    assert not fonts and "http" not in page.css(model)
    # One question at a time, and no function that is offered by name to other programs.
    assert {each["api_visibility"] for each in description["dependencies"]} == {"private"}
    assert {each["type"] for each in description["components"]} & {"file", "uploadbutton", "image"} == set()


def test_the_checkpoints_name_is_shown_as_text(description):
    heads = [each["props"].get("value") or "" for each in description["components"] if each["type"] == "html"]
    assert any("&lt;b&gt;name&lt;/b&gt;" in head for head in heads)


def test_a_model_that_reads_text_is_refused(model, monkeypatch):
    monkeypatch.setattr(type(model.config), "reads_text", property(lambda _: True))
    with pytest.raises(ValueError, match="give a checkpoint with a compressor"):
        page_server.page_app(model, "x")
