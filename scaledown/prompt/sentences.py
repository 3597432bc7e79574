"""Cutting a text to a budget of tokens: after sentences, else between words, and inside a word only if it must be."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

Span = tuple[int, int]

# Chinese and Japanese have no spaces: for cutting, all up to a full stop counts as one word.
_FULL_STOPS = "。！？｡"
WORD = re.compile(rf"[^\s{_FULL_STOPS}]+[{_FULL_STOPS}]*|[{_FULL_STOPS}]+")
_BLANK_LINE = re.compile(r"[^\S\n]*\n[^\S\n]*\n")
SMALLEST_PARAGRAPH = 0.25
"""Share of a stretch from which on a paragraph may be one by itself."""
_SENTENCE_END = re.compile(rf"[.!?…؟।{_FULL_STOPS}][\"'”’»)\]]*$")
_ABBREVIATION = re.compile(
    r"[\"'“‘(\[]*(?:(?:[A-Za-z]\.)+|(?:Mrs?|Ms|Drs?|Prof|St|Mt|Ft|Gen|Col|Lt|Sgt|Capt|Rev|Hon|Gov|Sen|Rep|Jr|Sr|vs|cf|"
    r"ca|No|Vol|Inc|Ltd|Co|Corp)\.)$")


class _Unit(NamedTuple):
    """A word, words that must stay together, or a sentence: characters ``start`` to ``end``.

    ``members`` are the smaller units that it consists of, to be cut between if it is too long.
    """

    start: int
    end: int
    num_tokens: int
    members: tuple[_Unit, ...] = ()


def cut(text: str, whole_spans: Iterable[Span], count_word: Callable[[str], int], budget: int,
        ends_with_paragraphs: bool = False) -> list[Span]:
    """Cut ``text`` from left to right into stretches that hold as much as fits into ``budget`` tokens.

    Every character that is not white space is in exactly one stretch.

    Args:
        text: the text to cut.
        whole_spans: spans that are not cut, unless they are longer than ``budget`` themselves.
        count_word: gives the tokens of one word, or of a part of one that is longer than ``budget``.
        budget: most tokens of a stretch.
        ends_with_paragraphs: a stretch also ends at a blank line, if it has at least a quarter of the budget by then. A
            shorter paragraph before a long one, or at the end, stays with what is before it, if it fits there; a
            heading goes with what follows.

    Returns:
        The stretches as (start, end) in characters.
    """
    words = [_Unit(*match.span(), count_word(match.group())) for match in WORD.finditer(text)]

    # Words join to groups that must stay whole, and groups to sentences.
    may_cut = _may_cut_after(words, whole_spans)
    groups = words if all(may_cut) else _join(words, may_cut)
    last_words = [i for i, is_last in enumerate(may_cut) if is_last]  # of each group
    sentences = _join(groups, [_ends_sentence(text, words, i) for i in last_words])

    # What fits stays in one unit, and as many units as fit go into a stretch.
    fewest = math.ceil(budget * SMALLEST_PARAGRAPH) if ends_with_paragraphs else budget
    return _pack(text, _fit(text, sentences, count_word, budget), budget, fewest)


def _may_cut_after(words: Sequence[_Unit], whole_spans: Iterable[Span]) -> list[bool]:
    """Return for each word whether a cut may come after it."""
    may_cut = [True] * len(words)
    whole_spans = list(whole_spans)
    if not whole_spans:
        return may_cut

    starts, ends = [word.start for word in words], [word.end for word in words]
    for start, end in whole_spans:
        # The span's first word is the first that ends behind its start, its last the last that starts before its end.
        # After that last word a cut is fine.
        first, last = bisect_right(ends, start), bisect_left(starts, end) - 1
        for i in range(first, last):
            may_cut[i] = False
    return may_cut


def _ends_sentence(text: str, words: Sequence[_Unit], i: int) -> bool:
    """Return whether word ``i`` is the last of its sentence."""
    # A line break ends a sentence, be it a heading's or a list's.
    if i + 1 == len(words) or "\n" in text[words[i].end:words[i + 1].start]:
        return True

    word = text[words[i].start:words[i].end]
    if not _SENTENCE_END.search(word) or _ABBREVIATION.match(word):
        return False

    # "He asked why? and left.": no sentence begins with a small letter.
    return not text[words[i + 1].start].islower()


def _join(units: Sequence[_Unit], is_last: Sequence[bool]) -> list[_Unit]:
    """Join each run of units that ends with one that ``is_last``."""
    larger_units, run = [], []
    for unit, ends_run in zip(units, is_last, strict=True):
        run.append(unit)
        if ends_run:
            num_tokens = sum(member.num_tokens for member in run)
            larger_units.append(_Unit(run[0].start, unit.end, num_tokens, tuple(run)))
            run = []
    return larger_units


def _fit(text: str, units: Iterable[_Unit], count_word: Callable[[str], int], budget: int) -> Iterator[_Unit]:
    """Yield the units, with those above ``budget`` split up: a sentence into words, a word into characters."""
    for unit in units:
        if unit.num_tokens <= budget:
            yield unit
        elif unit.members:
            yield from _fit(text, unit.members, count_word, budget)
        else:
            yield from _split_word(text, unit, count_word, budget)


def _split_word(text: str, word: _Unit, count_word: Callable[[str], int], budget: int) -> Iterator[_Unit]:
    """Yield stretches of a word, each with at most ``budget`` tokens.

    As if its tokens were spread evenly over its characters; a stretch that has more than its share is split again.
    """
    width = max(1, (word.end - word.start) * budget // word.num_tokens)
    for start in range(word.start, word.end, width):
        end = min(start + width, word.end)
        part = _Unit(start, end, count_word(text[start:end]))
        if part.num_tokens <= budget:
            yield part
        elif end - start == 1:
            # A character is never split.
            yield part._replace(num_tokens=budget)
        else:
            yield from _split_word(text, part, count_word, budget)


def _pack(text: str, units: Iterable[_Unit], budget: int, fewest: int) -> list[Span]:
    """Put consecutive units together while they fit into ``budget``, or up to a blank line, if they have ``fewest``."""
    stretches: list[Span] = []
    num_free = 0  # tokens that the last stretch has room for
    is_closed = False  # at a blank line
    paragraphs = list(_paragraphs(text, units))
    sizes = list(map(_size, paragraphs))

    for number, paragraph in enumerate(paragraphs):
        # A long paragraph behind a short one would be cut, or share its stretch with something else.
        is_short = sizes[number] < fewest and _ends_with_full_stop(text, paragraph)
        is_alone = is_short and (number == len(sizes) - 1 or sizes[number + 1] >= fewest)
        if is_closed and not (is_alone and sizes[number] <= num_free):
            num_free = 0

        for unit in paragraph:
            if unit.num_tokens <= num_free:
                stretches[-1] = (stretches[-1][0], unit.end)
            else:
                stretches.append((unit.start, unit.end))
                num_free = budget
            num_free -= unit.num_tokens
        is_closed = budget - num_free >= fewest
    return stretches


def _size(units: Iterable[_Unit]) -> int:
    return sum(unit.num_tokens for unit in units)


def _ends_with_full_stop(text: str, paragraph: Sequence[_Unit]) -> bool:
    return bool(_SENTENCE_END.search(text[paragraph[-1].start:paragraph[-1].end]))


def _paragraphs(text: str, units: Iterable[_Unit]) -> Iterator[list[_Unit]]:
    """Yield the units up to each blank line."""
    paragraph: list[_Unit] = []
    for unit in units:
        paragraph.append(unit)
        if _BLANK_LINE.match(text, unit.end):
            yield paragraph
            paragraph = []
    if paragraph:
        yield paragraph
