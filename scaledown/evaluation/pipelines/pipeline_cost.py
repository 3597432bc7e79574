"""The cost of a question from its candidates to its answer, in FLOPs: reranking, compressing, generating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from scaledown.data.records import Record
from scaledown.evaluation.cost.flops import TokenCounts, encoder_flops, full_flops, naive_flops
from scaledown.evaluation.cost.model_cost import compressor_shape, mean_text_tokens
from scaledown.evaluation.cost.shapes import DecoderShape, EncoderShape, decoder_shape, linear_weights
from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.systems import FULL_TEXT
from scaledown.models.loading.pretrained import CAUSAL_LMS, MASKED_LMS

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
        """Return the sum of all three."""
        return self.rerank + self.compress + self.generate


def reranker_shape(cross_encoder: Any) -> DecoderShape | EncoderShape:
    """Return the shape of a cross-encoder of sentence-transformers, a decoder with a score head or an encoder."""
    config = cross_encoder.config
    # Many encoders, BERT for one, can be built as causal LMs as well.
    if config.model_type in CAUSAL_LMS and config.model_type not in MASKED_LMS:
        model = next(module for module in cross_encoder.modules() if isinstance(module, PreTrainedModel))
        return decoder_shape(model)
    # It gives a score alone, so there is no map to a generator.
    return EncoderShape(linear_weights(cross_encoder), config.num_hidden_layers, config.hidden_size, 0, 0)


def reranking_flops(shape: DecoderShape | EncoderShape, tokens: TokenCounts) -> float:
    """Return a cross-encoder's FLOPs: it reads the query again with each document."""
    # Its special tokens take the place of ours.
    tokens = replace(tokens, memory_tokens=0.0, rerank_tokens=PAIR_TOKENS)
    return naive_flops(shape, tokens) if isinstance(shape, DecoderShape) else encoder_flops(shape, tokens)


def pipeline_flops(model: Any, result: SystemResult, candidates: Sequence[Record], given: Sequence[Record],
                   reranker: DecoderShape | EncoderShape | None) -> PipelineFlops:
    """Return the mean cost of a question.

    Args:
        model: a ScaleDownModel.
        result: of its system; prompts and answers are as long as they were there.
        candidates: the questions with all their documents, which the cross-encoder read.
        given: the questions with the documents that the system got.
        reranker: the cross-encoder's shape; None if none was used.
    """

    def count(text: str) -> int:
        return len(model.processor.tokenizer(text, add_special_tokens=False).input_ids)

    def counts(records: Sequence[Record]) -> TokenCounts:
        return TokenCounts(**mean_text_tokens(records, count, model.config),
                           memory_tokens=model.config.num_memory_tokens,
                           rerank_tokens=float(model.config.enable_reranking),
                           prompt_tokens=result.mean_prompt_tokens, new_tokens=result.mean_new_tokens)

    # Text is read by the generator without its adapter.
    is_text = result.system == FULL_TEXT.name
    flops = full_flops(decoder_shape(model.generator.base), None if is_text else compressor_shape(model),
                       counts(given), 0 if is_text else model.config.lora_rank, model.config.input_order)
    rerank = reranking_flops(reranker, counts(candidates)) if reranker else 0.0
    return PipelineFlops(rerank, flops.compress, flops.prefill + flops.decode)
