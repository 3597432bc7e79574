"""How models on the embedded generator are trained by default: settings for two million weights, and their lessons."""

from __future__ import annotations

import itertools
from typing import Any

from scaledown.data.records import Record
from scaledown.data.world.synthetic import Difficulty, synthetic_records

MODEL: dict[str, dict[str, Any]] = {
    "n_layers": {"memory_norm": True, "lora_dropout": 0.0, "num_layers": 4},
    "modernbert": {"memory_norm": True, "lora_dropout": 0.0, "mlp_width": 512},
    "llm": {"memory_norm": True, "lora_dropout": 0.0, "mlp_width": 512},
}
"""Model settings that differ from the paper's at this size, by compressor type.

The generator learnt to look things up with its first four layers alone, so four are what a compressor needs of it.
"""

TRAINING: dict[str, Any] = {"batch_size": 8, "optimizer": "muon", "learning_rate_generator": 1.5e-3,
                            "learning_rate_compressor": 3e-3, "weight_decay": 0.01, "answer_tokens": 64}
"""Training settings that differ from the paper's at this size: a small model takes, and needs, larger steps."""

READOUT_LOSS_WEIGHT = 1.0
"""For encoders, which learn nothing without the readout loss, and wherever scores are learnt: without it they take the
place of the answers. N-Layers that only answers learns faster with it, but answers no better (lab/LOG.md)."""

EVALUATION: dict[str, Any] = {"eval_examples": 300}
"""Fewer questions than by default, so that the whole job stays within minutes on a CPU."""

NAMES = Difficulty((2, 4), (1, 1), hard_share=1.0, two_hop_share=0.0, fillers=False)
"""Documents of one fact: there is nothing to tell them apart by but the entity asked for."""

LESSONS = ((7600, NAMES),
           (4000, Difficulty((2, 4), (2, 6), hard_share=1.0, two_hop_share=0.0)),
           (3200, Difficulty((5, 5), (3, 6), hard_share=0.5, two_hop_share=0.05)))
"""Training records by difficulty, in the order in which they are learnt.

The first is about names: a model that starts with one document learns to look the relation up and ignores the entity,
and does not unlearn that.
"""


def training(compressor_type: str, enable_reranking: bool) -> dict[str, Any]:
    """Training settings for a compressor of this type, which learns to score documents, too, or does not."""
    needs_readout = enable_reranking or compressor_type != "n_layers"
    return TRAINING | {"readout_loss_weight": READOUT_LOSS_WEIGHT * needs_readout}


def lessons(seed: int) -> list[Record]:
    """Training records of the embedded world, easy ones first: from scratch on whole documents nothing is learnt."""
    return [record for number, (num_records, difficulty) in enumerate(LESSONS)
            for record in synthetic_records(num_records, seed * len(LESSONS) + number, difficulty=difficulty)]


def lesson_starts(batch_size: int) -> list[dict[str, Any]]:
    """Rows for the trainer's log: the steps at which harder lessons begin, and what they are like."""
    starts = itertools.accumulate(num_records for num_records, _ in LESSONS[:-1])
    return [{"step": start // batch_size, "lesson_starts": _in_words(difficulty)}
            for start, (_, difficulty) in zip(starts, LESSONS[1:], strict=True)]


def _in_words(difficulty: Difficulty) -> str:
    """What a lesson's records are like: "2-4 documents, 1 fact each"."""
    documents, facts = ("-".join(str(end) for end in sorted(set(ends)))
                        for ends in (difficulty.num_documents, difficulty.num_facts))
    return f"{documents} documents, {facts} fact{'s' * (facts != '1')} each"
