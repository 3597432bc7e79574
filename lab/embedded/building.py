"""Size, schedule and first weights of a generator that is made from nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from scaledown.config import positive, require, setting

EMBEDDING_SCALE = 38.4
"""A token's first logit for itself, whatever the width: with tied embeddings it is their spread times the width."""
SMALLEST_VOCABULARY = 300
"""The 256 bytes, the special tokens, and something to learn."""


@dataclass(frozen=True)
class PretrainConfig:
    """Size, schedule and seed of a generator; the defaults are the embedded one's."""

    hidden_size: int = setting(128, "width")
    num_layers: int = setting(9, "layers: three times those of the compressor, so that compression pays")
    num_heads: int = setting(4, "attention heads")
    intermediate_size: int = setting(256, "width of the feed-forward part")
    vocabulary_tokens: int = setting(2048, "entries of the tokenizer, which is trained first")
    steps: int = setting(2750, "steps; the learning rate falls over the last third")
    batch_tokens: int = setting(1536, "tokens a step, in each process")
    learning_rate_matrices: float = setting(5e-3, "peak learning rate of Muon, for the matrices")
    learning_rate_rest: float = setting(5e-3, "peak learning rate of AdamW, for embeddings and norms")
    text_loss_weight: float = setting(0.5, "weight of the language-model loss on documents and questions")
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm")
    decay_share: float = setting(0.3, "share of the steps over which the learning rate falls to 0")
    eval_steps: int = setting(250, "steps between two lines of the log")
    seed: int = setting(42, "seed of weights and batches")

    def __post_init__(self) -> None:
        may_be_zero = {"seed", "text_loss_weight"}
        faults = positive(self, *(field.name for field in fields(self) if field.name not in may_be_zero))
        if self.num_heads > 0 and self.hidden_size % (2 * self.num_heads):
            faults.append(f"--hidden_size {self.hidden_size} must be a multiple of twice --num_heads {self.num_heads}")
        if 0 < self.vocabulary_tokens < SMALLEST_VOCABULARY:
            faults.append(f"--vocabulary_tokens must be at least {SMALLEST_VOCABULARY}, got {self.vocabulary_tokens}")
        require(faults)


def build_generator(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A Llama of the given size with random weights and tied embeddings."""
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads, max_position_embeddings=4096, tie_word_embeddings=True,
        vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id))
    _initialise(model)
    return model


def _initialise(model: LlamaForCausalLM) -> None:
    """Start as a shallow model: what layers add to the stream is 0 at first.

    With the usual start nine layers learn to copy from a document twenty times slower (lab/LOG.md).
    """
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(weight)
        elif "embed" in name:
            torch.nn.init.normal_(weight, std=EMBEDDING_SCALE / weight.shape[1])
        elif weight.ndim == 2:
            torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
