"""Answers in texts: the normal form in which texts are compared, and whole tokens in it as SQuAD compares them.

Search, the choice of negatives and the metrics share these functions, so that a negative never holds what a metric
takes for right. The tokens are those of SQuAD's metrics (Rajpurkar et al., arXiv:1606.05250).

A word can be written in several ways that look alike: an accent as a letter of its own or composed with its letter (NFD
and NFC), with a soft hyphen or a zero-width mark inside, with or without the vowel signs of Arabic and Hebrew or the
stress marks of Russian. Python compares code points, for which all of these differ; the normal form makes them equal.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import regex

# Soft hyphens, zero-width spaces and joiners, marks of direction, variation selectors, byte order marks.
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
# Signs that writers add or leave out at will: Arabic vowels and the stretched line, Hebrew points, Cyrillic stress.
# Hamza and madda (U+0653 to U+0655) make other letters, and stay. The dot on i is what lower() leaves of a Turkish İ.
_OPTIONAL = regex.compile("[\u0610-\u061a\u0640\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed"
                          "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]+"
                          "|(?<=\\p{Cyrillic})[\u0300\u0301]+|(?<=i)\u0307")
# A letter's marks belong to its word; in re's \w they end it, which cuts Hindi into single letters.
_WORD = regex.compile(r"[\w\p{N}]+")
# Thai, Lao, Tibetan, Burmese, Khmer, kana and Han ideographs are written without spaces between words.
_UNSPACED = regex.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_COMPARED = ("L", "M", "N")
"""Unicode's categories of letters, the marks that belong to them (vowels, in many scripts), and digits."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# SQuAD's punctuation, which is all of ASCII's, and the marks that end or enclose a word in Arabic, Hebrew, Indic
# scripts, Chinese and Japanese. Quotes and dashes of English texts stay, as they do in SQuAD.
_ARABIC_HEBREW_INDIC = "\u060c\u061b\u061f\u066a\u06d4\u05be\u05f3\u05f4\u0964\u0965"
_CHINESE_JAPANESE = "、。〈〉《》「」『』【】〔〕・！（），．：；？［］｛｝～"
_PUNCTUATION = str.maketrans("", "", string.punctuation + _ARABIC_HEBREW_INDIC + _CHINESE_JAPANESE)
_BETWEEN_SPACES = re.compile(r"\S+")
YES_NO = ("yes", "no")


def normal_form(text: str) -> str:
    """Return ``text`` in lower case and composed (NFC), without invisible characters and optional vowel signs.

    Of ASCII text this is its lower case, and nothing else.
    """
    if text.isascii():
        return text.lower()

    # Invisible characters go first: one between a letter and its accent would keep them from being composed.
    composed = unicodedata.normalize("NFC", _INVISIBLE.sub("", text).lower())
    return _OPTIONAL.sub("", composed)


def words(text: str) -> list[str]:
    """Return the words of ``text`` in normal form: letters with their marks, digits and underscores."""
    return _WORD.findall(normal_form(text))


def is_unspaced(text: str) -> bool:
    """Return whether ``text`` has letters of a script that is written without spaces between words."""
    return _UNSPACED.search(text) is not None


def question_key(text: str) -> str:
    """Return what is equal for equal questions: the letters and digits of ``text``, without differences of case."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(character for character in folded if unicodedata.category(character)[0] in _COMPARED)


def answer_tokens(text: str) -> list[str]:
    """Return the tokens of ``text`` in normal form, without punctuation and English articles."""
    return _ARTICLES.sub(" ", normal_form(text).translate(_PUNCTUATION)).split()


def normalise(text: str) -> str:
    """Return SQuAD's normalisation of ``text``: lower case, no punctuation, no English articles, single spaces."""
    return " ".join(answer_tokens(text))


def padded(text: str) -> str:
    """Return the tokens of ``text`` between single spaces, so that a search in it finds only whole tokens."""
    return f" {normalise(text)} "


def searchable(text: str) -> str:
    """Return the text to search for a :func:`padded` or :func:`worded` answer that must not be there in any form."""
    return f"{padded(text)}\n{worded(text)}"


def worded(text: str) -> str:
    """Pad as :func:`padded`, but split at any punctuation: "Darwin's" holds "Darwin", and "1919–1980" holds "1919"."""
    without_articles = (word for word in words(text) if not _ARTICLES.fullmatch(word))
    return f" {' '.join(without_articles)} "


def is_found_in_text(answer: str) -> bool:
    """Return whether a document can state the answer: not yes or no, nor an answer that is empty in normal form."""
    return normalise(answer) not in ("", *YES_NO)


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
    for match in _BETWEEN_SPACES.finditer(text):
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
