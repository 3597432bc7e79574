"""Pretraining of a compressor: auto-encoding and continuation, half and half (paper, section 3.2; COCOM, PISCO).

Both tasks are records like any other: the document is compressed, the question says what to do, and the answer is
the document itself, or what comes after it. So pretraining needs no model, batch or loss of its own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from scaledown.data.records import Record

REPEAT = "Repeat the document."
CONTINUE = "Continue the document: "
CLEAR_WORDS = 4
"""Words of the continuation that the generator sees in clear, to know where to go on."""


def pretraining_records(texts: Sequence[str], num_examples: int, words: tuple[int, int] = (2, 24),
                        auto_encoding_share: float = 0.5, seed: int = 42) -> list[Record]:
    """Records whose answers are spans of ``texts``, short spans first.

    A compressor with random rows gets nowhere on long spans (its loss stays at the language model's), but soon
    learns to hand on a few words; so lengths grow, by the same factor from record to record.

    Args:
        texts: plain texts; spans are drawn from them at random.
        num_examples: records to make.
        words: shortest and longest span, in words.
        auto_encoding_share: share of records to repeat; the others are to be continued.
        seed: of the draws.

    Raises:
        ValueError: where ``texts`` has no text long enough for the shortest task.
    """
    rng = random.Random(seed)
    split_texts = [split for text in texts if len(split := text.split()) >= words[0] + CLEAR_WORDS + 1]
    if not split_texts:
        raise ValueError(f"pretraining needs texts of at least {words[0] + CLEAR_WORDS + 1} words; found none "
                         f"among {len(texts)}")
    shortest, longest = words
    growth = longest / shortest
    lengths = [shortest * growth ** (number / max(1, num_examples - 1)) for number in range(num_examples)]
    return [_record(rng, rng.choice(split_texts), max(shortest, round(length * rng.uniform(0.5, 1.0))),
                    rng.random() < auto_encoding_share, number) for number, length in enumerate(lengths)]


def _record(rng: random.Random, words: list[str], length: int, is_auto_encoding: bool, number: int) -> Record:
    if is_auto_encoding:
        start = rng.randint(0, max(0, len(words) - length))
        text = " ".join(words[start:start + length])
        return Record(id=f"repeat-{number}", query=REPEAT, documents=(text,), answer=text)
    length = min(length, len(words) - CLEAR_WORDS - 1)
    start = rng.randint(0, len(words) - length - CLEAR_WORDS - 1)
    end = start + length
    clear, rest = words[end:end + CLEAR_WORDS], words[end + CLEAR_WORDS:end + CLEAR_WORDS + length]
    return Record(id=f"continue-{number}", query=CONTINUE + " ".join(clear),
                  documents=(" ".join(words[start:end]),), answer=" ".join(rest))
