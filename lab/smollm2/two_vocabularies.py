"""Words in two vocabularies: the pieces that an encoder reads, and the tokens that the generator says for them.

A word's characters tell which pieces are its own, whatever the encoder's tokenizer does with spaces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from scaledown.models.losses import IGNORED
from scaledown.prompt.plain_text import plain_ids, plain_pieces

Span = tuple[int, int]
"""The first character of a piece or a word in its text, and the one behind its last."""


class TwoVocabularies:
    """Texts in the vocabularies of an encoder and of the generator.

    Args:
        encoder_tokenizer: of what is read; a fast one.
        generator_tokenizer: of what is said about it.
    """

    def __init__(self, encoder_tokenizer: Any, generator_tokenizer: Any) -> None:
        self._encoder_tokenizer, self._generator_tokenizer = encoder_tokenizer, generator_tokenizer
        self._tokens: dict[str, list[int]] = {}

    def piece_spans(self, text: str) -> list[Span]:
        """Return the characters of each piece that the encoder reads of a text."""
        return plain_pieces(self._encoder_tokenizer, text)[1]

    def tokens_of(self, text: str, spans: Sequence[Span]) -> list[int]:
        """Return the generator's token for each piece of a text, ``IGNORED`` for those that stand for none.

        The k-th piece of a word stands for the word's k-th token.

        Args:
            text: a document.
            spans: of its pieces, the last of which may be cut off.
        """
        targets = [IGNORED] * len(spans)
        for word in re.finditer(r"\S+", text):
            pieces = _pieces_in(spans, word.span())
            for piece, token in zip(pieces, self._word_tokens(word[0]), strict=False):
                targets[piece] = token
        return targets

    def pieces_of(self, answer: str, text: str, spans: Sequence[Span]) -> list[int]:
        """Return the piece at which a text has each token of an answer; none if the text does not have its words.

        A word of more tokens than pieces has the others at its last piece.
        """
        words = answer.split()
        found = re.search(r"\s+".join(map(re.escape, words)), text, re.IGNORECASE) if words else None
        if found is None:
            return []

        pieces: list[int] = []
        for word in re.finditer(r"\S+", found[0]):
            first, end = word.span()
            own = _pieces_in(spans, (found.start() + first, found.start() + end))
            # Of an answer that is cut off with its document nothing is pointed at.
            if not own:
                return []
            pieces += [own[min(number, len(own) - 1)] for number in range(len(self._word_tokens(word[0])))]
        return pieces

    def _word_tokens(self, word: str) -> list[int]:
        """Return the generator's tokens of a word, as after a space."""
        if word not in self._tokens:
            [self._tokens[word]] = plain_ids(self._generator_tokenizer, [f" {word}"])
        return self._tokens[word]


def _pieces_in(spans: Sequence[Span], word: Span) -> list[int]:
    """Return the numbers of the pieces that have characters of a word."""
    first, end = word
    return [number for number, (start, stop) in enumerate(spans) if start < end and stop > first]
