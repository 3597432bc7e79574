"""Documents of many lengths: those of the demo world with text about other entities before or behind them.

A passage cut from an encyclopaedia is about more than one thing. A compressor that was trained on short documents about
one thing each loses half of its answers on such passages (lab/LOG.md).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator

from scaledown.data.records import Record
from scaledown.data.world.synthetic import DEFAULT_DIFFICULTY, World
from scaledown.data.world.wordings import KINDS


def of_many_lengths(records: Iterable[Record], seed: int, share: float = 0.5, longest_words: int = 105,
                    split: str = "train") -> Iterator[Record]:
    """Yield ``records``, a ``share`` of them with documents of random lengths of up to ``longest_words`` words.

    Args:
        records: records of the demo world.
        seed: seed of the draws.
        share: share of the records whose documents are filled up.
        longest_words: 105 words are about 128 tokens of the demo tokenizer.
        split: the split whose names the added text uses.
    """
    rng = random.Random(f"lengths-{split}-{seed}")
    world = World(rng, split)
    for record in records:
        # Each document gets a length of its own; one that is longer already stays as it is.
        if rng.random() < share:
            documents = tuple(_lengthened(document, rng.randint(0, longest_words), world)
                              for document in record.documents)
            record = dataclasses.replace(record, documents=documents)
        yield record


def _lengthened(document: str, num_words: int, world: World) -> str:
    """Return ``document`` with text around it, up to ``num_words``; unchanged if it has as many."""
    num_missing = max(0, num_words - len(document.split()))

    words: list[str] = []
    while len(words) < num_missing:
        words += _random_text(world).split()
    added = " ".join(words[:num_missing])

    # Drawn in any case, so that all later draws do not depend on the length.
    is_behind = world.rng.random() < 0.5
    if not added:
        return document
    return f"{document} {added}" if is_behind else f"{added} {document}"


def _random_text(world: World) -> str:
    """Return a document about an entity that no question is about."""
    kind = world.rng.choice(KINDS)
    num_facts = world.rng.randint(*DEFAULT_DIFFICULTY.num_facts)
    return world.document(world.entity(kind), world.rng.sample(kind.relations, num_facts), DEFAULT_DIFFICULTY).text
