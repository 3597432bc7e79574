"""Records of the embedded world for what follows the main job: many documents, of many lengths, and kept ones."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from scaledown.data.records import Record
from scaledown.data.world.candidates import ranking_records
from scaledown.data.world.lengths import of_many_lengths
from scaledown.data.world.synthetic import GOLD_SCORE, Difficulty, synthetic_records
from scaledown.models.memory import by_score
from scaledown.models.model import ScaleDownModel

MANY = Difficulty((1, 10), (3, 6), hard_share=0.7, two_hop_share=0.05)
CANDIDATES = (2, 10)
USUAL = Difficulty((2, 6), (3, 6), hard_share=0.65)
"""Documents as questions of the embedded world have them, give or take a few."""
KEPT_DOCUMENTS = (3, 6)
AS_FOUND: Mapping[str, Any] = {}
NEAR: Mapping[str, Any] = {"num_candidates": 30, "same_kind_share": 1.0}
"""Candidates as a search engine finds them; and more, all of the entity's kind, so that some have nearly its name."""
SCORED_TOGETHER = 16


def many(num_records: int, seed: int) -> list[Record]:
    """Up to ten documents of many lengths, half of the records with candidates as a search engine finds them."""
    fewest, most = CANDIDATES
    plain = synthetic_records(num_records // 2, seed + 2, difficulty=MANY)
    found = [record for count in range(fewest, most + 1)
             for record in ranking_records(num_records // (2 * (most - fewest + 1)) + 1, seed + count,
                                           num_candidates=count)]
    records = [*plain, *found]
    random.Random(f"many-{seed}").shuffle(records)
    return list(of_many_lengths(records, seed))[:num_records]


def mixed(num_records: int, seed: int) -> list[Record]:
    """Half :func:`many`, half documents as questions usually have them."""
    records = many(num_records // 2, seed + 300)
    records += synthetic_records(num_records - len(records), seed + 301, difficulty=USUAL)
    random.Random(seed).shuffle(records)
    return records


def with_kept(model: ScaleDownModel, num_records: int, seed: int, candidates: Mapping[str, Any]) -> list[Record]:
    """Half :func:`mixed`, half ``candidates`` of which ``model`` keeps its best."""
    records = mixed(num_records // 2, seed)
    records += kept(model, num_records - len(records), seed, candidates)
    random.Random(seed).shuffle(records)
    return records


def kept(model: ScaleDownModel, num_records: int, seed: int, candidates: Mapping[str, Any]) -> list[Record]:
    """Candidates of which ``model`` keeps a few, best first, as when it answers with ``keep_documents``.

    What it ranks high and is not relevant is what it answers worst beside; one relevant document always stays.

    Args:
        candidates: what :func:`scaledown.data.world.candidates.ranking_records` is told of them.
    """
    rng = random.Random(f"kept-{seed}")
    records = list(ranking_records(num_records, seed + 500, **candidates))
    chosen = []
    for start in tqdm(range(0, num_records, SCORED_TOGETHER), desc="candidates", unit="batch"):
        group = records[start:start + SCORED_TOGETHER]
        memory = model.compress([each.query for each in group], [each.documents for each in group], SCORED_TOGETHER)
        chosen += [_best(record, by_score(scores[:len(record.documents)])[:rng.randint(*KEPT_DOCUMENTS)])
                   for record, scores in zip(group, memory.scores.tolist(), strict=True)]
    return chosen


def _best(record: Record, numbers: list[int]) -> Record:
    """The record with these documents alone; a relevant one takes the last place where none is among them."""
    scores = record.reranking_scores
    if GOLD_SCORE not in [scores[number] for number in numbers]:
        numbers = [*numbers[:-1], scores.index(GOLD_SCORE)]
    documents, scores = zip(*((record.documents[number], scores[number]) for number in numbers), strict=True)
    return Record(record.id, record.query, documents, record.answer, record.answers, reranking_scores=scores)
