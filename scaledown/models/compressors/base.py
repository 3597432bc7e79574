"""What all compressors share: what they read, what they give, and the rows they learn (paper, section 3.1).

A compressor reads ``[query][document][MEM x L][RR]``, or the document before the query. The states at the memory
positions stand for the document; the state at the rerank position, through a dense head, scores it. These rows are
parameters of the compressor's own, outside any vocabulary: nothing is resized, and they alone are trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from scaledown.config import ScaleDownConfig
from scaledown.models.decoder import rows_like
from scaledown.models.packing import PackedTexts
from scaledown.models.positions import PositionLimit

Embed = Callable[[Tensor], Tensor]
OTHER_UNITS = 0.1
"""An MLP that starts as the identity needs two hidden units for each input; the others start with a tenth of their
weights."""


class Compressed(NamedTuple):
    """P compressed documents: memory embeddings (P, L, D) and, with reranking, scores (P,)."""

    embeddings: Tensor
    scores: Tensor | None


def start_mlp_as_identity(mlp: nn.Sequential) -> None:
    """Let an MLP (D, width, D) of at least twice its input's width hand on what it gets: as max(x, 0) - max(-x, 0).

    Hidden units beyond these start as they were drawn, with less say.

    Raises:
        ValueError: where it is too narrow, or changes the width.
    """
    inner, _, outer = mlp
    size = inner.in_features
    if outer.out_features != size or inner.out_features < 2 * size:
        raise ValueError(f"--mlp_width {inner.out_features}: the memory starts as the reply's tokens, which takes at "
                         f"least {2 * size}; make it wider, or give --memory_init tokens")
    both_signs = torch.cat([torch.eye(size), -torch.eye(size)])
    with torch.no_grad():
        inner.weight[:2 * size] = both_signs
        inner.bias.zero_()
        outer.weight *= OTHER_UNITS
        outer.weight[:, :2 * size] = both_signs.T
        outer.bias.zero_()


def memory_mlp(config: ScaleDownConfig, width: int, generator_width: int) -> nn.Sequential:
    """Linear-ReLU-Linear: from the width of a compressor's own model to the generator's (paper, section 3)."""
    return nn.Sequential(nn.Linear(width, config.mlp_width), nn.ReLU(), nn.Linear(config.mlp_width, generator_width))


class Compressor(nn.Module, ABC):
    """The learnt rows, the reranking head and the optional norm; subclasses do the reading.

    Args:
        config: the model's settings.
        table: token embeddings (V, width) of the texts that the compressor reads.
        generator_table: token embeddings (V, D) of the generator that reads the memory.
        state_width: of its final states, if they are not as wide as its token embeddings (ELECTRA's, ALBERT's).

    Attributes:
        model_config: of the Hugging Face model that it is made from, where that is not the generator: a checkpoint
            keeps it.
        position_limit: how long an input that model reads exactly, if there is a limit.
    """

    model_config: PretrainedConfig | None = None
    position_limit: PositionLimit | None = None

    def __init__(self, config: ScaleDownConfig, table: Tensor, generator_table: Tensor,
                 state_width: int | None = None) -> None:
        super().__init__()
        self.state_width = state_width or table.shape[1]
        self.memory_rows = rows_like(table, config.num_memory_tokens)
        self.rerank_row = rows_like(table, 1) if config.enable_reranking else None
        self.rerank_head = nn.Linear(self.state_width, 1) if config.enable_reranking else None
        self.memory_norm = _embedding_norm(generator_table) if config.memory_norm else None

    def start_as_identity(self) -> None:
        """Let what stands behind the layers change nothing at first: here there is nothing."""

    def add_reranking(self) -> None:
        """Give a compressor that was trained without them a rerank row (1, width), at first the last memory row, and a
        head (width to 1) of zeros.

        Trained states may be of any size. A head drawn at random then starts far from all scores (its squared error was
        ten times that of a guess), and what the memory has learnt is torn up on the way back.
        """
        self.rerank_row = nn.Parameter(self.memory_rows.detach()[-1:].clone())
        self.rerank_head = nn.Linear(self.state_width, 1, device=self.memory_rows.device)
        for parameter in self.rerank_head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, texts: PackedTexts, embed: Embed, num_memory: int | None = None) -> Compressed:
        """Compress each document with its query.

        Args:
            texts: queries and documents; wanted are the memory tokens (and the rerank token) of each.
            embed: the generator's token embeddings, ids (..., T) to (..., T, D); read, never trained.
            num_memory: L, how many of the memory tokens are read [all]: the first ones.
        """
        rows = self._special_rows(num_memory)                                 # (L (+ 1), width)
        num_documents = len(texts.reads.at) // len(rows)
        if num_documents:
            states = self._read(texts, embed, rows.repeat(num_documents, 1))
        else:
            states = rows.new_zeros(0, self.state_width)
        states = states.unflatten(0, (num_documents, len(rows)))              # (P, L (+ 1), width)

        embeddings = self._project(states[:, :num_memory or len(self.memory_rows)])
        if self.memory_norm is not None:
            embeddings = self.memory_norm(embeddings)
        return Compressed(embeddings, self._scores(states[:, -1]))

    def stored_name(self, name: str) -> str:
        """Return the name that a checkpoint has for the parameter ``name``."""
        return name

    @abstractmethod
    def gradient_checkpointing_enable(self) -> None:
        """Compute activations twice in training, to keep fewer of them."""

    @abstractmethod
    def _read(self, texts: PackedTexts, embed: Embed, special: Tensor) -> Tensor:
        """Return the final states (M, width) of the wanted tokens, whose embeddings are ``special`` (M, width)."""

    def _project(self, states: Tensor) -> Tensor:
        """Memory states (P, L, width) to the generator's width (P, L, D)."""
        return states

    def _special_rows(self, num_memory: int | None) -> Tensor:
        """Rows that follow each document: (L, width), or (L + 1, width) with reranking."""
        memory_rows = self.memory_rows[:num_memory]
        return memory_rows if self.rerank_row is None else torch.cat([memory_rows, self.rerank_row])

    def _scores(self, states: Tensor) -> Tensor | None:
        """Scores (P,) of the states (P, width) at the rerank position, in float32: bfloat16 would make ties."""
        if self.rerank_head is None:
            return None
        return (states.float() * self.rerank_head.weight).sum(-1) + self.rerank_head.bias


def _embedding_norm(generator_table: Tensor) -> nn.RMSNorm:
    norm = nn.RMSNorm(generator_table.shape[1], eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(generator_table.float().pow(2).mean().sqrt().expand_as(norm.weight))
    return norm
