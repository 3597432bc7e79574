"""Settings for a machine: ``--preset`` sets model, batch and lengths together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaledown.config import DEFAULT_GENERATOR, EMBEDDED, NO_COMPRESSOR, OF_A_COMPRESSOR
from scaledown.training.presets import demo

DEMO, LAPTOP = "demo", "laptop"
PAPERS_GENERATOR = "mistralai/Mistral-7B-Instruct-v0.2"

PRESETS: Mapping[str, Mapping[str, Any]] = {
    DEMO: {"generator_model": EMBEDDED, **demo.TRAINING, **demo.EVALUATION},
    LAPTOP: {"generator_model": DEFAULT_GENERATOR, "batch_size": 4, "query_tokens": 64, "answer_tokens": 32,
               "eval_examples": 100, "max_new_tokens": 16, "timed_queries": 10},
    "colab_t4": {"generator_model": DEFAULT_GENERATOR, "batch_size": 16, "gradient_accumulation_steps": 2,
                 "answer_tokens": 64, "eval_examples": 200, "max_new_tokens": 32},
    "gpu_24gb": {"generator_model": PAPERS_GENERATOR, "batch_size": 128, "gradient_accumulation_steps": 16,
                 "gradient_checkpointing": True, "load_in_4bit": True, "compressor_lora_rank": 16,
                 "answer_tokens": 128, "max_new_tokens": 128},
    "gpu_48gb": {"generator_model": PAPERS_GENERATOR, "batch_size": 128, "gradient_accumulation_steps": 16,
                 "gradient_checkpointing": True, "optimizer": "adamw_8bit", "answer_tokens": 128,
                 "max_new_tokens": 128},
    "paper": {"generator_model": PAPERS_GENERATOR, "batch_size": 128, "gradient_accumulation_steps": 16,
              "gradient_checkpointing": True, "answer_tokens": 128, "max_new_tokens": 128},
}
"""Settings by preset; others keep their defaults, which are the paper's if the paper names a value.

None sets ``num_layers``: the default follows the generator, and is the paper's 8 if that has 24 layers or more.
"""


def settings(preset: str | None, compressor_type: str, enable_reranking: bool) -> dict[str, Any]:
    """Return the settings of a preset by name; none for None.

    ``demo`` also has those of its compressor, which depend on its type and on reranking.
    """
    if preset is None:
        return {}
    if preset == DEMO:
        return {**PRESETS[DEMO], **demo.MODEL[compressor_type], **demo.training(compressor_type, enable_reranking)}
    found = dict(PRESETS[preset])
    if compressor_type == NO_COMPRESSOR:
        # The rest of the preset is as good for the baseline.
        return {name: value for name, value in found.items() if name not in OF_A_COMPRESSOR}
    return found
