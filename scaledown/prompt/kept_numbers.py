"""The numbers, dates and names of a passage, for a short text behind its memory (``--keep_numbers``).

A few embeddings carry what a passage says, but lose how something is spelled: a year, an amount, a rare name. These are
found by their form alone, in any script that has digits or capital letters, and stand in the prompt letter by letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import regex

from scaledown.prompt.plain_text import plain_ids

_INITIAL = r"\p{Lu}\p{L}?\.(?=\s\p{Lu})"
"""A short word whose full stop ends no sentence: George W. Bush, St. Ives."""
_WORD = regex.compile(rf"{_INITIAL}|\p{{Sc}}?[\p{{L}}\p{{M}}\p{{N}}]+(?:[-'’.,:/][\p{{L}}\p{{M}}\p{{N}}]+)*[%°]?")
"""Letters with their marks, and digits; inside it what joins its parts, as in 1,234.5 or 12:30 or O'Neil; around it a
sign of money, of percent or of degrees."""
_NUMBER = regex.compile(r"\p{N}")
_CAPITAL = regex.compile(r"[\p{Lu}\p{Lt}]")
_SENTENCE_END = regex.compile(r"[.!?:;…\n]")


def kept_numbers(tokenizer: Any, query: str, passages: Sequence[str], max_tokens: int) -> list[str]:
    """Return the text that stands behind each passage's memory: what it has beyond the query, with spaces between.

    Numbers come before names, both in the order of the passage. What does not fit whole is left out: half a number
    would be a wrong one.

    Args:
        tokenizer: the generator's.
        query: nothing that it says is repeated.
        passages: texts.
        max_tokens: of the text behind one passage.
    """
    texts = []
    for passage in passages:
        found = numbers_and_names(passage, query)
        # Each as it stands behind the one before it.
        lengths = map(len, plain_ids(tokenizer, [f" {phrase}" for phrase in found]))

        kept, num_left = [], max_tokens
        for phrase, length in zip(found, lengths, strict=True):
            if length <= num_left:
                kept.append(phrase)
                num_left -= length
        texts.append("".join(f" {phrase}" for phrase in kept))
    return texts


def numbers_and_names(passage: str, query: str = "") -> list[str]:
    """Return the phrases of numbers and capitalised words in a passage, those with a number first, each once.

    "Ada Lovelace was born on 10 December 1815" has two: the date, and the name. Phrases of which the query has all
    words are left out.
    """
    known = {word.casefold() for word in _WORD.findall(query)}
    phrases: dict[str, None] = {}
    for words in _phrases(passage):
        if any(word.casefold() not in known for word in words):
            phrases[" ".join(words)] = None
    # Sorting keeps the order of equals: of numbers, and of names.
    return sorted(phrases, key=lambda phrase: _NUMBER.search(phrase) is None)


def _phrases(passage: str) -> list[list[str]]:
    """Return the runs of numbers and capitalised words that have nothing but spaces on one line between them."""
    runs: list[list[str]] = []
    run: list[str] = []
    is_opening = False
    end_of_last = 0
    for match in _WORD.finditer(passage):
        word, between = match[0], passage[end_of_last:match.start()]
        opens_sentence = end_of_last == 0 or _SENTENCE_END.search(between) is not None
        is_kept = _NUMBER.search(word) is not None or _CAPITAL.match(word) is not None
        end_of_last = match.end()

        # A run ends before another word, at a sign, and with its line.
        if run and (between.strip() or "\n" in between or not is_kept):
            runs.append(_without_opening(run) if is_opening else run)
            run = []
        if is_kept:
            is_opening = is_opening if run else opens_sentence
            run.append(word)

    if run:
        runs.append(_without_opening(run) if is_opening else run)
    return runs


def _without_opening(run: list[str]) -> list[str]:
    """Return a run that opens a sentence, without its first word if only its place makes that a capitalised one."""
    first, *others = run
    follows_name = bool(others) and _CAPITAL.match(others[0]) is not None
    return run if _NUMBER.search(first) or follows_name else others
