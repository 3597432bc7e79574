"""Texts cut into passages that a compressor can read whole, with nothing lost: of corpora, and of long documents.

A passage is a stretch of its paragraph. Its document has the title in front (:func:`scaledown.prompt.titled`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scaledown.progress import Bar
from scaledown.prompt import titled
from scaledown.prompt.plain_text import plain_ids
from scaledown.prompt.sentences import WORD, Span, cut

TokenCounter = Callable[[list[str]], list[int]]
SMALLEST_PASSAGE_TOKENS = 16
"""The fewest that make sense for a corpus: room for a short title and a clause."""
TEXTS_AT_ONCE = 10_000
REMEMBERED_WORDS = 500_000
"""Words whose number of tokens is cached; beyond that the cache is cleared, so that no corpus fills the memory."""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of an article. All of an ``article`` stays in one half of a dataset."""

    article: str
    title: str
    text: str


@dataclass(frozen=True)
class Passage:
    """Characters ``start`` to ``end`` of a paragraph, and the document, of ``num_tokens``, that a model reads."""

    paragraph: Paragraph
    start: int
    end: int
    document: str
    num_tokens: int = 0

    def overlaps(self, span: Span) -> bool:
        """Return whether any character of ``span`` (in the paragraph) is in this passage."""
        return self.start < span[1] and span[0] < self.end


def token_counter(tokenizer: Any) -> TokenCounter:
    """Return a function that counts the tokens of many texts as a model with this transformers tokenizer reads them."""

    def count_tokens(texts: list[str]) -> list[int]:
        return [len(ids) for ids in plain_ids(tokenizer, texts)]

    return count_tokens


class PassageSplitter:
    """Cuts paragraphs into passages of at most ``passage_tokens`` tokens, with the title in front.

    The tokens of each distinct word are counted once, in one call of the tokenizer, and paragraphs are cut by the sums.
    Then the documents themselves are counted, and a paragraph with one that is too long is cut again, shorter.

    Args:
        count_tokens: counts the tokens of texts.
        passage_tokens: the longest document of a passage.
        ends_with_paragraphs: a passage also ends at a blank line, unless it would be short.

    Raises:
        ValueError: if ``passage_tokens`` is below 1.
    """

    def __init__(self, count_tokens: TokenCounter, passage_tokens: int, ends_with_paragraphs: bool = False) -> None:
        if passage_tokens < 1:
            raise ValueError(f"passage_tokens must be above 0, got {passage_tokens}")
        self._count_tokens = count_tokens
        self._passage_tokens = passage_tokens
        self._ends_with_paragraphs = ends_with_paragraphs
        self._word_tokens: dict[str, int] = {}

    def split(self, paragraphs: Sequence[Paragraph], whole_spans: Sequence[Iterable[Span]]) -> list[list[Passage]]:
        """Return the passages of each paragraph, in order, cut in batches with a progress bar.

        ``whole_spans[i]`` are the spans of ``paragraphs[i]`` that must not be cut, such as answers; one that is longer
        than a passage is cut nevertheless.
        """
        passages: list[list[Passage]] = []
        # Batches bound the memory of the tokenizer's output.
        with Bar(total=len(paragraphs), desc="cutting into passages", unit=" paragraphs", leave=False) as progress:
            for start in range(0, len(paragraphs), TEXTS_AT_ONCE):
                batch = slice(start, start + TEXTS_AT_ONCE)
                passages += self.split_batch(paragraphs[batch], whole_spans[batch])
                progress.update(len(passages) - start)
        return passages

    def split_batch(self, paragraphs: Sequence[Paragraph],
                    whole_spans: Sequence[Iterable[Span]]) -> list[list[Passage]]:
        """Split as :meth:`split`, all paragraphs at once."""
        if len(self._word_tokens) > REMEMBERED_WORDS:
            self._word_tokens.clear()
        self._count_words([paragraph.title for paragraph in paragraphs] + [paragraph.text for paragraph in paragraphs])

        # A title in front of a text ends in "word.", which is a new word to count.
        titles = [self._cut_title(paragraph.title) for paragraph in paragraphs]
        headings = [titled(title, "") for title in titles]
        self._count_words(headings)
        budgets = [self._passage_tokens - self._num_tokens(heading) for heading in headings]

        # Sums over words are only close to a document's own number of tokens: tokenizers merge across words. So cut,
        # count the documents, and cut again those paragraphs whose longest document has ``excess`` tokens too many.
        passages: list[list[Passage]] = [[] for _ in paragraphs]
        pending = list(range(len(paragraphs)))
        while pending:
            for i in pending:
                spans = cut(paragraphs[i].text, whole_spans[i], self._tokens_of_word, budgets[i],
                            self._ends_with_paragraphs)
                passages[i] = [_passage(paragraphs[i], titles[i], *span) for span in spans]
            self._count(passages, pending)

            too_long = []
            for i in pending:
                longest = max((passage.num_tokens for passage in passages[i]), default=0)
                excess = longest - self._passage_tokens
                if excess > 0 and budgets[i] > 1:
                    budgets[i] = max(1, budgets[i] - excess)
                    too_long.append(i)
            pending = too_long
        return passages

    def _count(self, passages: list[list[Passage]], pending: Sequence[int]) -> None:
        """Set the true number of tokens of the pending paragraphs' passages, by one call of the tokenizer."""
        documents: list[str] = []
        for i in pending:
            documents += [passage.document for passage in passages[i]]
        if not documents:
            return

        # The counts come in the order in which the documents were gathered.
        counts = iter(self._count_tokens(documents))
        for i in pending:
            passages[i] = [dataclasses.replace(passage, num_tokens=next(counts)) for passage in passages[i]]

    def _count_words(self, texts: Iterable[str]) -> None:
        """Count the tokens of words that are new, each as it stands in a text: after another word."""
        words: set[str] = set()
        for text in texts:
            words.update(WORD.findall(text))
        new_words = sorted(words - self._word_tokens.keys())
        if not new_words:
            return

        # A word's tokens are those of "a word" less those of "a": at the start of a text it may have others.
        num_alone, *counts = self._count_tokens(["a", *(f"a {word}" for word in new_words)])
        for word, count in zip(new_words, counts, strict=True):
            self._word_tokens[word] = count - num_alone

    def _tokens_of_word(self, word: str) -> int:
        """Return the tokens of a word; a part of a long one is counted when it is asked for."""
        if word not in self._word_tokens:
            self._count_words([word])
        return self._word_tokens[word]

    def _num_tokens(self, text: str) -> int:
        """Return the tokens of ``text``, as the sum over its words."""
        return sum(self._word_tokens[word] for word in WORD.findall(text))

    def _cut_title(self, title: str) -> str:
        """Return the title, cut after a word if it would fill more than half a passage."""
        words = title.split()
        while words and self._num_tokens(" ".join(words)) >= self._passage_tokens // 2:
            words.pop()
        return " ".join(words)


def _passage(paragraph: Paragraph, title: str, start: int, end: int) -> Passage:
    """Return the passage of a paragraph's characters ``start`` to ``end``, with its document."""
    # Line breaks and repeated spaces become single spaces.
    words = paragraph.text[start:end].split()
    return Passage(paragraph, start, end, titled(title, " ".join(words)))
