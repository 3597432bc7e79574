"""The longest text that a model reads exactly.

Ordinary rotary positions have no hard end. But a table of learned positions ends, and two kinds of rotary positions
(``dynamic`` and ``longrope``) change every frequency of a batch as soon as its longest text passes a limit: a short
text would be read differently beside a long one. Texts beyond such a limit are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn
from transformers import PretrainedConfig

POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")
"""Names that models give their tables of learned positions."""


class PositionLimit(NamedTuple):
    """The longest text that a model reads exactly.

    Attributes:
        num_positions: in tokens, memory embeddings included.
        reason: what in the model sets the limit, for a message.
    """

    num_positions: int
    reason: str

    def check(self, num_positions: int, what: str, advice: str) -> None:
        """Refuse a text that is too long.

        Raises:
            ValueError: if ``num_positions`` is above the limit; it says ``what`` is too long, and gives ``advice``.
        """
        if num_positions > self.num_positions:
            raise ValueError(f"{what} takes {num_positions} positions, and {self.reason}: {advice}")


def position_limit(model: nn.Module) -> PositionLimit | None:
    """Return the longest text that ``model`` reads exactly; None if nothing limits it."""
    limits = [*_table_limits(model), *_rotary_limits(model.config)]
    return min(limits, default=None)


def _table_limits(model: nn.Module) -> Iterator[PositionLimit]:
    for name, module in model.named_modules():
        table = getattr(module, "weight", None)                               # (number of positions, width)
        is_table = table is not None and table.dim() == 2
        if name.rpartition(".")[2] not in POSITION_TABLES or not is_table:
            continue

        # RoBERTa and its kin count positions from one above the padding token's id.
        padding_idx = getattr(module, "padding_idx", None)
        number = len(table) if padding_idx is None else len(table) - padding_idx - 1
        # A table may be longer than the model was trained for.
        number = min(number, getattr(model.config, "max_position_embeddings", number))
        yield PositionLimit(number, f"a {model.config.model_type} model has {number} learned ones")


def _rotary_limits(config: PretrainedConfig) -> Iterator[PositionLimit]:
    parameters = getattr(config, "rope_parameters", None) or {}
    # Models with several kinds of layers have one set of parameters for each kind.
    kinds = [value for value in parameters.values() if isinstance(value, dict)] or [parameters]
    for kind in kinds:
        rope_type = kind.get("rope_type", "default")
        if rope_type == "longrope":
            number = kind.get("original_max_position_embeddings", config.max_position_embeddings)
        elif "dynamic" in rope_type:
            number = config.max_position_embeddings
        else:
            continue

        yield PositionLimit(number, f"with more than {number} rope type {rope_type!r} changes how every other text of "
                            "the batch is read")
