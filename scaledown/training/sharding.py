"""A model shared out among processes: each holds its part of weights, gradients and optimizer state (FSDP2).

Every linear map, with its adapter, is a unit: its weights are gathered when it is called, in the forward and in the
backward pass, and let go again. Decoder layers would be larger units, but the last one is left as soon as its keys and
values are there, and called again (:mod:`scaledown.models.last_layer`); FSDP2 waits for the end of every call. What is
no linear map (embeddings, output head, norms, special rows) is one more unit, gathered for the whole step.

All processes must call the same units in the same order, hence batches of one shape: without documents a compressor
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
    """Share ``model`` out, in place; ``root``, which holds it, is what is called in a step."""
    mesh = init_device_mesh(model.device.type, (processes.count(),))
    adapted = [part for part in model.generator.modules() if isinstance(part, LoraLayer)]
    maps = [part for part in model.compressor.modules() if isinstance(part, nn.Linear) and len(part.weight) > 1]
    for unit in (*adapted, *maps):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    fully_shard(root, mesh=mesh, reshard_after_forward=False)


def gather(root: nn.Module) -> None:
    """Give every process all weights, until the next step; they may be called apart from one another meanwhile."""
    for unit in _units(root):
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()


@contextmanager
def gathered(root: nn.Module) -> Iterator[None]:
    """Within it every process has all weights, to save them or to evaluate; nothing happens where none is shared."""
    gather(root)
    try:
        yield
    finally:
        for unit in _units(root):
            unit.set_reshard_after_forward(unit is not root, recurse=False)
            unit.reshard()


def whole(values: Any) -> Any:
    """``values``, such as an optimizer's state, with every tensor that is shared out whole and on the CPU."""
    return tree_map(lambda value: value.full_tensor().cpu() if isinstance(value, DTensor) else value, values)


@contextmanager
def whole_state(optimizer: Optimizer) -> Iterator[None]:
    """Within it the optimizer tells its state whole, so that process 0 can write it by itself."""
    state = whole(optimizer.state_dict())
    optimizer.state_dict = lambda: state
    try:
        yield
    finally:
        del optimizer.state_dict


def share_state(optimizer: Optimizer) -> None:
    """Share out an optimizer's whole state, as it was loaded, like the parameters that it belongs to."""
    for one in getattr(optimizer, "pair", [optimizer]):
        _share_state(one)


def _share_state(optimizer: Optimizer) -> None:
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(parameter, DTensor) and isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = distribute_tensor(value, parameter.device_mesh, parameter.placements)


def _units(root: nn.Module) -> list[FSDPModule]:
    return [part for part in root.modules() if isinstance(part, FSDPModule)]
