"""A model sharded among processes: each holds its share of weights, gradients and optimizer state (FSDP2).

Every linear map, with its adapter, is a unit: its weights are gathered when it is called, in the forward and in the
backward pass, and freed again. Decoder layers would be larger units, but the last layer is left as soon as its keys and
values are computed, and called again (:mod:`scaledown.models.engine.last_layer`); FSDP2 waits for the end of every
call. All other weights (embeddings, output head, norms, special tokens) are one more unit, gathered for the whole step.

All processes must call the same units in the same order, hence batches of one shape: without documents the compressor
would not be called at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from scaledown import processes
from scaledown.models.model import ScaleDownModel


def shard(root: nn.Module, model: ScaleDownModel) -> None:
    """Shard ``model`` in place; ``root``, which holds it, is the module that a step calls."""
    mesh = init_device_mesh(model.device.type, (processes.count(),))
    adapted = [part for part in model.generator.modules() if isinstance(part, LoraLayer)]
    # The head that scores documents has a single output, which cannot be divided among processes.
    maps = [part for part in model.compressor.modules() if isinstance(part, nn.Linear) and len(part.weight) > 1]

    # From the inside out: a unit takes the weights that no unit inside it has.
    for unit in (*adapted, *maps):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    fully_shard(root, mesh=mesh, reshard_after_forward=False)


def gather(root: nn.Module) -> None:
    """Give every process all weights until the next step, so that modules can be called by themselves."""
    for unit in _units(root):
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()


@contextmanager
def gathered(root: nn.Module) -> Iterator[None]:
    """Give every process all weights within this context, to save or to evaluate; no effect on a model not sharded."""
    gather(root)
    try:
        yield
    finally:
        # As in shard: only the root keeps its weights between the passes.
        for unit in _units(root):
            unit.set_reshard_after_forward(unit is not root, recurse=False)
            unit.reshard()


def whole(values: Any) -> Any:
    """Return ``values``, such as an optimizer's state, with every sharded tensor whole and on the CPU."""
    return tree_map(lambda value: value.full_tensor().cpu() if isinstance(value, DTensor) else value, values)


@contextmanager
def whole_state(optimizer: Optimizer) -> Iterator[None]:
    """Let the optimizer return its whole state within this context, so that process 0 can write it alone."""
    # All processes take part in gathering it.
    state = whole(optimizer.state_dict())
    optimizer.state_dict = lambda: state
    try:
        yield
    finally:
        del optimizer.state_dict


def share_state(optimizer: Optimizer) -> None:
    """Shard an optimizer's whole state, as it was loaded, like the parameters that it belongs to."""
    # Muon comes with AdamW, as a pair.
    for part in getattr(optimizer, "pair", [optimizer]):
        for parameter, state in part.state.items():
            _share_state_of(parameter, state)


def _share_state_of(parameter: Any, state: dict[str, Any]) -> None:
    if not isinstance(parameter, DTensor):
        return
    for name, value in state.items():
        # Not the step count, which is a single number.
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            state[name] = distribute_tensor(value, parameter.device_mesh, parameter.placements)


def _units(root: nn.Module) -> list[FSDPModule]:
    return [part for part in root.modules() if isinstance(part, FSDPModule)]
