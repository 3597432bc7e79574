"""How models on the embedded generator are trained by default: settings for two million weights, and their lessons."""

from __future__ import annotations

from typing import Any

from scaledown.data.records import Record
from scaledown.data.synthetic import Difficulty, synthetic_records

MODEL: dict[str, dict[str, Any]] = {
    "n_layers": {"memory_norm": True, "lora_dropout": 0.0, "memory_init": "reply", "num_layers": 4},
    "modernbert": {"memory_norm": True, "lora_dropout": 0.0, "mlp_width": 512},
}
"""Model settings that differ from the paper's at this size, by compressor type.

The generator learnt to look things up with its first four layers alone, so four are what a compressor needs of it.
"""

TRAINING: dict[str, Any] = {"batch_size": 8, "learning_rate_generator": 1e-3, "learning_rate_compressor": 1e-3,
                            "weight_decay": 0.01, "answer_tokens": 64}
"""Training settings that differ from the paper's at this size: a small model takes, and needs, larger steps."""

EVALUATION: dict[str, Any] = {"eval_examples": 300}
"""Fewer questions than by default, so that the whole job stays within minutes on a CPU."""

LESSONS = ((12000, Difficulty((1, 1), (1, 2), hard_share=1.0, two_hop_share=0.0, fillers=False)),
           (4800, Difficulty((1, 1), (2, 6), hard_share=1.0, two_hop_share=0.0)),
           (2400, Difficulty((2, 4), (3, 6), hard_share=0.8, two_hop_share=0.0)),
           (2400, Difficulty((5, 5), (3, 6), hard_share=0.5, two_hop_share=0.05)))
"""Training records by difficulty, in the order in which they are learnt: one document first, five at the end."""


def lessons(seed: int) -> list[Record]:
    """Training records of the embedded world, easy ones first: from scratch on five documents nothing is learnt."""
    return [record for number, (num_records, difficulty) in enumerate(LESSONS)
            for record in synthetic_records(num_records, seed * len(LESSONS) + number, difficulty=difficulty)]
