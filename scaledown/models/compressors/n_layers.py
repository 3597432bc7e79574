"""N-Layers compressor: a copy of the generator's first N layers, fully trained (paper, section 3.1).

With ``--layers`` it has any others: a pretrained generator's middle layers matter least.
"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.engine import decoder
from scaledown.settings import numbers_in

FEW_LAYERS = 24
DEFAULT_LAYERS = 8


def resolve_num_layers(num_layers: int | None, generator_layers: int) -> int:
    """Return the number of layers to copy: as asked, else 8, or a third of a generator that has fewer than 24.

    Raises:
        ValueError: if the generator has fewer layers than asked for.
    """
    # At 24 layers a third is 8 as well.
    if num_layers is None:
        return DEFAULT_LAYERS if generator_layers >= FEW_LAYERS else max(1, generator_layers // 3)
    if num_layers > generator_layers:
        raise ValueError(f"--num_layers {num_layers}: the generator has only {generator_layers} layers")
    return num_layers


class NLayersCompressor(CausalCompressor):
    """Reads with the first ``config.num_layers`` layers of ``body`` (the generator without its head), or with those
    that ``config.layers`` names, copied.

    No weight is shared: the generator's adapter and the compressor are trained separately. The compressor reads the
    generator's frozen token embeddings, which are passed in for each call. There is no final norm (paper, section 3.1)
    and no map, because the states have the generator's width.

    Raises:
        ValueError: if layers of ``body`` cannot read packed texts.
    """

    def __init__(self, config: ScaleDownConfig, body: PreTrainedModel, generator_table: Tensor) -> None:
        if fault := decoder.packing_fault(body):
            raise ValueError(f"--compressor_type n_layers cannot copy layers of a {body.config.model_type} model: "
                             f"{fault}; --compressor_type modernbert and llm read with a model of their own")

        # It reads and writes embeddings of the generator: one table is both.
        layers = decoder.copied_layers(body, numbers_in(config.layers) if config.layers else range(config.num_layers))
        super().__init__(config, layers, generator_table, generator_table)
