"""How the embedded model is trained by default: settings for a generator of two million weights, and its lessons."""

from __future__ import annotations

from typing import Any

from scaledown.data.records import Record
from scaledown.data.synthetic import Difficulty, synthetic_records

MODEL: dict[str, Any] = {"memory_norm": True, "mlp_width": 512}
"""Model settings that differ from the paper's at this size."""

TRAINING: dict[str, Any] = {"batch_size": 16, "learning_rate_generator": 2e-3, "learning_rate_compressor": 2e-3,
                            "answer_tokens": 64}
"""Training settings that differ from the paper's at this size: a small model takes, and needs, larger steps."""

LESSONS = ((0.35, Difficulty((1, 1), (1, 6), hard_share=1.0, two_hop_share=0.0)),
           (0.25, Difficulty((2, 4), (3, 6), hard_share=0.8, two_hop_share=0.0)),
           (0.40, Difficulty((5, 5), (3, 6), hard_share=0.6, two_hop_share=0.1)))
"""Shares of the training records, in the order in which they are learnt: one document first, five at the end."""

NUM_RECORDS = 12_000


def lessons(seed: int, num_records: int = NUM_RECORDS) -> list[Record]:
    """Training records of the embedded world, easy ones first: from scratch on five documents nothing is learnt."""
    records: list[Record] = []
    for number, (share, difficulty) in enumerate(LESSONS):
        records += synthetic_records(round(share * num_records), seed * len(LESSONS) + number, difficulty=difficulty)
    return records
