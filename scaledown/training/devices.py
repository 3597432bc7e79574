"""Devices: ``--device`` as a torch device, a dtype that it computes well, and advice when its memory is full.

Trainium is PyTorch's native backend, device ``neuron`` (Trn2, Trn3). It is detected by its device files and by torch,
never by an installed package: the torch-neuronx of the public index is a stub without code. Not yet run on Trainium
hardware.
"""

from __future__ import annotations

import ctypes
import glob
import importlib
import importlib.metadata
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from scaledown.config import DEVICES, DTYPES
from scaledown.hub.number_formats import dtype_to_train, warn_if_emulated

_KINDS = {"gpu": "cuda", "trainium": "neuron"}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_COMPILERS = {"neuron": "neuron"}
_ACCELERATE_DEVICE = "ACCELERATE_TORCH_DEVICE"
_IN_ORDER_OF_CHOICE = ("cuda", "neuron", "mps", "cpu")
_LESS_MEMORY = "--gradient_checkpointing, fewer documents a record, or fewer tokens of each (--compression_rate)"
ALLOCATION_FAULTS = ("can't allocate memory", "out of memory", "not enough memory")


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device for a value of ``--device``; ``auto`` is the fastest available one.

    Raises:
        ValueError: if the name is unknown or the device is not available: why not, and which are.
    """
    if name not in DEVICES:
        raise ValueError(f"--device must be one of {', '.join(DEVICES)}, got {name!r}")

    missing = {kind: _what_is_missing(kind) for kind in _IN_ORDER_OF_CHOICE}
    available = [kind for kind in _IN_ORDER_OF_CHOICE if missing[kind] is None]

    if name == "auto":
        # An expensive machine should not fall back to its CPU in silence.
        if _neuron_files() and "neuron" not in available:
            warnings.warn(f"this machine has Neuron devices that are not used: {missing['neuron']}", stacklevel=2)
        return torch.device(available[0])

    kind = _KINDS.get(name, name)
    if kind not in available:
        raise ValueError(f"--device {name}: {missing[kind]}. Found here: {', '.join(available)}")
    return torch.device(kind)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype for a value of ``--dtype``; ``auto`` is that of :func:`dtype_to_train`.

    Raises:
        ValueError: if the name is unknown, or ``device`` cannot train in it.
    """
    if name == "auto":
        return dtype_to_train(device)
    if name not in DTYPES:
        raise ValueError(f"--dtype must be one of auto, {', '.join(DTYPES)}, got {name!r}")
    dtype = getattr(torch, name)
    check_trains_in(dtype, device)
    warn_if_emulated(dtype, device)
    return dtype


def check_trains_in(dtype: torch.dtype, device: torch.device) -> None:
    """Check that a model can be trained in ``dtype`` on ``device``.

    Raises:
        ValueError: if it cannot, with what to do.
    """
    if dtype == torch.float16 and device.type != "cuda":
        raise ValueError(f"--dtype float16 trains on CUDA alone, where losses are scaled, not on {device.type}: leave "
                         "it out, or give --dtype float32")


def wants_one_shape(device: torch.device) -> bool:
    """Return whether ``device`` compiles a program for each shape of a batch, which takes minutes."""
    return device.type == "neuron"


def check_same(device: torch.device, **others: torch.device) -> None:
    """Check that a training's parts, by name, are on ``device``: what is elsewhere would be moved without a word.

    Raises:
        ValueError: if one is not, with what to do.
    """
    for name, other in others.items():
        # A device without a number is any of its kind.
        has_other_number = None not in (device.index, other.index) and device.index != other.index
        if device.type != other.type or has_other_number:
            raise ValueError(f"the {name.replace('_', ' ')} is on {other}, but training is on {device}: build the "
                             "model on the device that trains (--device; a GPU's number by CUDA_VISIBLE_DEVICES)")


@contextmanager
def found_by_accelerate(device: torch.device) -> Iterator[None]:
    """Let transformers and accelerate, which look for a device by themselves, find ``device`` within this context."""
    before = os.environ.get(_ACCELERATE_DEVICE)
    os.environ[_ACCELERATE_DEVICE] = str(device)
    try:
        yield
    finally:
        os.environ.pop(_ACCELERATE_DEVICE)
        if before is not None:
            os.environ[_ACCELERATE_DEVICE] = before


def check_compiler(device: torch.device) -> None:
    """Check that torch's compiler for ``device`` has what it needs.

    Raises:
        ValueError: if it does not.
    """
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        raise ValueError("--compile on a CPU needs a C++ compiler, and there is none (g++ or clang++)")


def compiled(step: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Return ``step`` as one compiled graph for batches of one shape, by the device's own compiler."""
    return torch.compile(step, backend=_COMPILERS.get(device.type, "inductor"), fullgraph=True, dynamic=False)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor instead of returning it to the system at once.

    Training on a CPU frees and allocates the same large blocks at every step; returned blocks cost page faults, which
    take up to half of the time. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return

    # No block comes from mmap, which would be unmapped when freed; and the heap is never trimmed.
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def is_out_of_memory(fault: BaseException) -> bool:
    """Return whether ``fault`` says that memory ran out, on any device."""
    if isinstance(fault, MemoryError | torch.OutOfMemoryError):
        return True
    # Allocators of CPUs and other devices raise a plain RuntimeError.
    return isinstance(fault, RuntimeError) and any(text in str(fault) for text in ALLOCATION_FAULTS)


def largest_fitting(step: Callable[[Sequence[Any]], None], records: Sequence[Any], batch_size: int) -> int:
    """Return how many examples fit, ``batch_size`` halved as often as needed; 0 if not even one does.

    Args:
        step: runs the forward and backward pass over some records.
        records: the longest of them are tried.
        batch_size: the number that did not fit.
    """
    longest = sorted(records, key=lambda record: -len(record.query) - sum(map(len, record.documents)))[:batch_size]
    size = batch_size // 2
    while size:
        # Memory that the failed attempt left in the cache counts as taken.
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
    """Return advice for passes over ``examples`` examples that did not fit, if ``num_fitting`` do."""
    if not num_fitting:
        return f"out of memory: not even one example fits. What helps: a smaller --generator_model, {_LESS_MEMORY}"

    # The batch is divided into equal parts, so of what fits the largest size that divides it.
    size = max(size for size in range(1, min(examples, num_fitting) + 1) if examples % size == 0)
    steps = accumulation_steps * (examples // size)
    return (f"out of memory with {examples} examples at a time on this device; {num_fitting} of the longest fit: "
            f"--gradient_accumulation_steps {steps} takes as many and trains alike, and --resume goes "
            f"on with it. What else helps: {_LESS_MEMORY}")


def out_of_memory_of_many(examples: int, accumulation_steps: int) -> str:
    """Return the same for a sharded model, with which no process can try alone what fits."""
    if examples == 1:
        return out_of_memory(examples, 0, accumulation_steps)

    # The smallest number of equal parts.
    parts = min(parts for parts in range(2, examples + 1) if examples % parts == 0)
    return (f"out of memory with {examples} examples at a time on this device. What helps: "
            f"--gradient_accumulation_steps {parts * accumulation_steps}, with which --resume goes on, and "
            f"{_LESS_MEMORY}")


def _what_is_missing(kind: str) -> str | None:
    """Return why torch cannot use a device of this kind here; None if it can."""
    if kind == "cuda" and not torch.cuda.is_available():
        if torch.version.cuda is None and torch.version.hip is None:
            # Also true of a machine without a GPU, where it is the whole reason.
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
