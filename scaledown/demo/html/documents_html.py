"""The documents and passages as HTML, best first: their scores as bars, what was kept, and what their memory holds."""

from __future__ import annotations

from html import escape

from scaledown.demo.asking import AskedQuestion, ReadPassage
from scaledown.demo.html.scores_html import ScoreScale, score_html, score_text
from scaledown.demo.html.strip_html import strip_html
from scaledown.models.serving.choosing import by_score
from scaledown.prompt import titled

MOST_OPEN = 1
"""Passages that are open at first."""
START_CHARACTERS = 200
"""Of its text, beside its name."""


def documents_html(asked: AskedQuestion) -> str:
    """Return the list of all that was compressed; each entry opens to its text."""
    passages = asked.passages
    has_scores = all(passage.score is not None for passage in passages)
    scores = [passage.score for passage in passages if passage.score is not None]
    order = by_score(scores) if has_scores else range(len(passages))
    scale = ScoreScale.of(scores, asked.threshold) if has_scores else None

    # One scale of heat for all, so that passages can be compared.
    highest = max((passage.look.highest for passage in passages if passage.look is not None), default=0.0)
    entries = []
    for place, number in enumerate(order):
        entries.append(_entry(passages[number], number, scale, highest, is_open=place < MOST_OPEN))
    return (f'<div class="sd sd-documents"><h2>What was compressed, and what was kept</h2>'
            f'<p class="sd-quiet">{_summary(asked, has_scores)}</p>{_legend(highest)}{"".join(entries)}</div>')


def _summary(asked: AskedQuestion, has_scores: bool) -> str:
    num_kept = sum(passage.is_kept for passage in asked.passages)
    kind = "passages" if any(passage.place is not None for passage in asked.passages) else "documents"
    text = f"{num_kept} of {len(asked.passages)} {kind} were kept for the generator."
    if not has_scores:
        return f"{text} This checkpoint has no scores, so all are kept."
    if asked.threshold is not None:
        text += f" The line in each bar is at {score_text(asked.threshold)}, from which on <b>auto</b> keeps."
    return text


def _legend(highest: float) -> str:
    if highest <= 0:
        return ""
    return ('<p class="sd-legend sd-quiet">Heat: cosine with the memory <span>0</span>'
            f'<i class="sd-gradient"></i><span>{highest:.2f}</span></p>')


def _entry(passage: ReadPassage, number: int, scale: ScoreScale | None, highest: float, is_open: bool) -> str:
    score = "" if scale is None or passage.score is None else score_html(passage.score, scale)
    kept = '<span class="sd-badge sd-kept">kept</span>' if passage.is_kept else '<span class="sd-badge">left out</span>'

    body = f'<p class="sd-strip">{escape(passage.text)}</p>'
    if passage.look is not None:
        body = strip_html(passage.look, f"look-{number}", highest)
    if passage.place is not None:
        start, end = passage.place
        body = f'<p class="sd-quiet">Characters {start:,} to {end:,} of the document.</p>{body}'
    # Its title is its name already.
    start = escape(passage.text.removeprefix(f"{titled(passage.name, '')} ")[:START_CHARACTERS])
    return (f'<details{" open" if is_open else ""}><summary><span class="sd-name">{escape(passage.name)} '
            f"<small>{start}</small></span>{kept}{score}</summary>{body}</details>")
