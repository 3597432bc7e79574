"""Where a text may be cut: at the ends of sentences, else between words, and inside a word only where it must be."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

Span = tuple[int, int]

# Chinese and Japanese have no spaces: there a word, as far as cutting goes, ends with a full stop.
_FULL_STOPS = "。！？｡"
WORD = re.compile(rf"[^\s{_FULL_STOPS}]+[{_FULL_STOPS}]*|[{_FULL_STOPS}]+")
_SENTENCE_END = re.compile(rf"[.!?…؟।{_FULL_STOPS}][\"'”’»)\]]*$")
_ABBREVIATION = re.compile(
    r"[\"'“‘(\[]*(?:(?:[A-Za-z]\.)+|(?:Mrs?|Ms|Drs?|Prof|St|Mt|Ft|Gen|Col|Lt|Sgt|Capt|Rev|Hon|Gov|Sen|Rep|Jr|Sr|vs|cf|"
    r"ca|No|Vol|Inc|Ltd|Co|Corp)\.)$")


class _Piece(NamedTuple):
    """Characters ``start`` to ``end``; ``parts`` are what to fall back on where the piece is too long."""

    start: int
    end: int
    num_tokens: int
    parts: tuple[_Piece, ...] = ()


def cut(text: str, kept: Iterable[Span], count_word: Callable[[str], int], budget: int) -> list[Span]:
    """Cut ``text`` into as few stretches of at most ``budget`` tokens as a pass from left to right gives.

    Every character that is not white space is in exactly one stretch. A span in ``kept`` is not cut unless it is
    longer than ``budget`` itself. ``count_word`` gives the tokens of one word.
    """
    words = [_Piece(*match.span(), count_word(match.group())) for match in WORD.finditer(text)]
    may_cut = _between_kept(words, kept)
    groups = words if all(may_cut) else _join(words, may_cut)
    last_words = [i for i, cuttable in enumerate(may_cut) if cuttable]
    sentences = _join(groups, [_ends_sentence(text, words, i) for i in last_words])
    return _pack(_fit(sentences, budget), budget)


def _between_kept(words: Sequence[_Piece], kept: Iterable[Span]) -> list[bool]:
    """For each word, whether a cut may come after it."""
    may_cut = [True] * len(words)
    if not (kept := list(kept)):
        return may_cut
    starts, ends = [word.start for word in words], [word.end for word in words]
    for start, end in kept:
        first, last = bisect_right(ends, start), bisect_left(starts, end) - 1
        may_cut[first:last] = [False] * max(0, last - first)
    return may_cut


def _ends_sentence(text: str, words: Sequence[_Piece], i: int) -> bool:
    if i + 1 == len(words) or "\n" in text[words[i].end:words[i + 1].start]:
        return True
    word = text[words[i].start:words[i].end]
    if not _SENTENCE_END.search(word) or _ABBREVIATION.match(word):
        return False
    return not text[words[i + 1].start].islower()


def _join(pieces: Sequence[_Piece], is_last: Sequence[bool]) -> list[_Piece]:
    """Join each run of pieces that ends with one that ``is_last``."""
    joined, run = [], []
    for piece, last in zip(pieces, is_last, strict=True):
        run.append(piece)
        if last:
            joined.append(_Piece(run[0].start, piece.end, sum(part.num_tokens for part in run), tuple(run)))
            run = []
    return joined


def _fit(pieces: Iterable[_Piece], budget: int) -> Iterator[_Piece]:
    """The pieces, with those above ``budget`` taken apart."""
    for piece in pieces:
        if piece.num_tokens <= budget:
            yield piece
        elif piece.parts:
            yield from _fit(piece.parts, budget)
        else:
            yield from _characters(piece, budget)


def _characters(word: _Piece, budget: int) -> Iterator[_Piece]:
    """A word taken apart, as if all of its characters had the same share of its tokens."""
    width = max(1, (word.end - word.start) * budget // word.num_tokens)
    for start in range(word.start, word.end, width):
        yield _Piece(start, min(start + width, word.end), budget)


def _pack(pieces: Iterable[_Piece], budget: int) -> list[Span]:
    packed: list[Span] = []
    room = 0
    for piece in pieces:
        if piece.num_tokens <= room:
            packed[-1] = (packed[-1][0], piece.end)
        else:
            packed.append((piece.start, piece.end))
            room = budget
        room -= piece.num_tokens
    return packed
