"""Several processes that work together, started by ``torchrun`` or ``accelerate launch``.

Training and evaluation join on their devices (:func:`join`). The processes of the data pipeline share the files of a
work folder, and only ever wait for one another (:func:`join_processes`). Torch is loaded by the functions that need it.
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
"""The variables that a launcher sets for each of its processes, beside their number in WORLD_SIZE."""
FELL_BACK = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"}
"""The variables that accelerate launch sets if several processes are asked for, even if it starts only one."""
REFUSED = {
    "ACCELERATE_USE_FSDP": "accelerate's own FSDP shares out whole layers, and the last one is left half way here: "
                           "launch as for DDP, and give --shard",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed is not supported: launch as for DDP, and give --shard, which shares out "
                                "weights, gradients and optimizer state",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM is not supported: launch as for DDP, and give --shard",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "accelerate's parallelism_config is not supported: launch as for DDP, and "
                                         "give --shard",
    "ACCELERATE_DYNAMO_BACKEND": "accelerate's dynamo_config would compile anew for each shape of a batch: set its "
                                 "dynamo_backend to 'no', and give --compile",
}
"""The variables by which a file of ``accelerate config`` asks for what a training here does in its own way, or not."""
PATIENCE = timedelta(days=30)
"""The longest wait of one process for the others: a teacher's last answers may take long."""


def join(device: torch.device) -> torch.device:
    """Join the processes that a launcher started with this one, and return the device of this one.

    Raises:
        ValueError: if the launcher started several and each would train by itself, or if its file asks for FSDP,
            DeepSpeed or the like.
    """
    import torch
    from accelerate import PartialState

    for variable, advice in REFUSED.items():
        if os.environ.get(variable, "no").lower() not in ("no", "false"):
            raise ValueError(f"{advice} (docs/PLATFORMS.md)")

    if count() == 1:
        if "WORLD_SIZE" not in os.environ and os.environ.keys() >= FELL_BACK:
            raise ValueError("accelerate launch was asked for several processes and started one, as it does if it sees "
                             "no GPUs; on CPUs start them with torchrun --nproc_per_node N ... --device cpu")
        return device

    if missing := [name for name in LAUNCHED if name not in os.environ]:
        raise ValueError(f"WORLD_SIZE={count()} says that {count()} processes work together, but this one was started "
                         f"on its own ({', '.join(missing)} not set): start it with torchrun --nproc_per_node "
                         f"{count()}, or unset WORLD_SIZE")

    if device.type == "cpu":
        # Without it transformers and accelerate look for GPUs, and if there are none each process trains alone.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    # Accelerate joins the processes that it sees; a launcher may have started others.
    state = PartialState(cpu=device.type == "cpu")
    if state.num_processes != count():
        raise ValueError(f"the launcher started {count()} processes, but this one sees {state.num_processes}: each "
                         "would train by itself. Start them with torchrun --nproc_per_node N "
                         "(docs/PLATFORMS.md)")

    # Each process of a machine has a GPU of its own; on other devices the index is left to torch.
    if device.type == "cuda":
        return torch.device(device.type, state.local_process_index)
    return device


def count() -> int:
    """Return the number of processes that work together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process; process 0 is the one that writes and prints."""
    # A process that has not joined the others is alone.
    if not is_joined():
        return 0
    import torch.distributed as dist

    return dist.get_rank()


def is_joined() -> bool:
    """Return whether there are several processes and they have joined."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def say(text: str) -> None:
    """Print ``text`` in process 0 alone, at once: a pipe would else show it when its buffer is full."""
    if rank() == 0:
        print(text, flush=True)


def warn(*notes: str | None) -> None:
    """Print each note that is not None as a warning, in process 0 alone."""
    for note in notes:
        if note:
            say(f"warning: {note}")


def once(do: Callable[[], None]) -> None:
    """Call ``do`` in process 0, while the others wait for it.

    Raises:
        ValueError: or OSError, if ``do`` raises it in process 0.
        SystemExit: in the other processes, which then end without a message of their own.
    """
    fault = None
    if rank() == 0:
        try:
            do()
        except (ValueError, OSError) as error:
            fault = error

    # The others hear whether it failed; without that they would wait for process 0 at their next step.
    is_failed = [fault is not None]
    if is_joined():
        import torch.distributed as dist

        dist.broadcast_object_list(is_failed)

    if fault is not None:
        raise fault
    if is_failed[0]:
        raise SystemExit(USER_ERROR)


def wait() -> None:
    """Wait until all processes have called this."""
    if is_joined():
        import torch.distributed as dist

        dist.barrier()


def summed(numbers: Tensor) -> Tensor:
    """Return the sum of each number over all processes, without waiting for the device."""
    total = numbers.clone()
    if is_joined():
        import torch.distributed as dist

        dist.all_reduce(total)
    return total


@dataclass(frozen=True)
class Processes:
    """The place of this process among those that share the files of one work folder, and nothing else."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Return whether this is the process that prints, and does what is done once."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return the share of ``items`` that is this process's; each item is in the share of one process."""
        return items[self.rank::self.count]

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier()


def join_processes() -> Processes:
    """Join the processes that a launcher started with this one; without a launcher it is alone."""
    if count() < 2:
        return Processes()
    import torch

    # They only ever wait for one another, so gloo will do, whatever the devices.
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=PATIENCE)

    # On CUDA each takes a GPU of its own.
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())

    assert torch.distributed.get_world_size() == count()
    return Processes(torch.distributed.get_rank(), count())
