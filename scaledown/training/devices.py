"""``--device`` becomes a torch device, with a dtype that it computes well; and what to do when its memory is full.

Trainium is PyTorch's native backend, device ``neuron`` (Trn2, Trn3). It is known by its device files and by what
torch says, never by a package's presence: the torch-neuronx of the public index is a stub without code. Not yet run
on Trainium hardware.
"""

from __future__ import annotations

import ctypes
import glob
import importlib
import importlib.metadata
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from scaledown.config import DEVICES, DTYPES
from scaledown.precision import dtype_for

_KINDS = {"gpu": "cuda", "trainium": "neuron"}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_COMPILERS = {"neuron": "neuron"}
_IN_ORDER_OF_CHOICE = ("cuda", "neuron", "mps", "cpu")
_LESS_MEMORY = "--gradient_checkpointing, fewer documents a record, or fewer tokens of each (--compression_rate)"
ALLOCATION_FAULTS = ("can't allocate memory", "out of memory", "not enough memory")


def resolve_device(name: str = "auto") -> torch.device:
    """Turn a value of ``--device`` into a device that is there; ``auto`` is the fastest that is.

    Raises:
        ValueError: for an unknown name, or where that device is missing: what was found, and what is missing.
    """
    if name not in DEVICES:
        raise ValueError(f"--device must be one of {', '.join(DEVICES)}, got {name!r}")
    missing = {kind: _what_is_missing(kind) for kind in _IN_ORDER_OF_CHOICE}
    found = [kind for kind in _IN_ORDER_OF_CHOICE if missing[kind] is None]
    if name == "auto":
        if _neuron_files() and "neuron" not in found:
            warnings.warn(f"this machine has Neuron devices that are not used: {missing['neuron']}", stacklevel=2)
        return torch.device(found[0])
    kind = _KINDS.get(name, name)
    if kind not in found:
        raise ValueError(f"--device {name}: {missing[kind]}. Found here: {', '.join(found)}")
    return torch.device(kind)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn a value of ``--dtype`` into a dtype; ``auto`` is what :func:`dtype_for` says.

    Raises:
        ValueError: for an unknown name.
    """
    if name == "auto":
        return dtype_for(device)
    if name not in DTYPES:
        raise ValueError(f"--dtype must be one of auto, {', '.join(DTYPES)}, got {name!r}")
    return getattr(torch, name)


def wants_one_shape(device: torch.device) -> bool:
    """Whether ``device`` compiles a program for each shape of a batch, which takes minutes."""
    return device.type == "neuron"


def check_compiler(device: torch.device) -> None:
    """See that what compiles for ``device`` finds what it needs.

    Raises:
        ValueError: where it does not.
    """
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        raise ValueError("--compile on a CPU needs a C++ compiler, and there is none (g++ or clang++)")


def compiled(step: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """``step`` as one compiled graph for batches of one shape, by the device's own compiler."""
    return torch.compile(step, backend=_COMPILERS.get(device.type, "inductor"), fullgraph=True, dynamic=False)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor instead of handing it back to the system at once.

    Training on a CPU frees and takes the same large blocks at every step; each return costs page faults that
    together take up to half of the time. Elsewhere than on glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether ``fault`` is memory that could not be had, of any device."""
    return isinstance(fault, MemoryError | torch.OutOfMemoryError) or (
        isinstance(fault, RuntimeError) and any(text in str(fault) for text in ALLOCATION_FAULTS))


def largest_fitting(step: Callable[[Sequence[Any]], None], records: Sequence[Any], batch_size: int) -> int:
    """How many examples, ``batch_size`` halved as often as need be, ``step`` can take; 0 where not even one.

    Args:
        step: forward and backward pass over some records.
        records: tried with the longest of them.
        batch_size: what did not fit.
    """
    longest = sorted(records, key=lambda record: -len(record.query) - sum(map(len, record.documents)))[:batch_size]
    size = batch_size // 2
    while size:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            step(longest[:size])
            return size
        except (MemoryError, RuntimeError) as fault:
            if not is_out_of_memory(fault):
                raise
        size //= 2
    return 0


def out_of_memory(examples: int, num_fitting: int, accumulation_steps: int) -> str:
    """What to do, for ``examples`` a pass that did not fit where ``num_fitting`` do."""
    if not num_fitting:
        return f"out of memory: not even one example fits. What helps: a smaller --generator_model, {_LESS_MEMORY}"
    steps = accumulation_steps * -(-examples // num_fitting)
    return (f"out of memory with {examples} examples at a time on this device; {num_fitting} of the longest fit: "
            f"--gradient_accumulation_steps {steps} takes as many and trains alike, and --resume goes "
            f"on with it. What else helps: {_LESS_MEMORY}")


def out_of_memory_of_many(examples: int, accumulation_steps: int) -> str:
    """As :func:`out_of_memory` for a model that processes share, of which none can try alone what fits."""
    return (f"out of memory with {examples} examples at a time on this device. What helps: "
            f"--gradient_accumulation_steps {2 * accumulation_steps}, with which --resume goes on, and {_LESS_MEMORY}")


def _what_is_missing(kind: str) -> str | None:
    """Say why torch cannot use a device of this kind here; None where it can."""
    if kind == "cuda" and not torch.cuda.is_available():
        if torch.version.cuda is None and torch.version.hip is None:
            return (f"torch {torch.__version__} is built without CUDA; on a machine with an NVIDIA GPU, "
                    "`bash setup_env.sh` installs the build that has it")
        return "torch sees no GPU (does `nvidia-smi` see one? A driver older than torch's CUDA hides it)"
    if kind == "mps" and not torch.backends.mps.is_available():
        return "torch sees no Apple GPU"
    if kind == "neuron" and not _neuron_is_available():
        return _why_no_neuron()
    return None


def _neuron_files() -> list[str]:
    return glob.glob("/dev/neuron[0-9]*")


def _neuron_is_available() -> bool:
    if not hasattr(torch, "neuron") and _neuron_files():
        # Importing the package is what registers the device with torch.
        try:
            importlib.import_module("torch_neuronx")
        except (ImportError, OSError, RuntimeError):
            return False
    return hasattr(torch, "neuron") and torch.neuron.is_available()


def _why_no_neuron() -> str:
    if not _neuron_files():
        return "there is no Neuron device here (/dev/neuron0)"
    try:
        version = importlib.metadata.version("torch-neuronx")
    except importlib.metadata.PackageNotFoundError:
        return ("there is a Neuron device, but no torch-neuronx: `bash setup_env.sh` installs it, "
                "or pip install -r requirements-trainium.txt")
    if hasattr(torch, "neuron"):
        return f"torch-neuronx {version} sees no usable Neuron device (is another process holding it?)"
    return (f"torch-neuronx {version} has no native device: the older generation on PyTorch/XLA (Trn1, Inf2) is not "
            "supported for training any more; 2.13 or newer on Trn2 or Trn3 is needed (requirements-trainium.txt)")
