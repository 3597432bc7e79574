"""N-Layers compressor: a copy of the generator's first N layers, fully trained (paper, section 3.1)."""

from __future__ import annotations

from transformers import PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models import decoder
from scaledown.models.compressors.causal import CausalCompressor

FEW_LAYERS = 24
DEFAULT_LAYERS = 8


def resolve_num_layers(num_layers: int | None, generator_layers: int) -> int:
    """Return how many layers to copy: as asked, else 8, or a third of a generator that has fewer than 24.

    Raises:
        ValueError: if the generator has fewer layers than asked for.
    """
    if num_layers is None:
        return DEFAULT_LAYERS if generator_layers >= FEW_LAYERS else max(1, generator_layers // 3)
    if num_layers > generator_layers:
        raise ValueError(f"--num_layers {num_layers}: the generator has only {generator_layers} layers")
    return num_layers


class NLayersCompressor(CausalCompressor):
    """Reads with the first ``num_layers`` layers of ``body`` (the generator without its head), copied.

    No weight is shared: training the generator's adapter and the compressor are two things. The generator's frozen
    token embeddings are only handed in when reading. No final norm (paper, section 3.1), and no map: the states have
    the generator's width.

    Raises:
        ValueError: if such a generator cannot read packed texts.
    """

    def __init__(self, config: ScaleDownConfig, body: PreTrainedModel, num_layers: int) -> None:
        if fault := decoder.packing_fault(body):
            raise ValueError(f"--compressor_type n_layers cannot copy layers of a {body.config.model_type} model: "
                             f"{fault}; --compressor_type modernbert and llm read with a model of their own")
        table = decoder.token_embeddings(body)
        super().__init__(config, decoder.first_layers(body, num_layers), table, table)
