"""The FLOPs of an answer by phase, computed from shapes and token counts, in two conventions.

The **paper's convention** (arXiv:2504.07109, table 1) is 2 FLOPs for each weight of the decoder layers and token, and
2 * hidden * vocabulary for each answer token; it leaves out attention scores, and the query that the compressor reads.

The **full count** has both, and the LoRA adapter. It has the query once if a causal compressor (n_layers, llm) reads it
first, else once for each document. Of the last layer of causal compressors (and of the generator in prefill and in
training) it has keys and values of all tokens, and the rest only at the positions whose output is used.

PyTorch's FlopCounterMode checks this count (the tests, and ``--measure_flops``) but does not replace it. It counts an
attention's whole square, of which causality hides half, so that longer prompts look dearer than they are: the demo's
full text by a quarter. It counts nothing of experts, cannot run weights in 4 bits on the meta device, and takes half a
minute for a generator of 7 billion weights.
"""

from __future__ import annotations

import argparse
import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.evaluation.cost.known_shapes import config_of
from scaledown.evaluation.cost.shapes import (
    FLOPS_PER_SCORE,
    Compressor,
    DecoderShape,
    EncoderShape,
    compressor_without_values,
    generator_without_values,
)
from scaledown.models.compressors.encoder import EncoderCompressor
from scaledown.models.compressors.llm import LLMCompressor
from scaledown.models.compressors.n_layers import NLayersCompressor, resolve_num_layers
from scaledown.models.engine import decoder, last_layer
from scaledown.models.engine.packing import TextLists

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
        """Return the sum of all phases."""
        return self.compress + self.prefill + self.decode

    def to_dict(self) -> dict[str, float]:
        """Return the phases and the total by name."""
        return {**dataclasses.asdict(self), "total": self.total}


def paper_flops(generator: DecoderShape, compressor: Compressor, tokens: TokenCounts) -> Flops:
    """Return FLOPs by the convention of table 1: weights only, and no query in the compressor."""
    compressed = tokens.num_documents * (tokens.document_tokens + tokens.memory_tokens)
    compress = FLOPS_PER_WEIGHT * compressor.body_weights * compressed if compressor else 0.0
    prefill = FLOPS_PER_WEIGHT * generator.body_weights * tokens.prompt_tokens
    # The LM head is computed for new tokens alone.
    decode = FLOPS_PER_WEIGHT * (generator.body_weights + generator.head_weights) * tokens.new_tokens
    return Flops(compress, prefill, decode)


def causal_flops(compressor: DecoderShape, tokens: TokenCounts, input_order: str = "query_first",
                 is_stored: bool = False, attention: bool = True) -> float:
    """Return the FLOPs of a causal compressor (n_layers, llm), with the last layer at the used positions only.

    These are the memory and rerank positions. Query first, the query is read once; document first, it is read with each
    document, and the documents are not read at all if their readings are stored.
    """
    # No document, nothing to compress: the query is not read for its own sake.
    if tokens.num_documents == 0:
        return 0.0

    # A prefix is read ``num_prefixes`` times, then each document's suffix: the other text and its memory tokens.
    num_documents = tokens.num_documents
    num_prefixes, prefix, text = 1.0, tokens.query_tokens, tokens.document_tokens
    if input_order == "document_first":
        num_prefixes, prefix, text = num_documents, tokens.document_tokens, tokens.query_tokens
        if is_stored:
            num_prefixes = 0.0

    tail = tokens.memory_tokens + tokens.rerank_tokens  # of one document
    used = num_documents * tail
    read = num_prefixes * prefix + num_documents * text + used
    weights = compressor.weighed(read, used) + compressor.map_weights * num_documents * tokens.memory_tokens
    flops = FLOPS_PER_WEIGHT * weights
    if attention:
        pairs = num_prefixes * _causal_pairs(0, prefix) + num_documents * _causal_pairs(prefix, text + tail)
        used_pairs = num_documents * _causal_pairs(prefix + text, tail)
        flops += compressor.score_flops(pairs, compressor.num_layers - 1) + compressor.score_flops(used_pairs, 1)
    return flops


def naive_flops(compressor: DecoderShape, tokens: TokenCounts) -> float:
    """Return the FLOPs of a compressor that reads ``[query][document][MEM]`` through all layers, K times.

    It lacks the two savings of :func:`causal_flops`: the shared query, and the last layer at few positions.
    """
    # Of one document; all K are alike.
    read = tokens.query_tokens + tokens.document_tokens + tokens.memory_tokens + tokens.rerank_tokens
    scores = compressor.score_flops(_causal_pairs(0, read))
    weights = compressor.body_weights * read + compressor.map_weights * tokens.memory_tokens
    return tokens.num_documents * (FLOPS_PER_WEIGHT * weights + scores)


def encoder_flops(compressor: EncoderShape, tokens: TokenCounts) -> float:
    """Return the FLOPs of an encoder compressor: attention looks both ways, so the query is read with each document.

    Every layer is counted as attending to the whole input: an upper bound if some have a sliding window.
    """
    tail = tokens.memory_tokens + tokens.rerank_tokens
    read = tokens.query_tokens + tokens.document_tokens + tail  # of one document
    weights = compressor.body_weights * read + compressor.map_weights * tokens.memory_tokens
    scores = FLOPS_PER_SCORE * compressor.num_layers * compressor.hidden_size * read * read
    return tokens.num_documents * (FLOPS_PER_WEIGHT * weights + scores)


