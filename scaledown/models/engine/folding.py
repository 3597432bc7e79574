"""A model that answers and does nothing else: its adapters are folded in, and all weights have one number format.

Beside a trained adapter each linear map takes two small products, a sum and casts, which for one token can cost more
than the map itself. Training, and the baseline without the adapter, need them apart: this is for a model that serves.
"""

from __future__ import annotations

import torch
from peft.tuners.lora import LoraLayer
from torch import nn


@torch.no_grad()
def fold(generator: nn.Module, compressor: nn.Module, dtype: torch.dtype) -> None:
    """Fold the adapters of generator and compressor into their weights, in place, and hold all weights in ``dtype``.

    Nothing can be trained afterwards.

    Args:
        generator: its base is not held in 4 or 8 bits.
        compressor: of the same model; weights that it shares with the generator become its own.
        dtype: of the arithmetic.
    """
    # Two adapters change one weight in different ways, so a compressor made of the generator needs its own by now.
    for base in shared_with_adapters(generator, compressor):
        base.weight = nn.Parameter(base.weight.clone(), requires_grad=False)

    for module in (generator, compressor):
        for layer in _with_lora(module):
            layer.merge()
        # Not module.to, which would also round the rotary frequencies; those are buffers.
        for weight in module.parameters():
            weight.requires_grad_(False)
            weight.data = weight.data.to(dtype)


def shared_with_adapters(generator: nn.Module, compressor: nn.Module) -> list[nn.Module]:
    """Return the compressor's maps beside which it has an adapter, and whose weights are the generator's, too."""
    of_generator = {id(weight) for weight in generator.parameters()}
    bases = [layer.get_base_layer() for layer in _with_lora(compressor)]
    return [base for base in bases if id(base.weight) in of_generator]


def _with_lora(module: nn.Module) -> list[LoraLayer]:
    return [layer for layer in module.modules() if isinstance(layer, LoraLayer)]
