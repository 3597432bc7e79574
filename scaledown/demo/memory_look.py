"""A look into the memory of one passage: the tokens that each embedding is nearest to, and where the text resembles it.

The generator reads memory and token embeddings alike, so the two are compared by their cosine (paper, figure 7), as
:mod:`scaledown.evaluation.figures.needle` does around the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from scaledown.evaluation.figures.needle import NUM_NEAREST, cosines
from scaledown.prompt.plain_text import plain_pieces, text_reader


class TextSegment(NamedTuple):
    """A part of a text.

    Attributes:
        text: its characters.
        cosines: of its token with each of the L memory embeddings; empty for what no token covers.
    """

    text: str
    cosines: tuple[float, ...]


class NearToken(NamedTuple):
    """An entry of the vocabulary, and its cosine with a memory embedding."""

    text: str
    cosine: float


class MemoryLook(NamedTuple):
    """The texts that the memory of one passage resembles.

    Attributes:
        segments: the text, token by token.
        nearest: for each of the L embeddings the entries of the vocabulary that it is nearest to.
    """

    segments: list[TextSegment]
    nearest: list[list[NearToken]]

    @property
    def highest(self) -> float:
        """The highest cosine of any token of the text, 0 if there is none above."""
        return max((max(segment.cosines, default=0.0) for segment in self.segments), default=0.0)


def look_into(memory: Tensor, text: str, tokenizer: Any, table: Tensor) -> MemoryLook:
    """Compare the memory of a passage with its text and with the vocabulary.

    Args:
        memory: its embeddings (L, D).
        text: as it was read, with the title.
        tokenizer: the generator's.
        table: the generator's token embeddings (V, D).
    """
    memory, table = memory.float(), table.float()
    segments = [TextSegment(text, ())]
    # Slow tokenizers do not say which characters a token covers.
    if text_reader(tokenizer).is_fast:
        ids, offsets = plain_pieces(tokenizer, text)
        similarity = cosines(memory, table[ids])                                  # (L, T)
        segments = segments_of(text, offsets, similarity.T.tolist())

    values, nearest_ids = cosines(memory, table).topk(NUM_NEAREST, dim=-1)        # each (L, NUM_NEAREST)
    nearest = []
    for embedding_ids, embedding_values in zip(nearest_ids.tolist(), values.tolist(), strict=True):
        near = []
        for token, value in zip(embedding_ids, embedding_values, strict=True):
            near.append(NearToken(tokenizer.decode([token]), value))
        nearest.append(near)
    return MemoryLook(segments, nearest)


def segments_of(text: str, offsets: Sequence[tuple[int, int]],
                similarity: Sequence[Sequence[float]]) -> list[TextSegment]:
    """Return a text as segments that together are the whole text.

    Args:
        text: the text.
        offsets: first character of each token, and the one behind its last. Several tokens may spell one character;
            they become one segment, which has the highest cosine of each embedding.
        similarity: for each token its cosine with each of the L embeddings (T, L).
    """
    segments: list[TextSegment] = []
    place = 0
    for (start, end), of_token in zip(offsets, similarity, strict=True):
        if end <= place:
            # More bytes of the character before.
            if segments and segments[-1].cosines:
                segments[-1] = _with(segments[-1], of_token)
            continue
        start = max(start, place)
        if start > place:
            segments.append(TextSegment(text[place:start], ()))
        segments.append(TextSegment(text[start:end], tuple(of_token)))
        place = end

    if place < len(text):
        segments.append(TextSegment(text[place:], ()))
    return segments


def _with(segment: TextSegment, of_token: Sequence[float]) -> TextSegment:
    """Return a segment that one more token spells."""
    pairs = zip(segment.cosines, of_token, strict=True)
    return TextSegment(segment.text, tuple(max(pair) for pair in pairs))
