"""The checks before a model is loaded for training: does its optimizer run here, and can it fit the GPU at all?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.evaluation.cost.card_table import GIGA, USABLE, first_that_fits, flags, training_ways
from scaledown.evaluation.cost.empty_model import EmptyModel
from scaledown.evaluation.cost.flops import TokenCounts
from scaledown.evaluation.cost.needed_memory import training_need
from scaledown.training.batches import check_shard
from scaledown.training.devices import resolve_dtype
from scaledown.training.optimizer import check_optimizer

PROMPT_TOKENS = 100
"""Of a prompt beside its question and documents: about what the system's turn and a chat's marks take."""


def check_machine(config: ScaleDownConfig, training: TrainingConfig, records: Sequence[Any], device: torch.device,
                  dtype: str = "auto") -> None:
    """Refuse settings that contradict each other or ``device``, and a training whose fixed part exceeds a GPU's memory.

    That part are weights, gradients and the optimizer's state; the message has the flags that would fit. Activations
    are not counted: a batch that is too large is noticed in its first step, with the size that fits. Models with code
    of their own, and those sharded over several GPUs, are not checked.

    Args:
        config: the model's settings.
        training: the training's.
        records: those to train on; the most documents of one count for the flags that fit.
        device: of other devices than CUDA's, the memory is not checked.
        dtype: a value of ``--dtype``.

    Raises:
        ValueError: if it cannot run, or cannot fit.
    """
    check_optimizer(training.optimizer, device)
    check_shard(training, config)
    if device.type != "cuda" or training.shard or config.trust_remote_code:
        return

    # With nothing loaded yet; other programs may use the GPU, too.
    free, _ = torch.cuda.mem_get_info(device)
    number_format = resolve_dtype(dtype, device)
    tokens = _longest(config, training, records)
    fixed = training_need(EmptyModel.of(config, number_format), training, tokens).fixed
    if fixed <= free:
        return

    way = first_that_fits(training_ways(config, training, tokens, number_format), USABLE * free)
    advice = "by the estimate no flags would fit: take a smaller --generator_model, or --shard over several GPUs"
    if way is not None:
        advice = f"by the estimate this would fit: {' '.join(flags(way[0]))}"
    raise ValueError(f"not enough memory on {device}: weights, gradients and optimizer state take "
                     f"{fixed / GIGA:.1f} GB before any activations, and {free / GIGA:.1f} GB are free; {advice} "
                     "(python -m scaledown.evaluation.cost --training shows the parts)")


def _longest(config: ScaleDownConfig, training: TrainingConfig, records: Sequence[Any]) -> TokenCounts:
    """Return the tokens of a question that is as long as the settings allow."""
    num_documents = max((len(record.documents) for record in records), default=1)
    # A document takes its memory and a separator in the prompt, or all of its text.
    of_document = config.document_tokens if config.reads_text else config.num_memory_tokens + 1
    prompt = PROMPT_TOKENS + config.query_tokens + num_documents * of_document
    return TokenCounts(config.query_tokens, config.document_tokens, num_documents, config.num_memory_tokens, prompt,
                       training.answer_tokens, rerank_tokens=float(config.enable_reranking))
