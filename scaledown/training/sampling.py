"""The order in which records are learnt: random, but with records of like length in a batch.

Attention pads prompts to the longest of their batch; drawn without regard to length, a sixth or more of what it
computes on real questions is padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

CHARACTERS_A_TOKEN = 4


def prompt_sizes(records: Sequence[Any], num_memory_tokens: int) -> list[int]:
    """About how many tokens each record's prompt and answer take, without tokenising them."""
    return [len(record.documents) * (num_memory_tokens + 1)
            + (len(record.query) + len(record.answer)) // CHARACTERS_A_TOKEN for record in records]


class LikeLengthSampler(Sampler[int]):
    """Random batches of records of like length; the order depends on the seed and the epoch alone.

    Args:
        sizes: of each record, in any unit.
        batch_size: the global one.
        seed: of the order.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int) -> None:
        self.sizes, self.batch_size, self.seed, self.epoch = list(sizes), batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.sizes)

    def set_epoch(self, epoch: int) -> None:
        """Draw another order; the trainer calls this, also when it goes on in the middle of a run."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.sizes, self.batch_size, generator=generator))
