"""The reranking teacher, a cross-encoder: it reads a query and a document together, and gives the document's relevance.

Its raw logits become the ``reranking_scores`` of records, which the compressor learns to predict (paper, equation 3).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scaledown.data.records import Record
from scaledown.hub import SAFE_WEIGHTS, locate
from scaledown.hub.number_formats import dtype_to_rank
from scaledown.progress import Bar
from scaledown.settings import setting

DEFAULT_RERANKER = "naver/trecdl22-crossencoder-debertav3"
RERANKER_ADVICE = ("What works without it: a local folder, such as the one that "
                   "python -m lab.embedded.reranker trains.")

Pair = tuple[str, str]
"""A query and a document."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RerankerConfig:
    """The cross-encoder (default: the paper's teacher)."""

    reranker_model: str = setting(DEFAULT_RERANKER, "the cross-encoder: a Hub id or a local folder")
    reranker_revision: str | None = setting(
        None, "commit, branch or tag of the cross-encoder on the Hub", is_advanced=True)
    reranker_batch_size: int = setting(
        32, "pairs of a query and a document that are scored in one batch", is_advanced=True)

    def __post_init__(self) -> None:
        if self.reranker_batch_size < 1:
            raise ValueError(f"--reranker_batch_size must be above 0, got {self.reranker_batch_size}")


class Reranker:
    """A cross-encoder, on the GPU if there is one.

    Raises:
        ValueError: if the model cannot be found or read, or is no cross-encoder that gives one score a pair.
    """

    def __init__(self, config: RerankerConfig) -> None:
        self.config = config
        self.cross_encoder = _load(config)
        self._flag = f"--reranker_model {config.reranker_model}"
        self._length = ReadableLength(self.cross_encoder, self._flag)

    def scores(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, float]]:
        """Yield the raw logit (no sigmoid) of each (query, document), with the number of its pair.

        They come as they are computed: longest pairs first, so that batches hold little padding and one that is too
        big for memory fails at once.

        Raises:
            ValueError: if a score is no finite number.
        """
        from torch import nn

        self._length.tell_cut(pairs)
        # By length in characters; the stable sort keeps equally long pairs in order.
        order = sorted(range(len(pairs)), key=lambda number: -sum(map(len, pairs[number])))
        batch_size = self.config.reranker_batch_size
        for start in range(0, len(order), batch_size):
            numbers = order[start:start + batch_size]
            logits = self.cross_encoder.predict([pairs[number] for number in numbers], batch_size=batch_size,
                                                activation_fn=nn.Identity(), show_progress_bar=False)  # (batch,)

            # A damaged model is reported here, before its scores train another one.
            for number, logit in zip(numbers, map(float, logits), strict=True):
                if not math.isfinite(logit):
                    raise ValueError(f"{self._flag}: scores {pairs[number][0][:60]!r} with a document of "
                                     f"{len(pairs[number][1])} characters as {logit}; expected a finite number")
                yield number, logit


def _load(config: RerankerConfig) -> Any:
    """Load the cross-encoder.

    Raises:
        ValueError: if it cannot be found or read, or does not give one score a pair.
    """
    from safetensors import SafetensorError
    from sentence_transformers import CrossEncoder
    from sentence_transformers.util import get_device_name
    from transformers import AutoConfig

    name, revision = config.reranker_model, config.reranker_revision
    try:
        place = locate(name, revision, what_works=RERANKER_ADVICE)
        settings = {"revision": revision or "main", "trust_remote_code": False}

        # CrossEncoder would put a random head on any other model.
        architectures = AutoConfig.from_pretrained(place, **settings).architectures or []
        if not any(architecture.endswith("ForSequenceClassification") for architecture in architectures):
            raise ValueError(f"its config names {architectures}, and no ...ForSequenceClassification: not a "
                             "cross-encoder, or one without a trained head")

        device = get_device_name()
        cross_encoder = CrossEncoder(place, device=device, **settings,
                                     model_kwargs={**SAFE_WEIGHTS, "dtype": dtype_to_rank(device)})
    except (OSError, SafetensorError, ValueError) as fault:
        raise ValueError(f"--reranker_model {name}: cannot be used ({fault})") from fault

    if cross_encoder.num_labels != 1:
        raise ValueError(f"--reranker_model {name}: gives {cross_encoder.num_labels} numbers a pair; expected a "
                         "cross-encoder that gives one")
    return cross_encoder


def score_pairs(reranker: Reranker, pairs: Sequence[Pair]) -> list[float]:
    """Return the score of every pair, in their order, with a progress bar."""
    scores = dict(Bar(reranker.scores(pairs), desc="scoring", total=len(pairs), unit="pair", leave=False))
    return [scores[number] for number in range(len(pairs))]  # they come longest pair first


def with_scores(records: Sequence[Record], scores: Sequence[float]) -> list[Record]:
    """Return the records with ``reranking_scores``, from the scores of all their documents one after another."""
    scored_records = []
    start = 0
    for record in records:
        end = start + len(record.documents)
        scored_records.append(dataclasses.replace(record, reranking_scores=tuple(scores[start:end])))
        start = end
    return scored_records


def pairs_of(records: Sequence[Record]) -> list[Pair]:
    """Return each query with each of its documents."""
    pairs: list[Pair] = []
    for record in records:
        pairs += [(record.query, document) for document in record.documents]
    return pairs


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
