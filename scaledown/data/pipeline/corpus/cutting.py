"""The pages of a corpus, in the layouts in which corpora are published, and cutting them into passages.

KILT's knowledge source (Petroni et al., arXiv:2009.02252) has a page a line; its ``text`` is a list: the title,
paragraphs, section headings ``Section::::Early life.`` and list items ``BULLET::::- one of them``. Others have a text
a line (BEIR: ``{"_id", "title", "text"}``).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scaledown.data.storage.lines import first_value, is_text, shown
from scaledown.prompt.passages import Paragraph, PassageSplitter, TokenCounter

PAGE_ID_NAMES = ("id", "_id", "docid", "doc_id", "wikipedia_id")
PAGE_TEXT_NAMES = ("text", "contents")
PAGE_TITLE_NAMES = ("title", "wikipedia_title")
EXPECTED_PAGE = "an object with id (or _id), text and, if it has one, title"
KILT_SECTION = "Section::::"
_BULLET = re.compile(r"^BULLET::::\s*(?:[-*#:]+\s+|\d+\.\s+)?")
PAGES_AT_ONCE = 256


@dataclass(frozen=True)
class Page:
    """A whole text of the corpus, before it is cut. Its ``id`` should be unique.

    ``is_article`` says that it came in paragraphs, as KILT's pages do, and so is no passage as it is.
    """

    id: str
    title: str
    text: str
    is_article: bool = False


PassageRow = dict[str, Any]
"""A passage as it is stored: its id, title, document and number of tokens."""
Cutter = Callable[[Sequence[Page]], list[PassageRow]]
"""Cuts pages, a batch at a time, into their passages."""


def page_of(values: Any) -> Page:
    """Return the page that a line or a row of a corpus holds.

    Raises:
        ValueError: if it holds none; the message says what was expected.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"expected {EXPECTED_PAGE}")

    text = first_value(values, PAGE_TEXT_NAMES)
    is_article = isinstance(text, list) and all(isinstance(line, str) for line in text)
    if is_article:
        text = kilt_text(text)
    title = first_value(values, PAGE_TITLE_NAMES)
    page = Page(_as_text(first_value(values, PAGE_ID_NAMES)), "" if title is None else _as_text(title), text,
                is_article)

    # The values may still be of any type. Text and title may be blank, an id may not.
    faults = []
    for name, value in (("id", page.id), ("title", page.title), ("text", page.text)):
        if value is None or name == "id" and not str(value).strip():
            faults.append(f"it has no {name}")
        elif not is_text(value):
            faults.append(f"its {name} is {shown(value)}")

    if faults:
        raise ValueError(f"{'; '.join(faults)}; expected {EXPECTED_PAGE}")
    return page


def _as_text(value: Any) -> Any:
    """Return a number, which an id or a title may be, as text, and any other value as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def kilt_text(lines: list[str]) -> str:
    """Return the running text of a KILT page: without title and section headings, list items without their marks."""
    texts = []
    for line in lines[1:]:  # the title comes first
        if line.strip() and not line.startswith(KILT_SECTION):
            texts.append(_BULLET.sub("", line).strip())
    return "\n".join(texts)


def cut_pages(pages: Iterable[Page], cutter: Cutter) -> Iterator[list[PassageRow]]:
    """Yield the passages of pages, a batch of pages at a time."""
    pages = iter(pages)
    while batch := list(itertools.islice(pages, PAGES_AT_ONCE)):
        yield cutter(batch)


def token_cutter(count_tokens: TokenCounter, passage_tokens: int) -> Cutter:
    """Return a cutter at the ends of sentences, into passages of at most ``passage_tokens``, the title included."""
    splitter = PassageSplitter(count_tokens, passage_tokens)

    def cut(pages: Sequence[Page]) -> list[PassageRow]:
        paragraphs = [Paragraph(page.id, " ".join(page.title.split()), page.text) for page in pages]
        passages = splitter.split_batch(paragraphs, [()] * len(paragraphs))  # no spans that have to stay whole

        rows: list[PassageRow] = []
        for page, page_passages in zip(pages, passages, strict=True):
            rows += _rows(page, [(passage.document, passage.num_tokens) for passage in page_passages])
        return rows

    return cut


def word_cutter(count_tokens: TokenCounter, passage_words: int) -> Cutter:
    """Return a cutter into passages of ``passage_words`` words, with the title in front of them, as BERGEN does."""

    def cut(pages: Sequence[Page]) -> list[PassageRow]:
        documents: list[str] = []  # of all pages, so that one call counts the tokens of the whole batch
        ends = []  # ends[i] is the number of documents up to page i
        for page in pages:
            words = page.text.split()
            for start in range(0, len(words), passage_words):
                documents.append(" ".join([*_title(page), *words[start:start + passage_words]]))
            ends.append(len(documents))
        num_tokens = count_tokens(documents) if documents else []

        rows: list[PassageRow] = []
        start = 0
        for page, end in zip(pages, ends, strict=True):
            rows += _rows(page, list(zip(documents[start:end], num_tokens[start:end], strict=True)))
            start = end
        return rows

    return cut


def _rows(page: Page, documents: Sequence[tuple[str, int]]) -> list[PassageRow]:
    """Return the passages of one page, from their documents and numbers of tokens.

    The only passage of a page has the page's id; if there are several, their numbers follow it.
    """
    rows = []
    for number, (document, num_tokens) in enumerate(documents):
        passage_id = page.id if len(documents) == 1 else f"{page.id}-{number}"
        rows.append({"id": passage_id, "title": page.title, "document": document, "num_tokens": num_tokens})
    return rows


def _title(page: Page) -> list[str]:
    """Return the title with a full stop, as the only entry, or an empty list if there is none."""
    title = " ".join(page.title.split())
    return [f"{title}."] if title else []
