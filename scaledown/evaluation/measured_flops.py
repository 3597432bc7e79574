"""FLOPs of the real code, counted by PyTorch on shapes alone (the meta device): nothing is computed or loaded."""

from __future__ import annotations

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoModelForCausalLM, DynamicCache, PretrainedConfig, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.evaluation.flops import Flops, TokenCounts
from scaledown.evaluation.known_shapes import config_of
from scaledown.models.compressor import Compressor, CompressorInput
from scaledown.models.encoder import EncoderCompressor
from scaledown.models.generator import Generator
from scaledown.models.llm import LLMCompressor
from scaledown.models.n_layers import NLayersCompressor, resolve_num_layers
from scaledown.models.parts import DEFAULT_MODELS


def measured_flops(config: PretrainedConfig, args: argparse.Namespace, tokens: TokenCounts, compresses: bool) -> Flops:
    """Run compressor and generator on tensors without values, and count.

    PyTorch counts an attention's whole square, also where a causal kernel leaves half of it out, so this is a little
    above the analytic count.
    """
    with torch.device("meta"), torch.no_grad():
        base = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        compress = 0
        if compresses:
            compressor = _compressor(config, args, base)
            with FlopCounterMode(display=False) as counter:
                compressor(_texts(tokens), base.get_input_embeddings())
            compress = counter.get_total_flops()
        decode = _decode(base, int(tokens.prompt_tokens), int(tokens.new_tokens))
        prefill = _prefill(base, int(tokens.prompt_tokens))
    return Flops(compress, prefill, decode)


def _compressor(config: PretrainedConfig, args: argparse.Namespace, base: torch.nn.Module) -> Compressor:
    settings = ScaleDownConfig(compressor_type=args.compressor_type, num_memory_tokens=args.num_memory_tokens)
    if args.compressor_type == "n_layers":
        return NLayersCompressor(settings, base.base_model,
                                 resolve_num_layers(args.num_layers, config.num_hidden_layers))
    kind = LLMCompressor if args.compressor_type == "llm" else EncoderCompressor
    return kind(settings, model_without_values(args.compressor_type, args.compressor_model),
                base.get_input_embeddings().weight)


def model_without_values(compressor_type: str, name: str | None) -> PreTrainedModel:
    """The compressor's own model ``name`` [the type's default] as shapes alone."""
    with torch.device("meta"):
        return AutoModel.from_config(config_of(name or DEFAULT_MODELS[compressor_type]), attn_implementation="sdpa")


def _texts(tokens: TokenCounts) -> CompressorInput:
    query_tokens, document_tokens, documents = (
        int(count) for count in (tokens.query_tokens, tokens.document_tokens, tokens.num_documents))

    def whole(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.long)

    return CompressorInput(whole(1, query_tokens), whole(1), whole(documents, document_tokens), whole(documents),
                           whole(documents), whole(query_tokens), whole(documents * document_tokens))


def _prefill(base: PreTrainedModel, prompt_tokens: int) -> int:
    generator = Generator(ScaleDownConfig(), base).eval()
    with FlopCounterMode(display=False) as counter:
        generator.prefill([[0] * prompt_tokens], None, with_adapter=False)
    return counter.get_total_flops()


def _decode(base: PreTrainedModel, prompt_tokens: int, new_tokens: int) -> int:
    """By transformers' own forward pass: ours looks at each new token, and here tokens have no values."""
    cache = DynamicCache()
    base(torch.zeros(1, prompt_tokens, dtype=torch.long), cache=cache, logits_to_keep=1)
    with FlopCounterMode(display=False) as counter:
        for _ in range(new_tokens - 1):
            base(torch.zeros(1, 1, dtype=torch.long), cache=cache)
    return counter.get_total_flops()
