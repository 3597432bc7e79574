"""How many tokens an encoder can read, told and kept to before it reads too many and breaks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger(__name__)


def num_positions(network: Any) -> int | None:
    """Return how many tokens have a position in ``network``, or None if its positions are no table that ends.

    RoBERTa and its kin begin to count behind the number of their padding token, so that a table of 514 rows is for 512
    tokens.
    """
    from torch import nn

    sizes = [module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
             for name, module in network.named_modules()
             if isinstance(module, nn.Embedding) and name.endswith("position_embeddings")]
    return min(sizes, default=None)


class ReadableLength:
    """Has a sentence-transformers model cut its inputs to the tokens that it has positions for, and says so once.

    Args:
        model: a CrossEncoder, SentenceTransformer or SparseEncoder.
        flag: the model by its flag, for messages.
    """

    def __init__(self, model: Any, flag: str) -> None:
        self._model, self._flag, self._has_warned = model, flag, False
        positions, limit = num_positions(model), model.max_seq_length
        if positions is not None and (limit is None or limit > positions):
            model.max_seq_length = positions

    def tell_cut(self, texts: Sequence[tuple[str, ...]]) -> None:
        """Warn if the longest of ``texts`` (each of one part or more, read together) is longer than that."""
        limit, tokenizer = self._model.max_seq_length, self._model.tokenizer
        if self._has_warned or not texts or limit is None or not callable(tokenizer):
            return
        longest = max(texts, key=lambda parts: sum(map(len, parts)))
        num_tokens = len(tokenizer(*longest, truncation=False, verbose=False)["input_ids"])
        if num_tokens > limit:
            self._has_warned = True
            logger.warning("%s reads %d tokens at most; what is longer is cut off there (the longest text here has %d)",
                           self._flag, limit, num_tokens)
