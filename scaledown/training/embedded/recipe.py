"""How models on the embedded generator are trained by default: settings for two million weights, and their lessons."""

from __future__ import annotations

from typing import Any

from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.data.records import Record
from scaledown.data.synthetic import Difficulty, synthetic_records
from scaledown.hub import EMBEDDED_FOLDER
from scaledown.training.pretraining import pretraining_records

MODEL: dict[str, Any] = {"memory_norm": True, "mlp_width": 512, "lora_dropout": 0.0}
"""Model settings that differ from the paper's at this size."""

TRAINING: dict[str, Any] = {"batch_size": 16, "learning_rate_generator": 2e-3, "learning_rate_compressor": 2e-3,
                            "weight_decay": 0.01, "answer_tokens": 64}
"""Training settings that differ from the paper's at this size: a small model takes, and needs, larger steps."""

PRETRAINED = EMBEDDED_FOLDER.parent / "pretrained"
"""A checkpoint whose compressor has learnt to hand on spans of text, and nothing of questions."""

LESSONS = ((3000, Difficulty((1, 1), (1, 2), hard_share=1.0, two_hop_share=0.0, fillers=False)),
           (3000, Difficulty((1, 1), (2, 6), hard_share=1.0, two_hop_share=0.0)),
           (2000, Difficulty((2, 4), (3, 6), hard_share=0.8, two_hop_share=0.0)),
           (3200, Difficulty((5, 5), (3, 6), hard_share=0.5, two_hop_share=0.05)))
"""Training records by difficulty, in the order in which they are learnt: one document first, five at the end."""


def lessons(seed: int) -> list[Record]:
    """Training records of the embedded world, easy ones first: from scratch on five documents nothing is learnt."""
    return [record for number, (num_records, difficulty) in enumerate(LESSONS)
            for record in synthetic_records(num_records, seed * len(LESSONS) + number, difficulty=difficulty)]


def spans(num_examples: int, seed: int) -> list[Record]:
    """Pretraining records from texts of the embedded world's training half."""
    texts = [document for record in synthetic_records(2000, seed) for document in record.documents]
    return pretraining_records(texts, num_examples, seed=seed)


def start_for(config: ScaleDownConfig) -> str | None:
    """The shipped pretrained checkpoint, where it is of the model that ``config`` asks for."""
    try:
        shipped = ScaleDownConfig.load(PRETRAINED)
    except ValueError:
        return None
    same = ("compressor_type", "num_memory_tokens", "compression_rate", "enable_reranking")
    fits = all(getattr(config, name) == getattr(shipped, name) for name in same)
    is_shipped = config.generator_model == EMBEDDED and config.num_layers in (None, shipped.num_layers)
    return str(PRETRAINED) if fits and is_shipped else None
