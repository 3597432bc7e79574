"""Does a text hold an answer? Whole tokens, compared as SQuAD compares them (Rajpurkar et al., arXiv:1606.05250).

The negatives, the metrics and whoever else asks share these functions: what a metric takes for right is what a negative
must not hold.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import lru_cache

from scaledown.data.normal_form import is_unspaced, normal_form, words

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# SQuAD's, which is all of ASCII's, and what ends or encloses a word in Arabic, Hebrew, Indic scripts, Chinese and
# Japanese. Quotes and dashes of English texts stay, as they do in SQuAD.
_ARABIC_HEBREW_INDIC = "\u060c\u061b\u061f\u066a\u06d4\u05be\u05f3\u05f4\u0964\u0965"
_CHINESE_JAPANESE = "、。〈〉《》「」『』【】〔〕・！（），．：；？［］｛｝～"
_PUNCTUATION = str.maketrans("", "", string.punctuation + _ARABIC_HEBREW_INDIC + _CHINESE_JAPANESE)
_WORD = re.compile(r"\S+")
YES_NO = ("yes", "no")


def answer_tokens(text: str) -> list[str]:
    """Return the tokens of ``text`` in normal form, without punctuation and English articles."""
    return _ARTICLES.sub(" ", normal_form(text).translate(_PUNCTUATION)).split()


def padded(text: str) -> str:
    """The tokens of ``text`` between single spaces, so that a search in it finds whole tokens alone."""
    return f" {' '.join(answer_tokens(text))} "


def searchable(text: str) -> str:
    """What to search for a :func:`padded` or :func:`worded` answer that must not be in a text in any guise."""
    return f"{padded(text)}\n{worded(text)}"


def worded(text: str) -> str:
    """As :func:`padded`, but any punctuation parts words: "Darwin's" has "Darwin" in it, "1919–1980" has "1919"."""
    kept = (word for word in words(text) if not _ARTICLES.fullmatch(word))
    return f" {' '.join(kept)} "


def is_found_in_text(answer: str) -> bool:
    """Whether an answer is one that its document states: not yes or no, nor nothing once normalised."""
    return padded(answer).strip() not in ("", *YES_NO)


def holds_answer(padded_text: str, padded_answers: Sequence[str]) -> bool:
    """Return whether any of the answers stands in the text, all of them as :func:`padded` gives them.

    In a script without spaces between words it may stand anywhere.
    """
    return any((answer.strip() if is_unspaced(answer) else answer) in padded_text for answer in padded_answers)


def answer_spans(text: str, answers: Sequence[str]) -> list[tuple[int, int]]:
    """Return where the answers stand in ``text``, as (start, end) in characters, in order of their start.

    Spans are of whole words: in a script without spaces between words, of all that stands between two spaces.
    """
    placed = [(token, match.span()) for match in _WORD.finditer(text) for token in _word_tokens(match.group())]
    tokens = [token for token, _ in placed]
    spans = set()
    for wanted in {tuple(answer_tokens(answer)) for answer in answers} - {()}:
        padded_answer = f" {' '.join(wanted)} "
        for first in range(len(tokens) - len(wanted) + 1):
            last = first + len(wanted) - 1
            if wanted[0] in tokens[first] and holds_answer(f" {' '.join(tokens[first:last + 1])} ", [padded_answer]):
                spans.add((placed[first][1][0], placed[last][1][1]))
    return sorted(spans)


@lru_cache(maxsize=1 << 16)
def _word_tokens(word: str) -> tuple[str, ...]:
    return tuple(answer_tokens(word))
