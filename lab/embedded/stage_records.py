"""Records for the compressors' later stages: many documents, of many lengths, and those that a model ranks best."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from scaledown.data.records import Record
from scaledown.data.world.candidates import ranking_records
from scaledown.data.world.lengths import of_many_lengths
from scaledown.data.world.synthetic import GOLD_SCORE, Difficulty, synthetic_records
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.choosing import rankings
from scaledown.progress import Bar

MANY = Difficulty((1, 10), (3, 6), hard_share=0.7, two_hop_share=0.05)
CANDIDATES = (2, 10)
USUAL = Difficulty((2, 6), (3, 6), hard_share=0.65)
"""About the number of documents that questions of the made-up world usually have."""
BEST_DOCUMENTS = (3, 6)
SCORED_TOGETHER = 16


def many_documents(num_records: int, seed: int) -> list[Record]:
    """Return records with up to ten documents of many lengths, half of them candidates as a search engine finds them.
    """
    records = list(synthetic_records(num_records // 2, seed + 2, difficulty=MANY))

    # The other half, in equal shares for 2, 3, ..., 10 candidates; rounded up, and cut below.
    fewest, most = CANDIDATES
    records_a_number = num_records // (2 * (most - fewest + 1)) + 1
    for num_candidates in range(fewest, most + 1):
        records += ranking_records(records_a_number, seed + num_candidates, num_candidates=num_candidates)

    random.Random(f"many-{seed}").shuffle(records)
    return list(of_many_lengths(records, seed))[:num_records]


def mixed_documents(num_records: int, seed: int) -> list[Record]:
    """Return records of which half are :func:`many_documents`, and half have documents of the usual number and length.
    """
    records = many_documents(num_records // 2, seed + 300)
    records += synthetic_records(num_records - len(records), seed + 301, difficulty=USUAL)
    random.Random(seed).shuffle(records)
    return records


def mixed_and_best_documents(model: ScaleDownModel, num_records: int, seed: int,
                             candidates: Mapping[str, Any]) -> list[Record]:
    """Return records of which half are :func:`mixed_documents`, and half :func:`best_documents`."""
    records = mixed_documents(num_records // 2, seed)
    records += best_documents(model, num_records - len(records), seed, candidates)
    random.Random(seed).shuffle(records)
    return records


def best_documents(model: ScaleDownModel, num_records: int, seed: int, candidates: Mapping[str, Any]) -> list[Record]:
    """Return records with a few of their candidates, those that ``model`` ranks best, as under ``keep_documents``.

    Answers are worst beside documents that rank high and are not relevant. One relevant document always stays.

    Args:
        model: scores the candidates; needs a reranking head.
        num_records: number of records.
        seed: of the draws.
        candidates: arguments of :func:`scaledown.data.world.candidates.ranking_records`.
    """
    rng = random.Random(f"kept-{seed}")
    records = list(ranking_records(num_records, seed + 500, **candidates))

    # A random number of the best documents stays with each record.
    shortened = []
    for start in Bar(range(0, num_records, SCORED_TOGETHER), desc="candidates", unit="batch"):
        batch = records[start:start + SCORED_TOGETHER]
        memory = model.compress([record.query for record in batch], [record.documents for record in batch],
                                SCORED_TOGETHER)
        for record, (ranking, _) in zip(batch, rankings(memory), strict=True):
            shortened.append(_with_documents(record, ranking[:rng.randint(*BEST_DOCUMENTS)]))
    return shortened


def _with_documents(record: Record, numbers: list[int]) -> Record:
    """Return the record with these documents alone; if none is relevant, a relevant one takes the last place."""
    relevance = record.reranking_scores
    if GOLD_SCORE not in [relevance[number] for number in numbers]:
        numbers = [*numbers[:-1], relevance.index(GOLD_SCORE)]
    return Record(record.id, record.query, tuple(record.documents[number] for number in numbers), record.answer,
                  record.answers, reranking_scores=tuple(relevance[number] for number in numbers))
