"""Several processes that work together, as ``torchrun`` or ``accelerate launch`` start them.

Those that train and evaluate meet on their devices (:func:`join`); those of the data pipeline share the files of a work
folder, and only ever wait for one another (:func:`join_processes`). Torch is loaded when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from scaledown.cli import USER_ERROR

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

LAUNCHED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells each of its processes, beside how many they are."""
FELL_BACK = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"}
"""What accelerate launch sets where several processes are asked for, even if it then starts only one."""
PATIENCE = timedelta(days=30)
"""How long one process waits for the others: a teacher's last answers may take long."""


def join(device: torch.device) -> torch.device:
    """Join the processes that a launcher started with this one; returns this one's own device.

    Raises:
        ValueError: where the launcher started several, and each would train by itself; where accelerate's own FSDP
            is asked for.
    """
    import torch
    from accelerate import PartialState

    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise ValueError("accelerate's own FSDP shares out whole layers, and the last one is left half way here: "
                         "launch as for DDP, and give --shard (docs/PLATFORMS.md)")
    if count() == 1:
        if "WORLD_SIZE" not in os.environ and os.environ.keys() >= FELL_BACK:
            raise ValueError("accelerate launch was asked for several processes and started one, as it does where it "
                             "sees no GPUs; on CPUs start them with torchrun --nproc_per_node N ... --device cpu")
        return device
    if missing := [name for name in LAUNCHED if name not in os.environ]:
        raise ValueError(f"WORLD_SIZE={count()} says that {count()} processes work together, but this one was started "
                         f"on its own ({', '.join(missing)} not set): start it with torchrun --nproc_per_node "
                         f"{count()}, or unset WORLD_SIZE")
    if device.type == "cpu":
        # Without it transformers and accelerate would look for graphics cards, and where there are none go on alone.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    state = PartialState(cpu=device.type == "cpu")
    if state.num_processes != count():
        raise ValueError(f"the launcher started {count()} processes, but this one sees {state.num_processes}: each "
                         "would train by itself. Start them with torchrun --nproc_per_node N "
                         "(docs/PLATFORMS.md)")
    return torch.device(device.type, state.local_process_index) if device.type == "cuda" else device


def count() -> int:
    """Processes that work together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number; 0 is the one that writes and speaks."""
    if not is_joined():
        return 0
    import torch.distributed as dist

    return dist.get_rank()


def is_joined() -> bool:
    """Whether there are several processes, and they have met."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def say(text: str) -> None:
    """Print, once for all processes."""
    if rank() == 0:
        print(text)


def warn(*notes: str | None) -> None:
    """Print what a user should know before trusting a result, once for all processes; None is nothing to know."""
    for note in notes:
        if note:
            say(f"warning: {note}")


def once(do: Callable[[], None]) -> None:
    """Let process 0 do what is done once, while the others wait for it.

    Raises:
        ValueError: process 0's own; the others then end without a word, where they would wait for it in vain.
    """
    fault = None
    if rank() == 0:
        try:
            do()
        except (ValueError, OSError) as found:
            fault = found
    is_failed = [fault is not None]
    if is_joined():
        import torch.distributed as dist

        dist.broadcast_object_list(is_failed)
    if fault is not None:
        raise fault
    if is_failed[0]:
        raise SystemExit(USER_ERROR)


def wait() -> None:
    """Go on when all processes have come here."""
    if is_joined():
        import torch.distributed as dist

        dist.barrier()


def summed(numbers: Tensor) -> Tensor:
    """The sum of each number over all processes; nobody waits for the device."""
    total = numbers.clone()
    if is_joined():
        import torch.distributed as dist

        dist.all_reduce(total)
    return total


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
