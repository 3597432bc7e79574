"""The parts of the page that change as a question is answered; what did not change is not sent again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from scaledown.demo.asking import AskedQuestion
from scaledown.demo.html.answers_html import answers_html, notice_html
from scaledown.demo.html.costs_html import costs_html
from scaledown.demo.html.documents_html import documents_html


class PageUpdate(NamedTuple):
    """The three parts of the page as HTML; None for one that stays as it is."""

    answers: str | None
    costs: str | None
    documents: str | None


def page_updates(states: Iterator[AskedQuestion]) -> Iterator[PageUpdate]:
    """Yield what changes on the page with each state; a fault of the user's becomes a message in place of all."""
    shown = PageUpdate(None, None, None)
    passages = None
    try:
        for asked in states:
            # Documents are long, and change only with what is known of them.
            documents = shown.documents if asked.passages is passages else documents_html(asked)
            passages = asked.passages
            known = PageUpdate(answers_html(asked.answers), costs_html(asked.answers), documents)
            changed = [new if new != old else None for new, old in zip(known, shown, strict=True)]
            shown = known
            yield PageUpdate(*changed)
    except ValueError as fault:
        yield PageUpdate(notice_html(str(fault)), "", "")
