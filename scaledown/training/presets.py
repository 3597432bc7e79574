"""What to type on which machine: ``--preset`` sets model, batch and lengths together; a flag beside it wins."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from scaledown.config import DEFAULT_GENERATOR, EMBEDDED
from scaledown.training import demo

DEMO = "demo"
PAPERS_GENERATOR = "mistralai/Mistral-7B-Instruct-v0.2"

PRESETS: Mapping[str, Mapping[str, Any]] = {
    DEMO: {"generator_model": EMBEDDED, **demo.TRAINING, **demo.EVALUATION},
    "laptop": {"generator_model": DEFAULT_GENERATOR, "batch_size": 4, "query_tokens": 64, "answer_tokens": 32,
               "eval_examples": 100, "max_new_tokens": 16, "timed_queries": 10},
    "colab_t4": {"generator_model": DEFAULT_GENERATOR, "batch_size": 16, "gradient_accumulation_steps": 2,
                 "answer_tokens": 64, "eval_examples": 200, "max_new_tokens": 32},
    "paper": {"generator_model": PAPERS_GENERATOR, "batch_size": 128, "gradient_accumulation_steps": 16,
              "gradient_checkpointing": True, "answer_tokens": 128, "max_new_tokens": 128},
}
"""Settings by preset; what one does not name keeps its default, which is the paper's wherever the paper says.

None sets ``num_layers``: the default follows the generator, and is the paper's 8 where that has 24 layers or more.
"""


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the flag ``--preset``."""
    parser.add_argument("--preset", choices=tuple(PRESETS), help="settings that suit a machine, together; a flag "
                        "beside it wins: demo (any machine, offline), laptop, colab_t4, paper (a GPU of 80 GB) [none]")


def settings(preset: str | None, compressor_type: str, enable_reranking: bool, *configs: type) -> dict[str, Any]:
    """What a preset sets in the given config classes, by field; nothing for None.

    ``demo`` also sets what the embedded recipe asks of a compressor of this type, with scores or without.
    """
    if preset is None:
        return {}
    own = demo.MODEL[compressor_type] | demo.training(compressor_type, enable_reranking) if preset == DEMO else {}
    fields = {field.name for config in configs for field in dataclasses.fields(config)}
    return {name: value for name, value in (PRESETS[preset] | own).items() if name in fields}
