"""Documents of many lengths: those of the embedded world with text about others before or behind them.

A passage cut from an encyclopaedia speaks of more than one thing. A compressor that has only read short documents
about one thing each loses half of its answers on such passages (lab/LOG.md).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator

from scaledown.data.records import Record
from scaledown.data.world.synthetic import Difficulty, World
from scaledown.data.world.wordings import KINDS

DIFFICULTY = Difficulty()


def of_many_lengths(records: Iterable[Record], seed: int, share: float = 0.5, longest_words: int = 105,
                    split: str = "train") -> Iterator[Record]:
    """``records``, of which ``share`` get documents of up to ``longest_words`` words, each of a length of its own.

    Args:
        records: of the embedded world.
        seed: of the draws.
        share: of the records whose documents are filled up.
        longest_words: 105 words are about 128 tokens of the embedded tokenizer.
        split: whose names the added text speaks of.
    """
    rng = random.Random(f"lengths-{split}-{seed}")
    world = World(rng, split)
    for record in records:
        if rng.random() < share:
            documents = tuple(_filled(document, rng.randint(0, longest_words), world) for document in record.documents)
            record = dataclasses.replace(record, documents=documents)
        yield record


def _filled(document: str, num_words: int, world: World) -> str:
    """``document`` with text around it, up to ``num_words``; as it is where it has as many."""
    room = num_words - len(document.split())
    words: list[str] = []
    while len(words) < room:
        words += _other(world).split()
    added = " ".join(words[:max(0, room)])
    return " ".join(filter(None, [document, added] if world.rng.random() < 0.5 else [added, document]))


def _other(world: World) -> str:
    kind = world.rng.choice(KINDS)
    num_facts = world.rng.randint(*DIFFICULTY.num_facts)
    return world.document(world.entity(kind), world.rng.sample(kind.relations, num_facts), DIFFICULTY).text
