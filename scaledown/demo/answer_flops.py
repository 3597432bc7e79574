"""The FLOPs of an answer that was given, from the numbers of its tokens (:mod:`scaledown.evaluation.cost`)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from scaledown.demo.timed_answer import GrowingText
from scaledown.evaluation.cost.flops import Flops, TokenCounts, full_flops
from scaledown.evaluation.cost.shapes import compressor_shape, decoder_shape
from scaledown.evaluation.systems import SCALEDOWN
from scaledown.models.model import ScaleDownModel


def answer_flops(model: ScaleDownModel, answer: GrowingText, query_tokens: int,
                 passage_tokens: Sequence[int]) -> Flops:
    """Return the FLOPs of an answer, in the full count.

    Args:
        model: that gave it.
        answer: with its numbers of tokens; the system named ``scaledown`` compressed, the others read text.
        query_tokens: of the question, as the compressor reads it.
        passage_tokens: of each passage that was compressed, whether it was kept or not.
    """
    config = model.config
    tokens = TokenCounts(
        query_tokens=query_tokens, document_tokens=statistics.fmean(passage_tokens), num_documents=len(passage_tokens),
        memory_tokens=config.num_memory_tokens, rerank_tokens=float(config.enable_reranking),
        prompt_tokens=answer.num_prompt_tokens, new_tokens=answer.num_new_tokens)

    # The other systems are the generator as it was, with the adapter off.
    compresses = answer.system == SCALEDOWN.name
    compressor = compressor_shape(model) if compresses else None
    lora_rank = config.lora_rank if compresses else 0
    return full_flops(decoder_shape(model.generator.base), compressor, tokens, lora_rank, config.input_order)
