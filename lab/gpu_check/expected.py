"""The times that arithmetic expects of an H200 at the shape of Mistral-7B: estimates, none of which was measured.

A phase takes as long as the slowest of three: the host launches its operations (L), the GPU reads weights, keys and
values from memory (B), or it computes (F). Operations beside the matrix products are launched, but the time that the
GPU takes for them is left out, so phases that compute will take longer. The operations were counted on a simulated
device (``tests/test_cuda_device.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scaledown.evaluation.cost.flops import Flops, TokenCounts, full_flops
from scaledown.evaluation.cost.shapes import DecoderShape
from scaledown.evaluation.figures.text_tables import markdown_table
from scaledown.models.serving.compressing import DOCUMENTS_AT_ONCE

LAUNCH_SECONDS, BYTES_PER_SECOND, FLOPS_PER_SECOND = 4.5e-6, 4.8e12, 700e12
"""Of an operation from Python, 4 to 5 microseconds; of an H200's memory; and of its products in bfloat16."""
LAUNCHES = {
    "as trained, compress": (47, 68), "as trained, memory, prefill": (-15, 84), "as trained, memory, token": (33, 68),
    "as trained, text, prefill": (7, 42), "as trained, text, token": (33, 40),
    "for answering, compress": (48, 58), "for answering, memory, prefill": (14, 42),
    "for answering, memory, token": (33, 40), "for answering, text, prefill": (7, 42),
    "for answering, text, token": (33, 40)}
"""Operations of a phase: a number for each layer, and those that come on top; of prefill's last layer only the keys."""
GENERATOR = DecoderShape.gated(num_layers=32, hidden_size=4096, intermediate_size=14336, num_attention_heads=32,
                               num_key_value_heads=8, head_size=128, vocab_size=32000)
COMPRESSOR = DecoderShape.gated(num_layers=8, hidden_size=4096, intermediate_size=14336, num_attention_heads=32,
                                num_key_value_heads=8, head_size=128, vocab_size=32000)
LORA_RANK, VALUE_BYTES = 16, 2
MEMORY = TokenCounts(query_tokens=128, document_tokens=128, num_documents=10, memory_tokens=8, prompt_tokens=128 + 80,
                     new_tokens=32)
TEXT = TokenCounts(query_tokens=128, document_tokens=128, num_documents=10, memory_tokens=8, prompt_tokens=128 + 1280,
                   new_tokens=32)
BATCH_SIZES, STATES = (1, 32, 256), ("as trained", "for answering")
PAPER = {1: ("", "1.0x"), 32: ("", "2.2x (64 questions)"), 256: ("2.3x", "3.7x")}
"""How many times as fast as full text its authors measured: Mistral-7B with compression (table 5), and a model of 9
billion weights whose memory was ready."""
HEAD = ("questions", "the model", "compress", "prefill", "decode", "full text: prefill", "decode", "whole answer",
        "memory ready", "paper: whole answer", "memory ready")


@dataclass(frozen=True)
class Time:
    """Seconds of a phase, and what bounds them: L(aunches), B(ytes) or F(LOPs)."""

    seconds: float
    bound: str

    @classmethod
    def of(cls, launches: float, num_bytes: float, flops: float) -> Time:
        """Return the slowest of the three."""
        times = {"L": launches * LAUNCH_SECONDS, "B": num_bytes / BYTES_PER_SECOND, "F": flops / FLOPS_PER_SECOND}
        bound = max(times, key=times.__getitem__)
        return cls(times[bound], bound)

    def times(self, number: int) -> Time:
        """Return the time of ``number`` of these."""
        return Time(number * self.seconds, self.bound)

    def __str__(self) -> str:
        return f"{1e3 * self.seconds:,.0f} {self.bound}"


def answer_times(state: str, source: str, batch_size: int) -> tuple[Time, Time, Time]:
    """Return the times of compressing, prefill and decoding.

    Args:
        state: of the model, one of :data:`STATES`. As trained, full text is read without the adapter.
        source: "memory" or "text".
        batch_size: B, of the questions that are answered together.
    """
    is_trained, compresses = state == "as trained", source == "memory"
    tokens = MEMORY if compresses else TEXT
    lora_rank = LORA_RANK if is_trained and compresses else 0
    flops = full_flops(GENERATOR, COMPRESSOR if compresses else None, tokens, lora_rank)
    return (_compress(state, batch_size, flops) if compresses else Time(0.0, ""),
            _prefill(f"{state}, {source}", batch_size, tokens, flops, lora_rank),
            _decode(f"{state}, {source}", batch_size, tokens, flops, lora_rank))


def _launches(phase: str, num_layers: int) -> int:
    fixed, by_layer = LAUNCHES[phase]
    return fixed + by_layer * num_layers


def _compress(state: str, batch_size: int, flops: Flops) -> Time:
    # Weights in float32 are read, rounded, written, and read again.
    weight_bytes = 4 + 2 + 2 if state == "as trained" else VALUE_BYTES
    passes = math.ceil(batch_size * MEMORY.num_documents / DOCUMENTS_AT_ONCE)
    return Time.of(passes * _launches(f"{state}, compress", COMPRESSOR.num_layers),
                   passes * weight_bytes * COMPRESSOR.body_weights, batch_size * flops.compress)


def _prefill(way: str, batch_size: int, tokens: TokenCounts, flops: Flops, lora_rank: int) -> Time:
    keys_values = GENERATOR.key_value_bytes(batch_size * tokens.prompt_tokens, VALUE_BYTES)
    weights = VALUE_BYTES * (GENERATOR.body_weights + GENERATOR.lora_weights(lora_rank))
    return Time.of(_launches(f"{way}, prefill", GENERATOR.num_layers), weights + keys_values,
                   batch_size * flops.prefill)


def _decode(way: str, batch_size: int, tokens: TokenCounts, flops: Flops, lora_rank: int) -> Time:
    # Each token reads all keys and values: those of the prompt, and on average half of the answer's.
    keys_values = GENERATOR.key_value_bytes(batch_size * (tokens.prompt_tokens + tokens.new_tokens / 2), VALUE_BYTES)
    weights = VALUE_BYTES * (GENERATOR.body_weights + GENERATOR.head_weights + GENERATOR.lora_weights(lora_rank))
    token = Time.of(_launches(f"{way}, token", GENERATOR.num_layers), weights + keys_values,
                    batch_size * flops.decode / tokens.new_tokens)
    return token.times(int(tokens.new_tokens))


def table() -> list[list[str]]:
    """Return the rows of the table below :data:`HEAD`: milliseconds, and how many times as fast as full text."""
    rows = []
    for state in STATES:
        for batch_size in BATCH_SIZES:
            compress, prefill, decode = answer_times(state, "memory", batch_size)
            _, text_prefill, text_decode = answer_times(state, "text", batch_size)
            text = text_prefill.seconds + text_decode.seconds
            ready = prefill.seconds + decode.seconds
            rows.append([str(batch_size), state, *map(str, (compress, prefill, decode, text_prefill, text_decode)),
                         f"{text / (compress.seconds + ready):.1f}x", f"{text / ready:.1f}x", *PAPER[batch_size]])
    return rows


def markdown() -> str:
    """Return the table as Markdown."""
    return markdown_table(HEAD, table())
