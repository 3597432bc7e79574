"""The number of tokens that an encoder can read: longer inputs are cut, with a warning, before they break it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger(__name__)


def num_positions(network: Any) -> int | None:
    """Return the number of tokens that have a position in ``network``, or None if it has no table of positions.

    RoBERTa and its relatives count positions from the one after their padding token, so that a table of 514 embeddings
    is for 512 tokens.
    """
    from torch import nn

    sizes = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            num_reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            sizes.append(module.num_embeddings - num_reserved)
    return min(sizes, default=None)


class ReadableLength:
    """The longest input that a sentence-transformers model has positions for: longer ones are cut, and reported once.

    Args:
        model: a CrossEncoder, SentenceTransformer or SparseEncoder.
        flag: the model with its flag, for messages.
    """

    def __init__(self, model: Any, flag: str) -> None:
        self._model, self._flag, self._has_warned = model, flag, False

        # A tokenizer may know no limit, or a larger one than the network has: that would be an index error.
        positions, limit = num_positions(model), model.max_seq_length
        if positions is not None and (limit is None or limit > positions):
            model.max_seq_length = positions

    def tell_cut(self, texts: Sequence[tuple[str, ...]]) -> None:
        """Warn if the longest input of ``texts`` is cut; an input is one text, or a pair that is read together."""
        limit, tokenizer = self._model.max_seq_length, self._model.tokenizer
        if self._has_warned or not texts or limit is None or not callable(tokenizer):
            return

        # The longest in characters, taken for the longest in tokens: so only one input is tokenized twice.
        longest = max(texts, key=lambda text_or_pair: sum(map(len, text_or_pair)))
        num_tokens = len(tokenizer(*longest, truncation=False, verbose=False)["input_ids"])
        if num_tokens > limit:
            self._has_warned = True
            logger.warning("%s reads %d tokens at most; what is longer is cut off there (the longest text here has %d)",
                           self._flag, limit, num_tokens)
