"""What an answer costs: FLOPs by phase, parameters, key-value bytes, worked out from shapes and token counts.

Two counts stand side by side. The **paper's convention** (arXiv:2504.07109, table 1) is 2 FLOPs for each weight of the
decoder layers and token, and 2 * hidden * vocabulary for each answer token; it leaves out attention scores, and the
query that the compressor reads. The **full count** has both, the LoRA adapter, the query once where a causal
compressor (n_layers, llm) reads it first and else once for each document, and the last layer of causal compressors
(and of the generator in training) only where its output is used, beside queries, keys and values of all tokens.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from scaledown.evaluation.cost.shapes import FLOPS_PER_SCORE, Compressor, DecoderShape, EncoderShape

FLOPS_PER_WEIGHT = 2


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of one (mean) question. ``num_documents`` may be a mean too, so these are floats."""

    query_tokens: float
    document_tokens: float
    num_documents: float
    memory_tokens: float
    prompt_tokens: float
    new_tokens: float
    rerank_tokens: float = 0.0


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one question, by phase (a multiplication and an addition are two)."""

    compress: float
    prefill: float
    decode: float

    @property
    def total(self) -> float:
        """All phases together."""
        return self.compress + self.prefill + self.decode

    def to_dict(self) -> dict[str, float]:
        """Phases and total."""
        return {**dataclasses.asdict(self), "total": self.total}


def paper_flops(generator: DecoderShape, compressor: Compressor, tokens: TokenCounts) -> Flops:
    """FLOPs by the convention of table 1: weights only, and no query in the compressor."""
    compressed = tokens.num_documents * (tokens.document_tokens + tokens.memory_tokens)
    compress = FLOPS_PER_WEIGHT * compressor.body_weights * compressed if compressor else 0.0
    prefill = FLOPS_PER_WEIGHT * generator.body_weights * tokens.prompt_tokens
    decode = FLOPS_PER_WEIGHT * (generator.body_weights + generator.head_weights) * tokens.new_tokens
    return Flops(compress, prefill, decode)


def causal_flops(compressor: DecoderShape, tokens: TokenCounts, input_order: str = "query_first",
                 is_stored: bool = False, attention: bool = True) -> float:
    """FLOPs of a causal compressor (n_layers, llm), the last layer only where its output is used.

    That is at the memory and rerank positions. Query first, the query is read once; document first, it is read with
    each document, and the documents not at all where their readings are stored.
    """
    num_first, first, second = 1.0, tokens.query_tokens, tokens.document_tokens
    if input_order == "document_first":
        num_first, first, second = 0.0 if is_stored else tokens.num_documents, second, first
    tail = tokens.memory_tokens + tokens.rerank_tokens
    used = tokens.num_documents * tail
    weights = compressor.weighed(num_first * first + tokens.num_documents * second + used, used)
    weights += compressor.map_weights * tokens.num_documents * tokens.memory_tokens
    flops = FLOPS_PER_WEIGHT * weights
    if attention:
        pairs = num_first * _causal_pairs(0, first) + tokens.num_documents * _causal_pairs(first, second + tail)
        used_pairs = tokens.num_documents * _causal_pairs(first + second, tail)
        flops += compressor.score_flops(pairs, compressor.num_layers - 1) + compressor.score_flops(used_pairs, 1)
    return flops


def naive_flops(compressor: DecoderShape, tokens: TokenCounts) -> float:
    """FLOPs of the same compressor without those two savings: ``[query][document][MEM]`` through all layers, K times.

    It leaves nothing out that a plain implementation computes, attention included.
    """
    read = tokens.query_tokens + tokens.document_tokens + tokens.memory_tokens + tokens.rerank_tokens
    scores = compressor.score_flops(_causal_pairs(0, read))
    weights = compressor.body_weights * read + compressor.map_weights * tokens.memory_tokens
    return tokens.num_documents * (FLOPS_PER_WEIGHT * weights + scores)


def encoder_flops(compressor: EncoderShape, tokens: TokenCounts) -> float:
    """FLOPs of an encoder compressor: attention looks both ways, so each document is read with its own query.

    Every layer is counted as attending to the whole input: the upper bound where some have a sliding window.
    """
    tail = tokens.memory_tokens + tokens.rerank_tokens
    read = tokens.query_tokens + tokens.document_tokens + tail
    weights = compressor.body_weights * read + compressor.mlp_weights * tokens.memory_tokens
    scores = FLOPS_PER_SCORE * compressor.num_layers * compressor.hidden_size * read * read
    return tokens.num_documents * (FLOPS_PER_WEIGHT * weights + scores)


def full_flops(generator: DecoderShape, compressor: Compressor, tokens: TokenCounts, lora_rank: int = 0,
               input_order: str = "query_first") -> Flops:
    """FLOPs with attention, the query and the adapter.

    Prefill reads the prompt but for its last token, which is decoding's first: it gives the first new token. Of the
    last layer it computes keys and values alone.
    """
    compress = 0.0
    if isinstance(compressor, DecoderShape):
        compress = causal_flops(compressor, tokens, input_order)
    elif isinstance(compressor, EncoderShape):
        compress = encoder_flops(compressor, tokens)

    read, steps = max(0.0, tokens.prompt_tokens - 1), tokens.new_tokens
    weights = generator.body_weights + generator.lora_weights(lora_rank)
    prefill = (FLOPS_PER_WEIGHT * generator.weighed(read, 0, lora_rank)
               + generator.score_flops(_causal_pairs(0, read), generator.num_layers - 1))
    decode = (FLOPS_PER_WEIGHT * (weights + generator.head_weights) * steps
              + generator.score_flops(_causal_pairs(read, steps)))
    return Flops(compress, prefill, decode)


def training_flops(generator: DecoderShape, read: float, used: float) -> float:
    """FLOPs forward of the generator over ``read`` tokens of a prompt with its answer, of which ``used`` are learnt."""
    weights = generator.weighed(read, used) + generator.head_weights * used
    scores = (generator.score_flops(_causal_pairs(0, read), generator.num_layers - 1)
              + generator.score_flops(_causal_pairs(read - used, used), 1))
    return FLOPS_PER_WEIGHT * weights + scores


def plain_training_flops(generator: DecoderShape, read: float) -> float:
    """FLOPs forward of a plain implementation: all layers and the logits of all ``read`` tokens."""
    weights = (generator.body_weights + generator.head_weights) * read
    return FLOPS_PER_WEIGHT * weights + generator.score_flops(_causal_pairs(0, read))


def _causal_pairs(before: float, num_tokens: float) -> float:
    """Pairs of positions when ``num_tokens`` attend to ``before`` earlier ones, to themselves and to those between."""
    return num_tokens * before + num_tokens * (num_tokens + 1) / 2