def full_flops(generator: DecoderShape, compressor: Compressor, tokens: TokenCounts, lora_rank: int = 0,
               input_order: str = "query_first") -> Flops:
    """Return the FLOPs with attention, the query and the adapter.

    Prefill reads the prompt except its last token, which is the first that decoding reads: it gives the first new
    token. Of the last layer prefill computes keys and values alone.
    """
    compress = 0.0
    if isinstance(compressor, DecoderShape):
        compress = causal_flops(compressor, tokens, input_order)
    elif isinstance(compressor, EncoderShape):
        compress = encoder_flops(compressor, tokens)

    read, steps = max(0.0, tokens.prompt_tokens - 1), tokens.new_tokens  # one step for each new token
    weights = generator.body_weights + generator.lora_weights(lora_rank)
    # No output of prefill's last layer is used, so it attends in one layer less.
    prefill = (FLOPS_PER_WEIGHT * generator.weighed(read, 0, lora_rank)
               + generator.score_flops(_causal_pairs(0, read), generator.num_layers - 1))
    decode = (FLOPS_PER_WEIGHT * (weights + generator.head_weights) * steps
              + generator.score_flops(_causal_pairs(read, steps)))
    return Flops(compress, prefill, decode)


def training_flops(generator: DecoderShape, read: float, used: float) -> float:
    """Return the forward FLOPs over ``read`` tokens of a prompt with its answer, of which the loss has ``used``."""
    # The loss's tokens are the last ones, so each attends to all the others before it.
    weights = generator.weighed(read, used) + generator.head_weights * used
    scores = (generator.score_flops(_causal_pairs(0, read), generator.num_layers - 1)
              + generator.score_flops(_causal_pairs(read - used, used), 1))
    return FLOPS_PER_WEIGHT * weights + scores


def plain_training_flops(generator: DecoderShape, read: float) -> float:
    """Return the forward FLOPs of a plain implementation: all layers and the logits of all ``read`` tokens."""
    weights = (generator.body_weights + generator.head_weights) * read
    return FLOPS_PER_WEIGHT * weights + generator.score_flops(_causal_pairs(0, read))


def _causal_pairs(before: float, num_tokens: float) -> float:
    """Return the pairs of positions if ``num_tokens`` attend to ``before`` earlier ones, and causally to each other."""
    # The i-th of them attends to before + i positions, itself included.
    return num_tokens * before + num_tokens * (num_tokens + 1) / 2


def measured_flops(args: argparse.Namespace, tokens: TokenCounts, compresses: bool) -> Flops:
    """Run compressor and generator on tensors without values, and count.

    PyTorch counts the whole square of attention, also of a causal kernel, which leaves half of it out. So this is a
    little above the analytic count.
    """
    base = generator_without_values(config_of(args.generator_model))

    with torch.device("meta"), torch.no_grad():
        compress = 0
        if compresses:
            compressor, texts = _compressor(args, base), _texts(args, tokens).packed()
            with FlopCounterMode(display=False) as counter:
                compressor(texts, base.get_input_embeddings())
            compress = counter.get_total_flops()

        # Choosing a token needs values, so the generator's steps are repeated without it.
        prefill, decode = _generator_flops(base, int(tokens.prompt_tokens), int(tokens.new_tokens))
    return Flops(compress, prefill, decode)


def _compressor(args: argparse.Namespace, base: PreTrainedModel) -> nn.Module:
    table = base.get_input_embeddings().weight
    # It takes its layers from the generator's decoder.
    if args.compressor_type == "n_layers":
        num_layers = resolve_num_layers(args.num_layers, base.config.num_hidden_layers)
        settings = ScaleDownConfig(num_layers=num_layers, num_memory_tokens=args.num_memory_tokens)
        return NLayersCompressor(settings, base.base_model, table)

    settings = ScaleDownConfig(compressor_type=args.compressor_type, num_memory_tokens=args.num_memory_tokens)
    kind = LLMCompressor if args.compressor_type == "llm" else EncoderCompressor
    return kind(settings, compressor_without_values(args.compressor_type, args.compressor_model), table)


def _texts(args: argparse.Namespace, tokens: TokenCounts) -> TextLists:
    """Return one question's texts: the query once for all its documents, but with each for an encoder."""
    query = [0] * int(tokens.query_tokens)
    document = [0] * int(tokens.document_tokens + tokens.memory_tokens)  # with its memory positions behind it
    num_documents = int(tokens.num_documents)

    # The states at the last positions of each text, those of its memory tokens, are read.
    if args.compressor_type == "modernbert":
        size = len(query) + len(document)
        reads = range(size - args.num_memory_tokens, size)
        return TextLists([[*query, *document]] * num_documents, [], [], [reads] * num_documents)

    reads = range(len(document) - args.num_memory_tokens, len(document))
    return TextLists([query], [document] * num_documents, [0] * num_documents, [range(0), *[reads] * num_documents])


def _generator_flops(base: PreTrainedModel, prompt_tokens: int, new_tokens: int) -> tuple[int, int]:
    """Count the FLOPs of reading a prompt except its last token, and of the steps from there.

    These are the steps of :class:`scaledown.models.generator.Generator` by transformers' forward pass. That class
    itself looks at its prompts' padding and at each new token, and here tokens have no values.
    """
    cache, body = DynamicCache(config=base.config), base.base_model
    last = nullcontext()
    if decoder.packing_fault(body) is None:
        decoder.register(base)
        last = last_layer.only(body.layers, None)    # prefill computes its keys and values alone

    with FlopCounterMode(display=False) as prefill, last:
        if prompt_tokens > 1:
            body(torch.zeros(1, prompt_tokens - 1, dtype=torch.long), cache=cache, use_cache=True)

    # A step reads the last token and gives the next.
    with FlopCounterMode(display=False) as decode:
        for _ in range(new_tokens):
            base(torch.zeros(1, 1, dtype=torch.long), cache=cache, use_cache=True)
    return prefill.get_total_flops(), decode.get_total_flops()
