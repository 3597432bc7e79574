"""Paragraphs into passages short enough for a compressor to read whole, with nothing lost.

A passage is a stretch of its paragraph. The document made of it has the title in front, ``Title. text``, as BERGEN
(Rau et al., arXiv:2407.01102) writes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tqdm.auto import tqdm

from scaledown.data.sentences import WORD, Span, cut

TokenCounter = Callable[[list[str]], list[int]]
SMALLEST_PASSAGE_TOKENS = 16
TEXTS_AT_ONCE = 10_000
REMEMBERED_WORDS = 500_000
"""Words whose tokens are counted once; beyond that they are forgotten, so that no corpus can fill the memory."""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of an article. ``article`` names what never straddles the two halves of a dataset."""

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
        """Whether any character of ``span`` (in the paragraph) is in this passage."""
        return self.start < span[1] and span[0] < self.end


def token_counter(tokenizer: Callable[..., dict[str, list[list[int]]]]) -> TokenCounter:
    """A function that counts the tokens of each of many texts by a transformers tokenizer, special ones left out."""

    def count_tokens(texts: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]

    return count_tokens


class PassageSplitter:
    """Cuts paragraphs into passages of at most ``passage_tokens`` tokens, the title in front counted.

    Each different word is counted once, all of them together, and paragraphs are cut by the sums. Then the documents
    themselves are counted, and a paragraph with one too long is cut again, shorter.

    Raises:
        ValueError: for a ``passage_tokens`` that leaves no room for text beside a title.
    """

    def __init__(self, count_tokens: TokenCounter, passage_tokens: int) -> None:
        if passage_tokens < SMALLEST_PASSAGE_TOKENS:
            raise ValueError(f"--passage_tokens must be at least {SMALLEST_PASSAGE_TOKENS}, got {passage_tokens}")
        self._count_tokens = count_tokens
        self._passage_tokens = passage_tokens
        self._word_tokens: dict[str, int] = {}

    def split(self, paragraphs: Sequence[Paragraph], kept: Sequence[Iterable[Span]]) -> list[list[Passage]]:
        """The passages of each paragraph, in order, by batches and with a progress bar.

        ``kept[i]`` are the spans of ``paragraphs[i]`` that are to stay whole; one longer than a passage is cut.
        """
        passages: list[list[Passage]] = []
        with tqdm(total=len(paragraphs), desc="cutting into passages", unit=" paragraphs", leave=False) as progress:
            for first in range(0, len(paragraphs), TEXTS_AT_ONCE):
                batch = slice(first, first + TEXTS_AT_ONCE)
                passages += self.split_batch(paragraphs[batch], kept[batch])
                progress.update(len(passages) - first)
        return passages

    def split_batch(self, paragraphs: Sequence[Paragraph], kept: Sequence[Iterable[Span]]) -> list[list[Passage]]:
        """As :meth:`split`, of few paragraphs."""
        if len(self._word_tokens) > REMEMBERED_WORDS:
            self._word_tokens.clear()
        self._learn_words(text for paragraph in paragraphs for text in (paragraph.title, paragraph.text))
        titles = [self._title(paragraph.title) for paragraph in paragraphs]
        self._learn_words(titles)
        budgets = [self._passage_tokens - self._sum(title) for title in titles]
        passages: list[list[Passage]] = [[] for _ in paragraphs]
        pending = list(range(len(paragraphs)))
        while pending:
            for i in pending:
                spans = cut(paragraphs[i].text, kept[i], self._word_tokens.__getitem__, budgets[i])
                passages[i] = [_passage(paragraphs[i], titles[i], *span) for span in spans]
            self._count(passages, pending)
            excess = {i: max(passage.num_tokens for passage in passages[i]) - self._passage_tokens
                      for i in pending if passages[i]}
            pending = [i for i in excess if excess[i] > 0 and budgets[i] > 1]
            for i in pending:
                budgets[i] = max(1, budgets[i] - excess[i])
        return passages

    def _count(self, passages: list[list[Passage]], pending: Sequence[int]) -> None:
        """Put the true number of tokens into the pending paragraphs' passages."""
        documents = [passage.document for i in pending for passage in passages[i]]
        counts = iter(self._count_tokens(documents) if documents else ())
        for i in pending:
            passages[i] = [dataclasses.replace(passage, num_tokens=next(counts)) for passage in passages[i]]

    def _learn_words(self, texts: Iterable[str]) -> None:
        """Count the tokens of words not met before, each as it stands in a text: after another word."""
        words = sorted({word for text in texts for word in WORD.findall(text)} - self._word_tokens.keys())
        if words:
            alone, *after = self._count_tokens(["a", *(f"a {word}" for word in words)])
            self._word_tokens |= {word: count - alone for word, count in zip(words, after, strict=True)}

    def _sum(self, text: str) -> int:
        return sum(self._word_tokens[word] for word in WORD.findall(text))

    def _title(self, title: str) -> str:
        """The title with a full stop, cut after a word where it would fill more than half a passage."""
        words = title.split()
        while words and self._sum(" ".join(words)) >= self._passage_tokens // 2:
            words.pop()
        return f"{' '.join(words)}." if words else ""


def _passage(paragraph: Paragraph, title: str, start: int, end: int) -> Passage:
    words = paragraph.text[start:end].split()
    return Passage(paragraph, start, end, " ".join([title, *words] if title else words))
