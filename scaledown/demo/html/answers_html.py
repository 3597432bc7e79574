"""The answers of all systems as HTML, the one from memory first, and what stands in their place before them."""

from __future__ import annotations

from html import escape

from scaledown.demo.asking import SYSTEMS
from scaledown.demo.timed_answer import GrowingText
from scaledown.evaluation.systems import FULL_TEXT, LABELS, NO_DOCUMENTS, SCALEDOWN

READS = {SCALEDOWN.name: "reads memory", FULL_TEXT.name: "reads every word, adapter off",
         NO_DOCUMENTS.name: "reads the question alone"}
"""What each system's generator reads."""
WELCOME = """<div class="sd sd-welcome"><h2>Ask, and see what each answer costs</h2>
<ol><li><b>Compress</b> Each document is read together with the question, and becomes a few embeddings: its memory.</li>
<li><b>Keep</b> The same pass scores the documents for the question. The best are kept, the others left out.</li>
<li><b>Answer</b> The generator answers from what was kept of the memory; then, to compare, from the full text, and
without any document.</li>
<li><b>Look inside</b> Tokens, operations and seconds of each answer; and for each document where its text resembles its
memory, and which tokens its embeddings are nearest to.</li></ol></div>"""


def answers_html(answers: dict[str, GrowingText]) -> str:
    """Return the answers so far; a system that was not asked yet waits."""
    cards = [_card(system.name, answers.get(system.name)) for system in SYSTEMS]
    return f'<div class="sd sd-answers" aria-live="polite">{"".join(cards)}</div>'


def notice_html(message: str) -> str:
    """Return a message to the user as a text."""
    return f'<div class="sd sd-notice" role="alert">{escape(message)}</div>'


def _card(system: str, answer: GrowingText | None) -> str:
    state = "waits"
    if answer is not None:
        state = "ended" if answer.has_ended else "grows"

    text = '<p class="sd-text sd-quiet">\N{HORIZONTAL ELLIPSIS}</p>'
    if answer is not None and answer.fault:
        text = f'<p class="sd-fault">{escape(answer.fault)}</p>'
    elif answer is not None and (answer.text or answer.has_ended):
        text = f'<p class="sd-text">{escape(answer.text) or "(an empty answer)"}</p>'
    if answer is not None and answer.note:
        text += f'<p class="sd-quiet">{escape(answer.note)}</p>'
    return (f'<section class="sd-card sd-{system} sd-{state}"><h3>{LABELS[system]} '
            f"<small>{READS[system]}</small></h3>{text}</section>")
