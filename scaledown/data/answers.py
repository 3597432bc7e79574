"""Answers in texts: whole tokens, compared as SQuAD compares them (Rajpurkar et al., arXiv:1606.05250).

The choice of negatives and the metrics share these functions, so that a negative never holds what a metric takes for
right.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import lru_cache

from scaledown.data.normal_form import is_unspaced, normal_form, words

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# SQuAD's punctuation, which is all of ASCII's, and the marks that end or enclose a word in Arabic, Hebrew, Indic
# scripts, Chinese and Japanese. Quotes and dashes of English texts stay, as they do in SQuAD.
_ARABIC_HEBREW_INDIC = "\u060c\u061b\u061f\u066a\u06d4\u05be\u05f3\u05f4\u0964\u0965"
_CHINESE_JAPANESE = "、。〈〉《》「」『』【】〔〕・！（），．：；？［］｛｝～"
_PUNCTUATION = str.maketrans("", "", string.punctuation + _ARABIC_HEBREW_INDIC + _CHINESE_JAPANESE)
_WORD = re.compile(r"\S+")
YES_NO = ("yes", "no")


def answer_tokens(text: str) -> list[str]:
    """Return the tokens of ``text`` in normal form, without punctuation and English articles."""
    return _ARTICLES.sub(" ", normal_form(text).translate(_PUNCTUATION)).split()


def padded(text: str) -> str:
    """Return the tokens of ``text`` between single spaces, so that a search in it finds only whole tokens."""
    return f" {' '.join(answer_tokens(text))} "


def searchable(text: str) -> str:
    """Return the text to search for a :func:`padded` or :func:`worded` answer that must not be there in any form."""
    return f"{padded(text)}\n{worded(text)}"


def worded(text: str) -> str:
    """Pad as :func:`padded`, but split at any punctuation: "Darwin's" holds "Darwin", and "1919–1980" holds "1919"."""
    without_articles = (word for word in words(text) if not _ARTICLES.fullmatch(word))
    return f" {' '.join(without_articles)} "


def is_found_in_text(answer: str) -> bool:
    """Return whether a document can state the answer: not yes or no, nor an answer that is empty in normal form."""
    return padded(answer).strip() not in ("", *YES_NO)


def holds_answer(padded_text: str, padded_answers: Sequence[str]) -> bool:
    """Return whether the text holds any of the answers, all of them as :func:`padded` gives them."""
    for answer in padded_answers:
        # Without spaces between words, no padding marks an answer's ends: it may occur anywhere.
        if is_unspaced(answer):
            answer = answer.strip()
        if answer in padded_text:
            return True

    return False


def answer_spans(text: str, answers: Sequence[str]) -> list[tuple[int, int]]:
    """Return the spans of the answers in ``text``, as (start, end) in characters, in order of their start.

    Spans are of whole words: in a script without spaces between words, of all that stands between two spaces.
    """
    # A word between spaces may give several tokens, or none. word_spans[i] is the span of the word that token i is of.
    tokens: list[str] = []
    word_spans: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        word_tokens = _word_tokens(match.group())
        tokens += word_tokens
        word_spans += [match.span()] * len(word_tokens)

    spans = set()
    for wanted in {tuple(answer_tokens(answer)) for answer in answers} - {()}:
        padded_answer = f" {' '.join(wanted)} "

        # Slide a window of the answer's length over the tokens, and compare only if its first token may match.
        for start in range(len(tokens) - len(wanted) + 1):
            end = start + len(wanted)
            if wanted[0] not in tokens[start]:
                continue
            if holds_answer(f" {' '.join(tokens[start:end])} ", [padded_answer]):
                spans.add((word_spans[start][0], word_spans[end - 1][1]))
    return sorted(spans)


@lru_cache(maxsize=1 << 16)
def _word_tokens(word: str) -> tuple[str, ...]:
    """Return the tokens of one word; cached, since a corpus repeats its words."""
    return tuple(answer_tokens(word))
