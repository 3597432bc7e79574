"""What all compressors share: what they read, what they give, and the rows they learn (paper, section 3.1).

A compressor reads ``[query][document][MEM x L][RR]``, or the document before the query. The states at the memory
positions stand for the document; the state at the rerank position, through a dense head, scores it. These rows are
parameters of the compressor's own, outside any vocabulary: nothing is resized, and they alone are trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from scaledown.config import ScaleDownConfig
from scaledown.models.positions import PositionLimit
from scaledown.models.ragged import filled, pad

Embed = Callable[[Tensor], Tensor]
IDENTITY_REST = 0.1
"""What is left at first of the say of hidden units that an identity has no use for."""


class CompressorInput(NamedTuple):
    """What is read for P documents, as token ids padded on the right: R first texts, and P second ones behind them.

    Query first, these are the B queries and their documents; document first, the documents, each once, and the query
    of each pair.

    Attributes:
        first_ids: (R, T1).
        first_lengths: (R,).
        second_ids: (P, T2).
        second_lengths: (P,).
        pair_first: (P,), the first text of each second one.
        first_slots: (N1,), the slots of the flattened (R * T1) that hold a token.
        second_slots: (N2,), the slots of the flattened (P * T2) that hold a token.
    """

    first_ids: Tensor
    first_lengths: Tensor
    second_ids: Tensor
    second_lengths: Tensor
    pair_first: Tensor
    first_slots: Tensor
    second_slots: Tensor

    @classmethod
    def of_ids(cls, first: Sequence[Sequence[int]], second: Sequence[Sequence[int]],
               pair_first: Sequence[int]) -> CompressorInput:
        """Pad the ids of first and second texts."""
        (first_ids, first_lengths), (second_ids, second_lengths) = pad(first), pad(second)
        return cls(first_ids, first_lengths, second_ids, second_lengths,
                   torch.tensor(pair_first, dtype=torch.long),
                   filled([len(ids) for ids in first], first_ids.shape[1]),
                   filled([len(ids) for ids in second], second_ids.shape[1]))

    def to(self, device: torch.device) -> CompressorInput:
        """The same on ``device``."""
        return CompressorInput(*(tensor.to(device) for tensor in self))


class Compressed(NamedTuple):
    """P compressed documents: memory embeddings (P, L, D) and, with reranking, scores (P,)."""

    embeddings: Tensor
    scores: Tensor | None


def rows_like(table: Tensor, num_rows: int) -> nn.Parameter:
    """New rows (num_rows, D) drawn with the mean and spread of a table of token embeddings (V, D).

    A row of another scale than the tokens' would be noise to layers that have only ever read tokens.
    """
    table = table.detach().float()
    std, mean = torch.std_mean(table, dim=0)
    noise = torch.randn(num_rows, table.shape[1]).to(table.device)
    return nn.Parameter(mean + std * noise)


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
        outer.weight *= IDENTITY_REST
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

    def forward(self, texts: CompressorInput, embed: Embed, num_memory: int | None = None) -> Compressed:
        """Compress each document with its query.

        Args:
            texts: token ids.
            embed: the generator's token embeddings, ids (..., T) to (..., T, D); read, never trained.
            num_memory: L, how many of the memory rows are read [all]: the first ones.
        """
        rows = self._special_rows(num_memory)
        states = (self._read(texts, embed, rows) if len(texts.second_ids)
                  else rows.new_zeros(0, len(rows), self.state_width))
        return self._finish(states, num_memory)

    @abstractmethod
    def gradient_checkpointing_enable(self) -> None:
        """Compute activations twice in training, to keep fewer of them."""

    @abstractmethod
    def num_tokens(self, texts: CompressorInput, num_memory: int | None = None) -> tuple[int, Tensor]:
        """Tokens that its linear maps run on, and how many of them are no padding."""

    @abstractmethod
    def _read(self, texts: CompressorInput, embed: Embed, rows: Tensor) -> Tensor:
        """Final states (P, L (+ 1), width) at the ``rows`` (L (+ 1), width) that follow each document."""

    def _project(self, states: Tensor) -> Tensor:
        """Memory states (P, L, width) to the generator's width (P, L, D)."""
        return states

    def _special_rows(self, num_memory: int | None) -> Tensor:
        """Rows that follow each document: (L, width), or (L + 1, width) with reranking."""
        memory_rows = self.memory_rows[:num_memory]
        return memory_rows if self.rerank_row is None else torch.cat([memory_rows, self.rerank_row])

    def _finish(self, states: Tensor, num_memory: int | None) -> Compressed:
        embeddings = self._project(states[:, :num_memory or len(self.memory_rows)])
        if self.memory_norm is not None:
            embeddings = self.memory_norm(embeddings)
        return Compressed(embeddings, self._scores(states[:, -1]))

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
