"""The page: what can be typed, chosen and clicked, and what is shown, made with Gradio."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import Any

import gradio as gr

from scaledown.config import AUTO
from scaledown.demo.asking import ask
from scaledown.demo.box_text import box_text, documents_in
from scaledown.demo.document_file import ENDINGS, MOST_FILE_BYTES, documents_of_file
from scaledown.demo.html.answers_html import WELCOME, notice_html
from scaledown.demo.html.strip_html import selection_css
from scaledown.demo.page_updates import PageUpdate, page_updates
from scaledown.demo.samples import samples_for
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.choosing import Keep

ALL = "all"
NOTHING_YET = PageUpdate(WELCOME, "", "")
"""The parts of the page before a question is asked."""
KEPT_NUMBERS = ("1", "2", "3", "5", "10")
MOST_WAITING = 16
"""Questions that wait for their turn; one more is refused."""
FONTS = ("system-ui", "sans-serif")
"""Of the reader's machine: other themes of Gradio load theirs from Google."""
DOCUMENTS_HELP = 'Blank lines separate them, or lines of ---. A first line "# Title" is a title.'
KEEP_HELP = "Best documents, or passages of long ones, that the generator reads."
# The browser reads the file and sends its name and bytes, a byte more than allowed of one that is too long: no file is
# stored on this machine, and no path comes from a client.
OPEN_FILE = """async () => {
  const input = document.createElement('input');
  input.type = 'file';
  input.accept = 'ENDINGS';
  const file = await new Promise(resolve => {
    input.onchange = () => resolve(input.files[0]);
    input.oncancel = () => resolve(null);
    input.click();
  });
  if (!file) return ['', ''];
  const url = await new Promise(resolve => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(file.slice(0, NUM_BYTES));
  });
  return [file.name, url.split(',')[1] || ''];
}""".replace("ENDINGS", ",".join(ENDINGS)).replace("NUM_BYTES", str(MOST_FILE_BYTES + 1))
# On a phone the answers are below what was clicked.
SHOW_ANSWERS = """() => {
  if (window.innerWidth < 768) document.getElementById('answers').scrollIntoView({behavior: 'smooth'});
}"""


def build_page(model: ScaleDownModel, name: str) -> gr.Blocks:
    """Return the page of a model with a compressor; ``name`` is that of its checkpoint."""
    samples = samples_for(model.config.generator_model)
    by_question = {sample.question: sample for sample in samples}
    keeps = keep_choices(model)

    with gr.Blocks(title="ScaleDown", analytics_enabled=False, fill_width=False) as page:
        gr.HTML(_head(model, name), apply_default_css=False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                sample = gr.Dropdown(list(by_question), value=samples[0].question, label="Sample", filterable=False)
                question = gr.Textbox(samples[0].question, label="Question", lines=1, max_lines=4, elem_id="question")
                box = gr.Textbox(samples[0].box, label="Documents", info=DOCUMENTS_HELP, lines=10, max_lines=10,
                                 elem_id="documents")
                open_file = gr.Button("Open a file of documents", size="md", elem_id="open-file")
                keep = gr.Dropdown(keeps, value=keeps[0], label="Keep", info=KEEP_HELP, visible=len(keeps) > 1)
                asked = gr.Button("Ask", variant="primary", elem_id="ask")
            with gr.Column(scale=3, min_width=300):
                answers = gr.HTML(WELCOME, elem_id="answers", apply_default_css=False)
                costs = gr.HTML(elem_id="costs", apply_default_css=False)
        documents = gr.HTML(elem_id="what-was-kept", apply_default_css=False)
        # What the browser sends of a file.
        file_name, content = gr.Textbox(visible=False), gr.Textbox(visible=False)

        def fill(chosen: str) -> list[str]:
            return [by_question[chosen].question, by_question[chosen].box, *NOTHING_YET]

        def answer(question: str, box: str, keep: str) -> Iterator[list[Any]]:
            for update in answered(model, question, box, keep):
                yield _parts(update)

        # One question at a time is computed; the others wait.
        page.queue(max_size=MOST_WAITING, default_concurrency_limit=1)
        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        results = [answers, costs, documents]
        sample.input(fill, sample, [question, box, *results], **quiet)
        open_file.click(opened, [file_name, content], [box, *results], js=OPEN_FILE, **quiet)
        gr.on([asked.click, question.submit], answer, [question, box, keep], results, **quiet)
        gr.on([asked.click, question.submit], None, js=SHOW_ANSWERS, **quiet)
    return page


def answered(model: ScaleDownModel, question: str, box: str, keep: str) -> Iterator[PageUpdate]:
    """Yield what changes on the page while a question is answered.

    Args:
        model: answers.
        question: as it was typed.
        box: the text of the documents' box.
        keep: one of :func:`keep_choices`.
    """
    yield from page_updates(ask(model, question or "", documents_in(box or ""), keep_of(keep)))


def opened(name: str, content: str) -> list[Any]:
    """Return the new text of the documents' box, and of the three parts of the page.

    Answers that are shown belong to the documents before, so they go. A file that cannot be read changes no document,
    and the message about it takes their place.

    Args:
        name: of the file; "" if none was chosen.
        content: its bytes in base64.
    """
    # Nothing was chosen in the browser's window, so all stays as it is.
    if not name:
        return [gr.skip()] * 4

    try:
        return [box_text(documents_of_file(name, base64.b64decode(content, validate=True))), *NOTHING_YET]
    except binascii.Error:
        message = f"{name}: it did not come whole; open it again"
    except ValueError as fault:
        message = str(fault)
    return [gr.skip(), notice_html(message), "", ""]


def keep_choices(model: ScaleDownModel) -> list[str]:
    """Return what can be kept, as the page names it; the first is its default."""
    if not model.config.enable_reranking:
        return [ALL]
    best = [f"best {number}" for number in KEPT_NUMBERS]
    return [ALL, *best] if model.config.keep_threshold is None else [AUTO, ALL, *best]


def keep_of(choice: str) -> Keep:
    """Return what ``model.answer`` takes for a choice of the page."""
    if choice == ALL:
        return None
    return AUTO if choice == AUTO else int(choice.removeprefix("best "))


def theme() -> gr.Theme:
    """Return the page's theme, with fonts of the reader's machine."""
    base = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono="monospace")
    # Gradio's quiet texts and its button have less contrast than small letters need.
    return base.set(body_text_color_subdued="*neutral_500", block_info_text_color="*neutral_500",
                    button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700")


def css(model: ScaleDownModel) -> str:
    """Return the page's own styles."""
    return files("scaledown.demo").joinpath("page.css").read_text(encoding="utf-8") + selection_css(
        model.config.num_memory_tokens)


def _parts(update: PageUpdate) -> list[Any]:
    return [gr.skip() if part is None else part for part in update]


def _head(model: ScaleDownModel, name: str) -> str:
    return (f'<header class="sd sd-head"><h1>ScaleDown</h1><p>Each document becomes {model.config.num_memory_tokens} '
            f"embeddings, and the generator answers from these. Checkpoint <b>{escape(name)}</b> on {model.device}.</p>"
            "</header>")
