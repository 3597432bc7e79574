"""No compressor at all: the generator reads the documents in full text, with its adapter trained on them.

That is the baseline for which everything but the compression is as in ScaleDown: the same records, steps, rank and
loss. Beside it the generator as it was, which never saw the form of the answers, would make any training look good.
"""

from __future__ import annotations

from torch import Tensor, nn

from scaledown.config import ScaleDownConfig
from scaledown.models.compressors.base import Embed
from scaledown.models.engine.packing import PackedTexts


class NoCompressor(nn.Module):
    """Stands where a compressor would, without a weight: what is done to all weights needs no special case."""

    model_config = None
    position_limit = None

    def __init__(self, config: ScaleDownConfig, model: nn.Module, generator_table: Tensor) -> None:
        super().__init__()

    def forward(self, texts: PackedTexts, embed: Embed, num_memory: int | None = None) -> tuple[None, None, None]:
        """Return neither memory, scores nor states: the prompts have their documents in them."""
        return None, None, None

    def gradient_checkpointing_enable(self) -> None:
        """Do nothing: it has no activations."""
