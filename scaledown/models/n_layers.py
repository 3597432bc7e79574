"""N-Layers compressor: a copy of the generator's first N layers, fully trained (paper, section 3.1)."""

from __future__ import annotations

import copy

from torch import nn

from scaledown.config import ScaleDownConfig
from scaledown.models.causal import CausalCompressor
from scaledown.models.positions import position_limit

FEW_LAYERS = 24
DEFAULT_LAYERS = 8


def resolve_num_layers(num_layers: int | None, generator_layers: int) -> int:
    """How many layers to copy: as asked, else 8, or a third of a generator that has fewer than 24.

    Raises:
        ValueError: where the generator has fewer layers than asked for.
    """
    if num_layers is None:
        return DEFAULT_LAYERS if generator_layers >= FEW_LAYERS else max(1, generator_layers // 3)
    if num_layers > generator_layers:
        raise ValueError(f"--num_layers {num_layers}: the generator has only {generator_layers} layers")
    return num_layers


class NLayersCompressor(CausalCompressor):
    """Reads with the first ``num_layers`` layers of ``body`` (a Llama, Mistral or Qwen decoder), copied.

    No weight is shared: training the generator's adapter and the compressor are two things. The generator's frozen
    token embeddings are only handed in when reading. No final norm (paper, section 3.1), and no map: the states have
    the generator's width.
    """

    def __init__(self, config: ScaleDownConfig, body: nn.Module, num_layers: int) -> None:
        table = body.get_input_embeddings().weight
        layers = (copy.deepcopy(layer) for layer in body.layers[:num_layers])
        super().__init__(config, layers, copy.deepcopy(body.rotary_emb), table, table)
        self.position_limit = position_limit(body)
