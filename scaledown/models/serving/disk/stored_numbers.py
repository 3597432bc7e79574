"""Keys and values as they are stored: as float16 numbers, or as int8 numbers with scales.

float16 rather than bfloat16: both take two bytes, float16 keeps 11 bits of each number and bfloat16 8. bfloat16's
greater range is not needed, since keys and values are far from float16's end at 65,504. So those of a model that
computes in bfloat16 come back exactly (below 6e-5, to 3e-8), and those of one in float32 are rounded eight times as
finely.

int8 has a scale for each channel of the keys, over the tokens of the document, and one for each token of the values,
over its channels: keys have a few channels that are large in all tokens, values have none (KIVI, Liu et al.,
arXiv:2402.02750, section 3).

Shapes: G key heads, T tokens of one document, W width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from scaledown.models.engine.packing import KeysValues
from scaledown.models.serving.disk.store_index import FLOAT16, INT8, StoreFault

LARGEST_INT8 = 127
SMALLEST_SCALE = 1e-12
"""Keeps channels of zeros from being divided by zero."""


class LayerShape(NamedTuple):
    """The shape of a layer's keys and values for one token.

    Attributes:
        num_heads: G.
        key_width: W of the keys.
        value_width: W of the values.
    """

    num_heads: int
    key_width: int
    value_width: int

    @classmethod
    def of(cls, layer: KeysValues) -> LayerShape:
        """Return the shape of one document's keys and values, (G, T, W) each."""
        keys, values = layer
        return cls(keys.shape[0], keys.shape[2], values.shape[2])


def encode(layers: Sequence[KeysValues], number_format: str) -> dict[str, Tensor]:
    """Return the tensors that are stored of one document, on the CPU.

    Args:
        layers: keys and values (G, T, W) of each layer.
        number_format: "float16" or "int8".

    Returns:
        ``numbers`` (n,), those of all layers one after the other, keys before values; for int8 also ``scales`` (m,).

    Raises:
        StoreFault: if a number is beyond the range of float16.
    """
    numbers, scales = [], []
    for keys, values in layers:
        if number_format == FLOAT16:
            numbers += [keys.flatten(), values.flatten()]
            continue

        # Over the tokens for keys (G, 1, W), over the channels for values (G, T, 1).
        for part, over in ((keys.float(), 1), (values.float(), 2)):
            scale = _scale(part, over)
            numbers.append((part / scale).round().to(torch.int8).flatten())
            scales.append(scale.flatten())

    # One copy from the device for each of the two tensors.
    if number_format == INT8:
        return {"numbers": torch.cat(numbers).cpu(), "scales": torch.cat(scales).cpu()}
    halves = torch.cat(numbers).to(torch.float16).cpu()
    if not halves.isfinite().all():
        raise StoreFault("a document's keys or values are beyond float16, which ends at 65,504: keep this model's in a "
                         "store of int8 numbers, which have scales (number_format=\"int8\", --number_format int8)")
    return {"numbers": halves}


def decode(tensors: Mapping[str, Tensor], shapes: Sequence[LayerShape], num_tokens: int,
           device: torch.device) -> list[KeysValues]:
    """Return the keys and values (G, T, W) of each layer from what :func:`encode` returned.

    Args:
        tensors: of one document.
        shapes: of each layer.
        num_tokens: T.
        device: where they are wanted.

    Returns:
        float16 tensors, or float32 ones if they were int8 numbers.

    Raises:
        StoreFault: if the tensors have other sizes.
    """
    numbers = tensors["numbers"].to(device)
    scales = tensors["scales"].to(device) if "scales" in tensors else None
    sizes, scale_sizes = [], []
    for shape in shapes:
        sizes += [shape.num_heads * num_tokens * shape.key_width, shape.num_heads * num_tokens * shape.value_width]
        scale_sizes += [shape.num_heads * shape.key_width, shape.num_heads * num_tokens]
    if len(numbers) != sum(sizes) or (scales is not None and len(scales) != sum(scale_sizes)):
        raise StoreFault(f"{len(numbers)} numbers for a document of {num_tokens} tokens; expected {sum(sizes)}")

    parts = numbers.split(sizes)
    scale_parts = [None] * len(parts) if scales is None else scales.split(scale_sizes)
    layers = []
    for layer, shape in enumerate(shapes):
        # Keys stand at the even places, values behind them.
        keys = parts[2 * layer].view(shape.num_heads, num_tokens, shape.key_width)                # (G, T, W)
        values = parts[2 * layer + 1].view(shape.num_heads, num_tokens, shape.value_width)
        if scales is not None:
            keys = keys * scale_parts[2 * layer].view(shape.num_heads, 1, shape.key_width)
            values = values * scale_parts[2 * layer + 1].view(shape.num_heads, num_tokens, 1)
        layers.append((keys, values))
    return layers


def _scale(part: Tensor, over: int) -> Tensor:
    """Return what one step of int8 is worth, with a single entry in the dimension that it is the same ``over``."""
    if part.numel() == 0:
        # A document without tokens has no largest number.
        sizes = list(part.shape)
        sizes[over] = 1
        return part.new_ones(sizes)
    return part.abs().amax(over, keepdim=True).clamp_min(SMALLEST_SCALE) / LARGEST_INT8
