"""The demo: settings for training on the demo generator of two million weights, and its curriculum."""

from __future__ import annotations

import itertools
from typing import Any

from scaledown.config import NO_COMPRESSOR
from scaledown.data.records import Record
from scaledown.data.world.synthetic import Difficulty, synthetic_records

NAME = "the demo's made-up world"
MODEL: dict[str, dict[str, Any]] = {
    "n_layers": {"memory_norm": True, "lora_dropout": 0.0, "num_layers": 4},
    "modernbert": {"memory_norm": True, "lora_dropout": 0.0, "mlp_width": 512},
    "llm": {"memory_norm": True, "lora_dropout": 0.0, "mlp_width": 512},
    NO_COMPRESSOR: {"lora_dropout": 0.0},
}
"""Model settings that differ from the paper's at this size, by compressor type.

The generator was trained to look facts up with its first four layers alone, so a compressor needs these four.
"""

TRAINING: dict[str, Any] = {"batch_size": 8, "optimizer": "muon", "learning_rate_generator": 1.5e-3,
                            "learning_rate_compressor": 3e-3, "weight_decay": 0.01, "answer_tokens": 64}
"""Training settings that differ from the paper's at this size: a small model needs larger steps."""

READOUT_LOSS_WEIGHT = 1.0
"""For encoders, which learn nothing without the readout loss, and for reranking, which else displaces the answers.

N-Layers without reranking learns faster with it, but answers no better (lab/LOG.md).
"""

EVALUATION: dict[str, Any] = {"eval_examples": 300}
"""Fewer questions than by default, so that the whole job stays within minutes on a CPU."""

NAMES = Difficulty((2, 4), (1, 1), hard_share=1.0, two_hop_share=0.0, fillers=False)
"""Documents of one fact, which differ in nothing but the entity."""

LESSONS = ((7600, NAMES),
           (4000, Difficulty((2, 4), (2, 6), hard_share=1.0, two_hop_share=0.0)),
           (3200, Difficulty((5, 5), (3, 6), hard_share=0.5, two_hop_share=0.05)))
"""The curriculum: numbers of training records by difficulty, in the order of training.

The first lesson is about names: a model that starts with one document learns to look up the relation and to ignore the
entity, and never unlearns that.
"""


def training(compressor_type: str, enable_reranking: bool) -> dict[str, Any]:
    """Return the training settings for a compressor of this type, with or without reranking."""
    needs_readout = compressor_type != NO_COMPRESSOR and (enable_reranking or compressor_type != "n_layers")
    return TRAINING | {"readout_loss_weight": READOUT_LOSS_WEIGHT if needs_readout else 0.0}


def lessons(seed: int) -> list[Record]:
    """Return training records of the made-up world, easy ones first: hard ones alone teach a new model nothing."""
    records: list[Record] = []
    for number, (num_records, difficulty) in enumerate(LESSONS):
        # A seed of its own for each lesson of each run.
        records += synthetic_records(num_records, seed * len(LESSONS) + number, difficulty=difficulty)
    return records


def lesson_starts(batch_size: int) -> list[dict[str, Any]]:
    """Return entries for the trainer's log: the steps at which harder lessons begin, with a description of each."""
    starts = itertools.accumulate(num_records for num_records, _ in LESSONS[:-1])
    entries = []
    for start, (_, difficulty) in zip(starts, LESSONS[1:], strict=True):
        entries.append({"step": start // batch_size, "lesson_starts": _description(difficulty)})
    return entries


def _description(difficulty: Difficulty) -> str:
    """Return a lesson in words, such as "2-4 documents, 1 fact each"."""
    documents, facts = _range(difficulty.num_documents), _range(difficulty.num_facts)
    return f"{documents} documents, {facts} {'fact' if facts == '1' else 'facts'} each"


def _range(ends: tuple[int, int]) -> str:
    low, high = ends
    return str(low) if low == high else f"{low}-{high}"
