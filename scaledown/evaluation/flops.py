"""What an answer costs: FLOPs by phase, parameters, key-value bytes, worked out from shapes and token counts.

Two counts stand side by side. The **paper's convention** (arXiv:2504.07109, table 1) is 2 FLOPs for each weight of the
decoder layers and token, and 2 * hidden * vocabulary for each answer token; it leaves out attention scores, and the
query that the compressor reads. The **full count** has both, the LoRA adapter, the query once where a causal
compressor (n_layers, llm) reads it first and else once for each document, and the last layer (of causal compressors and
of the generator, whatever it reads) only where its output is used.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

FLOPS_PER_WEIGHT = 2
FLOPS_PER_SCORE = 4


@dataclass(frozen=True)
class DecoderShape:
    """A Llama-like decoder (Llama, Mistral, Qwen2, Qwen3): grouped queries, gated MLP; biases and norms left out.

    ``map_weights`` are those of an llm compressor's Linear - ReLU - Linear to the generator, at memory positions alone.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_size: int
    vocab_size: int
    map_weights: int = 0

    @classmethod
    def from_config(cls, config: Any, num_layers: int | None = None) -> DecoderShape:
        """Read the shape from a Hugging Face ``config``, of its first ``num_layers`` where that is given."""
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(num_layers or config.num_hidden_layers, config.hidden_size, config.intermediate_size,
                   config.num_attention_heads, config.num_key_value_heads, head_size, config.vocab_size)

    def _key_value_maps(self) -> list[tuple[int, int]]:
        return [(self.hidden_size, self.num_key_value_heads * self.head_size)] * 2

    def _other_maps(self) -> list[tuple[int, int]]:
        attention_size = self.num_attention_heads * self.head_size
        return [(self.hidden_size, attention_size), (attention_size, self.hidden_size),
                (self.hidden_size, self.intermediate_size), (self.hidden_size, self.intermediate_size),
                (self.intermediate_size, self.hidden_size)]

    @property
    def key_value_weights(self) -> int:
        """Weights of one layer's key and value maps."""
        return sum(width * height for width, height in self._key_value_maps())

    @property
    def layer_weights(self) -> int:
        """Weights of one layer's linear maps."""
        return self.key_value_weights + sum(width * height for width, height in self._other_maps())

    @property
    def body_weights(self) -> int:
        """Weights of all layers' linear maps, without embeddings and LM head: the paper's P."""
        return self.num_layers * self.layer_weights

    @property
    def head_weights(self) -> int:
        """Weights of the LM head."""
        return self.hidden_size * self.vocab_size

    def lora_weights(self, rank: int) -> int:
        """Weights of a LoRA adapter on every linear map of the layers."""
        return self.num_layers * sum(map(sum, self._lora_maps(rank)))

    def read_weights(self, read: float, used: float, lora_rank: int = 0) -> float:
        """Weights times tokens of all layers over ``read`` tokens, of which the last layer's output needs ``used``.

        In the last layer the others give keys and values alone (exact: nothing else of it is read).
        """
        key_values, others = (sum(width * height for width, height in maps) + sum(lora) for maps, lora in zip(
            (self._key_value_maps(), self._other_maps()), self._lora_maps(lora_rank), strict=True))
        return (self.num_layers - 1) * (key_values + others) * read + key_values * read + others * used

    def _lora_maps(self, rank: int) -> tuple[list[int], list[int]]:
        """Weights of the adapter in one layer: on the key and value maps, and on the others."""
        key_values, others = ([rank * (width + height) for width, height in maps]
                              for maps in (self._key_value_maps(), self._other_maps()))
        return key_values, others

    def score_flops(self, num_pairs: float, num_layers: int | None = None) -> float:
        """FLOPs of attention scores and weighted values, for so many pairs of a query and a key position."""
        layers = self.num_layers if num_layers is None else num_layers
        return FLOPS_PER_SCORE * layers * self.num_attention_heads * self.head_size * num_pairs

    def key_value_bytes(self, num_tokens: float, bytes_per_value: int) -> float:
        """Bytes of the keys and values of so many tokens."""
        return 2 * self.num_layers * self.num_key_value_heads * self.head_size * num_tokens * bytes_per_value


@dataclass(frozen=True)
class EncoderShape:
    """An encoder compressor: its linear maps' weights, and the MLP that takes memory positions to the generator."""

    body_weights: int
    num_layers: int
    hidden_size: int
    mlp_width: int
    generator_size: int

    @property
    def mlp_weights(self) -> int:
        """Weights of Linear - ReLU - Linear (paper, section 3)."""
        return self.hidden_size * self.mlp_width + self.mlp_width * self.generator_size


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


Compressor = DecoderShape | EncoderShape | None


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
    weights = compressor.read_weights(num_first * first + tokens.num_documents * second + used, used)
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
    """FLOPs with attention, the query and the adapter. Prefill gives the first new token, decode the others."""
    compress = 0.0
    if isinstance(compressor, DecoderShape):
        compress = causal_flops(compressor, tokens, input_order)
    elif isinstance(compressor, EncoderShape):
        compress = encoder_flops(compressor, tokens)
    token = FLOPS_PER_WEIGHT * (generator.body_weights + generator.lora_weights(lora_rank) + generator.head_weights)
    steps = max(0.0, tokens.new_tokens - 1)
    prefill = reading_flops(generator, tokens.prompt_tokens, 1, lora_rank)
    decode = token * steps + generator.score_flops(_causal_pairs(tokens.prompt_tokens, steps))
    return Flops(compress, prefill, decode)


def reading_flops(generator: DecoderShape, read: float, used: float, lora_rank: int = 0) -> float:
    """FLOPs of the generator over ``read`` tokens at once, with logits for the last ``used`` of them."""
    weights = generator.read_weights(read, used, lora_rank) + generator.head_weights * used
    scores = (generator.score_flops(_causal_pairs(0, read), generator.num_layers - 1)
              + generator.score_flops(_causal_pairs(read - used, used), 1))
    return FLOPS_PER_WEIGHT * weights + scores


def _causal_pairs(before: float, num_tokens: float) -> float:
    """Pairs of positions when ``num_tokens`` attend to ``before`` earlier ones, to themselves and to those between."""
    return num_tokens * before + num_tokens * (num_tokens + 1) / 2
