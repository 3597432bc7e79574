"""Does a text hold an answer? Whole tokens, compared as SQuAD compares them (Rajpurkar et al., arXiv:1606.05250)."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import lru_cache

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"\S+")
YES_NO = ("yes", "no")


def answer_tokens(text: str) -> list[str]:
    """The tokens of ``text`` in lower case, without ASCII punctuation and English articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def padded(text: str) -> str:
    """The tokens of ``text`` between single spaces, so that a search in it finds whole tokens alone."""
    return f" {' '.join(answer_tokens(text))} "


def searchable(text: str) -> str:
    """What to search for a :func:`padded` or :func:`worded` answer that must not be in a text in any guise."""
    return f"{padded(text)}\n{worded(text)}"


def worded(text: str) -> str:
    """As :func:`padded`, but any punctuation parts words: "Darwin's" has "Darwin" in it, "1919–1980" has "1919"."""
    words = (word for word in re.findall(r"\w+", text.lower()) if not _ARTICLES.fullmatch(word))
    return f" {' '.join(words)} "


def is_found_in_text(answer: str) -> bool:
    """Whether an answer is one that its document states: not yes or no, nor nothing once normalised."""
    return padded(answer).strip() not in ("", *YES_NO)


def holds_answer(padded_text: str, padded_answers: Sequence[str]) -> bool:
    """Whether any of the answers stands in the text, all of them as :func:`padded` gives them."""
    return any(answer in padded_text for answer in padded_answers)


def answer_spans(text: str, answers: Sequence[str]) -> list[tuple[int, int]]:
    """Where the answers stand in ``text``, as (start, end) in characters, in order of their start."""
    words = [(token, match.span()) for match in _WORD.finditer(text) for token in _word_tokens(match.group())]
    tokens = [token for token, _ in words]
    spans = set()
    for wanted in {tuple(answer_tokens(answer)) for answer in answers} - {()}:
        for first, token in enumerate(tokens):
            if token == wanted[0] and tuple(tokens[first:first + len(wanted)]) == wanted:
                spans.add((words[first][1][0], words[first + len(wanted) - 1][1][1]))
    return sorted(spans)


@lru_cache(maxsize=1 << 16)
def _word_tokens(word: str) -> tuple[str, ...]:
    return tuple(answer_tokens(word))
