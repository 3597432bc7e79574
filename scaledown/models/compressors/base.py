"""The part that all compressors share: memory and rerank tokens, the reranking head, the norm (paper, section 3.1).

A compressor reads ``[query][document][MEM x L][RR]``, or the document before the query. The states at the memory
positions represent the document; the state at the rerank position, through a linear head, scores it. These special
tokens are parameters of the compressor, outside any vocabulary: no table of embeddings is resized for them. Parameters
and checkpoints call their embeddings rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.engine import lora
from scaledown.models.engine.decoder import rows_like
from scaledown.models.engine.packing import PackedTexts
from scaledown.models.engine.positions import PositionLimit

Embed = Callable[[Tensor], Tensor]
OTHER_UNITS = 0.1
"""An MLP that starts as the identity needs two hidden units for each input; the output weights of its other units are
scaled by this."""


class Compressed(NamedTuple):
    """P compressed documents.

    Attributes:
        embeddings: their memory (P, L, D).
        scores: with reranking (P,).
        states: of mixtures of tokens (P, L, D): the generator's output head says which tokens each one mixes.
    """

    embeddings: Tensor
    scores: Tensor | None
    states: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[Compressed]) -> Compressed:
        """Return several parts as one, in their order."""
        embeddings = torch.cat([part.embeddings for part in parts])           # (P, L, D)
        if parts[0].scores is None:
            return cls(embeddings, None)
        return cls(embeddings, torch.cat([part.scores for part in parts]))    # (P,)


def start_mlp_as_identity(mlp: nn.Sequential) -> None:
    """Let an MLP (D, width, D) compute nearly the identity, if it is at least twice as wide as its input.

    Hidden units beyond these two for each input keep their random weights, with a smaller effect on the output.

    Raises:
        ValueError: if it is too narrow, or its output is not as wide as its input.
    """
    inner, _, outer = mlp
    size = inner.in_features
    if outer.out_features != size or inner.out_features < 2 * size:
        raise ValueError(f"--mlp_width {inner.out_features}: the memory starts as the reply's tokens, which takes at "
                         f"least {2 * size}; make it wider, or give --memory_init tokens")

    # Hidden unit i is relu(x_i), unit D + i is relu(-x_i), and relu(x) - relu(-x) = x.
    both_signs = torch.cat([torch.eye(size), -torch.eye(size)])               # (2 D, D)
    with torch.no_grad():
        inner.weight[:2 * size] = both_signs
        inner.bias.zero_()
        outer.weight *= OTHER_UNITS
        outer.weight[:, :2 * size] = both_signs.T                             # (D, 2 D)
        outer.bias.zero_()


def memory_mlp(config: ScaleDownConfig, width: int, generator_width: int) -> nn.Sequential:
    """Return Linear-ReLU-Linear, from the width of a compressor's own model to the generator's (paper, section 3)."""
    return nn.Sequential(nn.Linear(width, config.mlp_width), nn.ReLU(), nn.Linear(config.mlp_width, generator_width))


def token_mixtures(states: Tensor, table: Tensor) -> Tensor:
    """Return the expected embedding (P, L, D) of the token that the output head would say after each state (P, L, D).

    The generator can read it without having been trained to, and it passes gradients on, unlike the likeliest token
    alone.

    Args:
        states: as the generator's final states.
        table: the generator's token embeddings (V, D), which are its output head, too.
    """
    # In float32 in any arithmetic, as among 50,000 probabilities most are tiny.
    # Products of two matrices: with a batch of them torch may copy the table for each of the P passages.
    logits = F.linear(states.flatten(0, 1).to(table.dtype), table)            # (P * L, V)
    probabilities = logits.softmax(-1, torch.float32)                         # (P * L, V)
    mixtures = probabilities.to(table.dtype) @ table                          # (P * L, D)
    return mixtures.unflatten(0, states.shape[:2])                            # (P, L, D)


def prepare_training(config: ScaleDownConfig, model: PreTrainedModel) -> None:
    """Let all weights of the model that a compressor reads with be trained, or with ``compressor_lora_rank`` its LoRA.

    What is trained is held in float32.
    """
    rank = config.compressor_lora_rank
    if rank is None:
        model.float().requires_grad_(True)
        return
    # Scaled as the generator's adapter is: alpha / rank is the same, and no whole number is needed for it.
    alpha = config.lora_alpha * rank / config.lora_rank
    lora.add_adapter(model, rank, alpha, config.lora_dropout)


class Compressor(nn.Module, ABC):
    """The special tokens, the reranking head and the optional norm; subclasses read the texts.

    Args:
        config: the model's settings.
        table: token embeddings (V, width) of the texts that the compressor reads.
        generator_table: token embeddings (V, D) of the generator that reads the memory.
        state_width: of its final states, if they are not as wide as its token embeddings (ELECTRA's, ALBERT's).

    Attributes:
        model_config: of the Hugging Face model that it is made from, for the checkpoint; None if that is the
            generator.
        position_limit: the longest input that this model reads exactly, if there is a limit.
        mixed_table: with soft tokens the generator's token embeddings (V, D), which its memory mixes.
    """

    model_config: PretrainedConfig | None = None
    position_limit: PositionLimit | None = None

    def __init__(self, config: ScaleDownConfig, table: Tensor, generator_table: Tensor,
                 state_width: int | None = None) -> None:
        super().__init__()
        self.state_width = state_width or table.shape[1]
        self.memory_rows = rows_like(table, config.num_memory_tokens)         # (L, width of embeddings)
        self.rerank_row = rows_like(table, 1) if config.enable_reranking else None
        self.rerank_head = nn.Linear(self.state_width, 1) if config.enable_reranking else None
        self.memory_norm = _embedding_norm(generator_table) if config.memory_norm else None
        self.register_parameter("mixed_table", None)

    def mix_tokens(self, table: nn.Parameter) -> None:
        """Make the memory of mixtures of tokens (``soft_tokens``).

        Args:
            table: token embeddings (V, D), which are the generator's output head, too. It is the generator's own
                parameter, not a copy: it is frozen there, and so no checkpoint of the compressor holds it.
        """
        self.mixed_table = table

    def start_as_identity(self) -> None:
        """Let the map from final states to memory change nothing initially; a compressor without one does nothing."""

    def add_reranking(self) -> None:
        """Add a rerank token, initially a copy of the last memory token, and a head of zeros to a trained compressor.

        Trained states may be of any size. A head drawn at random then starts far from all scores (its squared error was
        ten times that of a guess), and its gradients destroy what the memory has been trained to hold.
        """
        self.rerank_row = nn.Parameter(self.memory_rows.detach()[-1:].clone())  # (1, width)
        self.rerank_head = nn.Linear(self.state_width, 1, device=self.memory_rows.device)
        for parameter in self.rerank_head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, texts: PackedTexts, embed: Embed, num_memory: int | None = None) -> Compressed:
        """Compress each document with its query.

        Args:
            texts: queries and documents; the wanted tokens are each document's memory tokens (and rerank token).
            embed: the generator's token embeddings, ids (..., T) to (..., T, D), which are not trained.
            num_memory: L, to read only the first L memory tokens [all].
        """
        special = self.special_rows(num_memory)                               # (L (+ 1), width)
        num_documents = len(texts.reads.at) // len(special)

        # The wanted tokens lie document after document: P blocks of L (+ 1).
        if num_documents:
            states = self._read(texts, embed, special.repeat(num_documents, 1))
        else:
            states = special.new_zeros(0, self.state_width)
        states = states.unflatten(0, (num_documents, len(special)))           # (P, L (+ 1), width)

        of_memory = states[:, :num_memory or len(self.memory_rows)]           # (P, L, width)
        in_width = self._project(of_memory)                                   # (P, L, D)
        embeddings = in_width if self.mixed_table is None else token_mixtures(in_width, self.mixed_table)
        if self.memory_norm is not None:
            embeddings = self.memory_norm(embeddings)

        # With reranking, the last state is the rerank token's.
        scores = self.scores_of(states[:, -1])                                # (P,)
        return Compressed(embeddings, scores, None if self.mixed_table is None else in_width)

    def stored_name(self, name: str) -> str:
        """Return the name that a checkpoint has for the parameter ``name``."""
        return name

    def special_rows(self, num_memory: int | None) -> Tensor:
        """Return the embeddings that follow each document: (L, width), or (L + 1, width) with reranking."""
        memory_rows = self.memory_rows[:num_memory]
        return memory_rows if self.rerank_row is None else torch.cat([memory_rows, self.rerank_row])

    def scores_of(self, states: Tensor) -> Tensor | None:
        """Return scores (P,) of the states (P, width) at the rerank position; None without reranking."""
        if self.rerank_head is None:
            return None
        # Not by calling the head: autocast would round the scores to bfloat16, in which many are equal.
        return (states.float() * self.rerank_head.weight).sum(-1) + self.rerank_head.bias

    @abstractmethod
    def gradient_checkpointing_enable(self) -> None:
        """Compute activations twice in training, to keep fewer of them."""

    @abstractmethod
    def _read(self, texts: PackedTexts, embed: Embed, special: Tensor) -> Tensor:
        """Return the final states (M, width) of the wanted tokens, whose embeddings are ``special`` (M, width)."""

    def _project(self, states: Tensor) -> Tensor:
        """Return memory states (P, L, width) in the generator's width (P, L, D)."""
        return states


def _embedding_norm(generator_table: Tensor) -> nn.RMSNorm:
    """Return a norm that gives memory the scale of the generator's token embeddings (V, D)."""
    norm = nn.RMSNorm(generator_table.shape[1], eps=1e-6)
    # The same gain for all dimensions: the root mean square of the table.
    with torch.no_grad():
        norm.weight.copy_(generator_table.float().pow(2).mean().sqrt().expand_as(norm.weight))
    return norm
