"""FLOPs of the real code, counted by PyTorch on the meta device: nothing is computed or loaded."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.evaluation.cost.flops import Flops, TokenCounts
from scaledown.evaluation.cost.known_shapes import config_of
from scaledown.evaluation.cost.shapes import compressor_without_values, generator_without_values
from scaledown.models.compressors.base import Compressor
from scaledown.models.compressors.encoder import EncoderCompressor
from scaledown.models.compressors.llm import LLMCompressor
from scaledown.models.compressors.n_layers import NLayersCompressor, resolve_num_layers
from scaledown.models.engine import decoder, last_layer
from scaledown.models.engine.packing import TextLists


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


def _compressor(args: argparse.Namespace, base: PreTrainedModel) -> Compressor:
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
