"""A step's records, cut into the parts that each process computes, one after the other.

Every process draws the same records for a step and takes its share of them. So a step is the same however many
processes share it, and however many parts each cuts its share into to need less memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from scaledown.config import TrainingConfig
from scaledown.models.fixed_shapes import Shapes
from scaledown.models.losses import IGNORED
from scaledown.models.processor import Processor


@dataclass(frozen=True)
class StepCollator:
    """From the records of a step to the batches of this process; all processes get the same number of them.

    Attributes:
        processor: makes the batches; all of a step have one number of memory tokens.
        config: how large a step is, and how many parts it has.
        shapes: the shape of all batches; None where each is as large as its records need.
        rank: this process's number, of ``num_processes``.
    """

    processor: Processor
    config: TrainingConfig
    shapes: Shapes | None = None
    rank: int = 0
    num_processes: int = 1

    @property
    def part_size(self) -> int:
        """Most records that a process computes at one time."""
        return self.config.batch_size // (self.num_processes * self.config.gradient_accumulation_steps)

    def __call__(self, records: Sequence[Any]) -> list[dict[str, Any]]:
        """The batches of this process; each also has the ``record_ids`` of what it is made of."""
        num_memory_tokens = self.processor.draw_memory_tokens(records)
        size = self.part_size * self.num_processes
        together = [records[start:start + size] for start in range(0, len(records), size)]
        return [self._batch(some[self.rank::self.num_processes], records[0], num_memory_tokens) for some in together]

    def _batch(self, records: Sequence[Any], stand_in: Any, num_memory_tokens: int) -> dict[str, Any]:
        """Where the records do not suffice for all processes, one stands in of which nothing is learnt."""
        batch = self.processor.collate(records or [stand_in], self.config.answer_tokens, num_memory_tokens,
                                       with_readout=self.config.readout_loss_weight > 0, shapes=self.shapes,
                                       batch_size=self.part_size)
        if not records:
            for name in {"answer_targets", "readout_targets"} & batch.keys():
                batch[name] = torch.full_like(batch[name], IGNORED)
            if "has_score" in batch:
                batch["has_score"] = torch.zeros_like(batch["has_score"])
        return batch | {"record_ids": [record.id for record in records]}
