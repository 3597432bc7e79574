"""Several processes that share one job, as accelerate launch or torchrun start them, on one machine or many."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long one process waits for the others: a teacher's last answers may take long."""


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is. They share the files of one work folder, and nothing else."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that speaks, and does what is done once."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of ``items``; the parts of all processes are all of them."""
        return items[self.rank::self.count]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier()


def join_processes() -> Processes:
    """Join the processes that a launcher started with this one, by its environment; alone without a launcher.

    They only ever wait for one another, so gloo will do, whatever the devices; on CUDA each takes a card of its own.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count < 2:
        return Processes()
    import torch

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    assert torch.distributed.get_world_size() == count
    return Processes(torch.distributed.get_rank(), count)
