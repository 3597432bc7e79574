"""A model sharded among processes: each holds its share of weights, gradients and optimizer state (FSDP2).

Every layer of the generator is a unit: its weights are gathered when it is called, in the forward and in the backward
pass, and freed again. The last layer is none, as it is left as soon as its keys and values are computed, and called
again (:mod:`scaledown.models.engine.last_layer`); FSDP2 waits for the end of every call. There, and in the compressor,
every linear map with its adapter is a unit. All other weights (embeddings, output head, special tokens, the
compressor's norms) are one more unit, gathered for the whole step.

If the model computes in half precision, these units are gathered in it: half as much is sent, and the products are the
same, since autocast rounds the weights of a product in any case. It would keep its rounded copies until the end of the
pass, and so the memory that freeing the weights is to save. What is not rounded by autocast (norms, special tokens,
heads) is gathered as it is. Gradients are summed in float32.

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
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from scaledown import processes
from scaledown.models.model import ScaleDownModel


def shard(root: nn.Module, model: ScaleDownModel) -> None:
    """Shard ``model`` in place; ``root``, which holds it, is the module that a step calls."""
    mesh = init_device_mesh(model.device.type, (processes.count(),))
    # Autocast rounds what a unit is given, if it has to.
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if model.dtype != torch.float32:
        policy = MixedPrecisionPolicy(model.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)

    # From the inside out: a unit takes the weights that no unit inside it has.
    for unit in (*_layers(model), *_maps(model)):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    fully_shard(root, mesh=mesh, reshard_after_forward=False)


def _layers(model: ScaleDownModel) -> list[nn.Module]:
    """Return the generator's layers that are called as a whole; none of a family that is not packed."""
    return list(model.generator.base.base_model.layers[:-1]) if model.generator.packs else []


def _maps(model: ScaleDownModel) -> list[nn.Module]:
    """Return the linear maps that are units of their own."""
    in_layers: set[int] = set()
    for layer in _layers(model):
        in_layers.update(map(id, layer.modules()))

    adapted = [part for part in model.generator.modules() if isinstance(part, LoraLayer) and id(part) not in in_layers]
    # The head that scores documents has a single output, which cannot be divided among processes.
    of_compressor = [part for part in model.compressor.modules()
                     if isinstance(part, nn.Linear) and len(part.weight) > 1]
    return [*adapted, *of_compressor]


def gather(root: nn.Module) -> None:
    """Give every process all weights until the next step, so that modules can be called by themselves.

    Those that a step has in the number format of the arithmetic have it here, too.
    """
    for unit in _units(root):
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()


@contextmanager
def gathered(root: nn.Module) -> Iterator[None]:
    """As :func:`gather` within this context, to evaluate; no effect on a model that is not sharded."""
    gather(root)
    try:
        yield
    finally:
        # As in shard: only the root keeps its weights between the passes.
        for unit in _units(root):
            unit.set_reshard_after_forward(unit is not root, recurse=False)
            unit.reshard()


@contextmanager
def whole_weights(root: nn.Module) -> Iterator[None]:
    """Give every process the trained weights whole within this context, to save them; nothing can be called there.

    They are as they are held, in float32. A model that is not sharded has them in any case.
    """
    for unit in _units(root):
        unit.reshard()

    # Each module gets its weights in place of its shares of them, and then these again.
    shares = []
    for module in root.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.requires_grad and isinstance(weight, DTensor):
                shares.append((module, name, weight))
                setattr(module, name, nn.Parameter(weight.full_tensor()))
    try:
        yield
    finally:
        for module, name, weight in shares:
            setattr(module, name, weight)


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
