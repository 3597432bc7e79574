"""Questions made of the sentences of any text: words are taken out, and asked for.

There are a few thousand real questions, and any text has hundreds of these. What they teach is to find the sentence
that speaks of the same things, and what it says beside them (the idea is that of Lewis et al., 2019, "Unsupervised
Question Answering by Cloze Translation").
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
SHORTEST_SENTENCE, LONGEST_BLANK = 6, 4
"""Words of a sentence that makes a question, and of what is taken out of it."""
KEPT_SHARE = (0.5, 1.0)
"""Least and most of the other words that stay."""
QUESTION_WORDS = ("What", "Who", "Which", "When", "Where", "How")
PUNCTUATION = ".,;:!?\"'()[]"


def blank(rng: random.Random, document: str) -> tuple[str, str] | None:
    """A question that a sentence of ``document`` makes, and its answer: a name, a number or some words taken out of it.

    Some words are dropped, and the parts may change places, since real questions do not repeat a sentence. None where
    no sentence is long enough, or nothing is left of it.
    """
    sentences = [words for each in SENTENCE_END.split(document) if len(words := each.split()) >= SHORTEST_SENTENCE]
    if not sentences:
        return None
    words = rng.choice(sentences)
    start, end = rng.choice(_names(words) or [_any_span(rng, words)])
    answer = " ".join(words[start:end]).strip(PUNCTUATION)
    kept = rng.uniform(*KEPT_SHARE)
    before, after = ([word for word in part if rng.random() < kept] for part in (words[:start], words[end:]))
    asked = before + after if rng.random() < 0.5 else after + before
    if not asked or not answer:
        return None
    return f"{rng.choice(QUESTION_WORDS)} {' '.join(asked).rstrip(PUNCTUATION)}?", answer


def _names(words: Sequence[str]) -> list[tuple[int, int]]:
    """Where runs of capitalised words and numbers begin and end; the first word's capital says nothing."""
    runs: list[tuple[int, int]] = []
    for number, word in enumerate(words):
        core = word.lstrip(PUNCTUATION)[:1]
        if not (core.isdigit() or (core.isupper() and number)):
            continue
        follows = runs and runs[-1][1] == number and not words[number - 1].endswith((",", ";", ")"))
        if follows and number - runs[-1][0] < LONGEST_BLANK:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs


def _any_span(rng: random.Random, words: Sequence[str]) -> tuple[int, int]:
    start = rng.randrange(len(words))
    return start, min(len(words), start + rng.randint(1, LONGEST_BLANK))
