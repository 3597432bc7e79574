"""Several processes that train and evaluate together, as ``torchrun`` or ``accelerate launch`` start them."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor

from scaledown.cli import USER_ERROR

LAUNCHED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells each of its processes, beside how many they are."""
FELL_BACK = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"}
"""What accelerate launch sets where several processes are asked for, even if it then starts only one."""


def join(device: torch.device) -> torch.device:
    """Join the processes that a launcher started with this one; returns this one's own device.

    Raises:
        ValueError: where the launcher started several, and each would train by itself; where accelerate's own FSDP
            is asked for.
    """
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
    return dist.get_rank() if is_joined() else 0


def is_joined() -> bool:
    """Whether there are several processes, and they have met."""
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
        dist.broadcast_object_list(is_failed)
    if fault is not None:
        raise fault
    if is_failed[0]:
        raise SystemExit(USER_ERROR)


def wait() -> None:
    """Go on when all processes have come here."""
    if is_joined():
        dist.barrier()


def summed(numbers: Tensor) -> Tensor:
    """The sum of each number over all processes; nobody waits for the device."""
    total = numbers.clone()
    if is_joined():
        dist.all_reduce(total)
    return total
