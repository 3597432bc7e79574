"""What a question costs from its candidates to its answer: reranking, compressing, generating, in FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from scaledown.data.records import Record
from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.flops import DecoderShape, EncoderShape, TokenCounts, encoder_flops, full_flops, naive_flops
from scaledown.evaluation.model_cost import compressor_shape, linear_weights, mean_text_tokens
from scaledown.evaluation.systems import FULL_TEXT
from scaledown.models.parts import FAMILIES

PAIR_TOKENS = 2.0
"""Special tokens that a cross-encoder reads beside query and document."""


@dataclass(frozen=True)
class PipelineFlops:
    """Floating-point operations of one question (a multiplication and an addition are two)."""

    rerank: float
    compress: float
    generate: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.rerank + self.compress + self.generate


def reranker_shape(cross_encoder: Any) -> DecoderShape | EncoderShape:
    """The shape of a cross-encoder of sentence-transformers, a decoder with a score head or an encoder."""
    config = cross_encoder.config
    if config.model_type in FAMILIES:
        return DecoderShape.from_config(config)
    return EncoderShape(linear_weights(cross_encoder), config.num_hidden_layers, config.hidden_size, 0, 0)


def reranking_flops(shape: DecoderShape | EncoderShape, tokens: TokenCounts) -> float:
    """A cross-encoder's cost: it reads the query again with each document."""
    tokens = replace(tokens, memory_tokens=0.0, rerank_tokens=PAIR_TOKENS)
    return naive_flops(shape, tokens) if isinstance(shape, DecoderShape) else encoder_flops(shape, tokens)


def pipeline_flops(model: Any, result: SystemResult, candidates: Sequence[Record], given: Sequence[Record],
                   reranker: DecoderShape | EncoderShape | None) -> PipelineFlops:
    """The mean cost of a question.

    Args:
        model: a ScaleDownModel.
        result: what its system reached; prompts and answers are as long as they were there.
        candidates: the questions with all their documents, which the cross-encoder read.
        given: the questions with the documents that the system got.
        reranker: the cross-encoder's shape; None where none was asked.
    """
    def count(text: str) -> int:
        return len(model.processor.tokenizer(text, add_special_tokens=False).input_ids)

    def counts(records: Sequence[Record]) -> TokenCounts:
        return TokenCounts(**mean_text_tokens(records, count, model.config),
                           memory_tokens=model.config.num_memory_tokens,
                           rerank_tokens=float(model.config.enable_reranking),
                           prompt_tokens=result.mean_prompt_tokens, new_tokens=result.mean_new_tokens)

    is_text = result.system == FULL_TEXT.name
    flops = full_flops(DecoderShape.from_config(model.generator.config), None if is_text else compressor_shape(model),
                       counts(given), 0 if is_text else model.config.lora_rank, model.config.input_order)
    return PipelineFlops(reranking_flops(reranker, counts(candidates)) if reranker else 0.0, flops.compress,
                         flops.prefill + flops.decode)
