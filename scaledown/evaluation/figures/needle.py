"""A look into memory embeddings: the document tokens that they resemble around the answer, and the nearest words.

The generator reads memory and token embeddings alike, so the two can be compared by their cosine (paper, figure 7). The
answer is the needle. The same document is also compressed for a question about something else: a likeness that is
higher only when the question asks for it was kept because of the question.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from scaledown.config import CUT
from scaledown.data.answers import answer_spans
from scaledown.data.records import Record
from scaledown.models.engine.decoder import token_embeddings
from scaledown.models.model import ScaleDownModel

WINDOW_TOKENS = 16
"""Tokens on each side of the answer that are compared."""
NUM_NEAREST = 3


class Needle(NamedTuple):
    """A document's token ids, and the first and last of those that spell the answer."""

    ids: list[int]
    first: int
    last: int

    def distance(self, place: int) -> int:
        """Return the number of tokens from the answer to ``place``: negative before it, 0 inside."""
        if place < self.first:
            return place - self.first
        return max(0, place - self.last)


def find_needle(tokenizer: Any, document: str, references: Sequence[str], limit: int) -> Needle | None:
    """Find the first answer, in whole words, among the document's first ``limit`` tokens; None if none is there."""
    encoded = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoded["input_ids"][:limit], encoded["offset_mapping"][:limit]
    spans = answer_spans(document, references)
    if not spans:
        return None

    # The tokens that share characters with the answer; at the limit the answer's end may be cut off.
    start, end = spans[0]
    inside = [place for place, (left, right) in enumerate(offsets) if left < end and right > start]
    if inside and offsets[inside[-1]][1] >= end:
        return Needle(ids, inside[0], inside[-1])
    return None


def look_into_memory(model: ScaleDownModel, questions: Sequence[tuple[Record, str]]) -> dict[str, Any]:
    """Measure similarities around the answer over all questions, each with its document, and show one in full.

    Returns:
        ``around``: for each way of asking, distances from the answer in tokens and the mean, over documents, of the
        largest cosine that any memory embedding has with the token there; ``example``: query, tokens, the answer's
        first and last token, ``similarity`` (L, T), and the ``nearest`` vocabulary entries of each embedding with
        their cosines; ``n``.

    Raises:
        ValueError: if no answer stands literally in its document.
    """
    tokenizer, table = model.processor.tokenizer, token_embeddings(model.generator.base).float()  # table (V, D)
    usable, needles = [], []
    for record, document in questions:
        needle = find_needle(tokenizer, document, record.references, model.config.document_tokens)
        if needle is not None:
            usable.append((record, document))
            needles.append(needle)
    if not usable:
        raise ValueError("no answer stands literally in its document: there is no needle to look at")

    # Each document is compressed twice: for its own question, and for the next document's.
    documents = [[document] for _, document in usable]
    queries = [record.query for record, _ in usable]
    queries_by_way = {"asked": queries, "not_asked": queries[1:] + queries[:1]}

    around, example = {}, {}
    for way, way_queries in queries_by_way.items():
        # Only the start of a long document, in which the needle was looked for.
        memory = model.compress(way_queries, documents, long_documents=CUT).embeddings[:, 0].float()  # (B, L, D)
        similarities = []
        for embeddings, needle in zip(memory, needles, strict=True):
            similarities.append(cosines(embeddings, table[needle.ids]))  # (L, T)
        around[way] = _mean_by_distance(similarities, needles)
        if way == "asked":
            example = _example(usable[0][0], needles[0], tokenizer, memory[0], similarities[0], table)

    return {"n": len(usable), "around": around, "example": example}


def memory_of_one(model: ScaleDownModel, records: Sequence[Record]) -> dict[str, Any] | None:
    """Return the ``example`` of :func:`look_into_memory` for the first document that holds its answer literally.

    None if no document does.
    """
    tokenizer, table = model.processor.tokenizer, token_embeddings(model.generator.base).float()  # table (V, D)
    for record in records:
        for document in record.documents:
            needle = find_needle(tokenizer, document, record.references, model.config.document_tokens)
            if needle is not None:
                memory = model.compress(record.query, [document], long_documents=CUT).embeddings[0, 0].float()  # (L, D)
                return _example(record, needle, tokenizer, memory, cosines(memory, table[needle.ids]), table)
    return None


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Return the cosine of each vector of ``left`` (N, D) with each of ``right`` (M, D): (N, M)."""
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T


def _mean_by_distance(similarities: Sequence[Tensor], needles: Sequence[Needle]) -> dict[str, list[float]]:
    values: dict[int, list[float]] = {}
    for similarity, needle in zip(similarities, needles, strict=True):
        largest = similarity.amax(0).tolist()  # over the memory embeddings: (L, T) to (T)
        for place, value in enumerate(largest):
            distance = needle.distance(place)
            if abs(distance) <= WINDOW_TOKENS:
                values.setdefault(distance, []).append(value)

    distances = sorted(values)
    means = [statistics.fmean(values[distance]) for distance in distances]
    return {"distance_tokens": distances, "cosine": means}


def _example(record: Record, needle: Needle, tokenizer: Any, memory: Tensor, similarity: Tensor,
             table: Tensor) -> dict[str, Any]:
    values, ids = cosines(memory, table).topk(NUM_NEAREST, dim=-1)  # each (L, NUM_NEAREST)
    nearest = []
    for embedding_ids, embedding_values in zip(ids.tolist(), values.tolist(), strict=True):
        words = []
        for token, value in zip(embedding_ids, embedding_values, strict=True):
            words.append({"token": tokenizer.decode([token]), "cosine": value})
        nearest.append(words)

    return {"query": record.query, "answer": record.references[0],
            "tokens": [tokenizer.decode([token]) for token in needle.ids], "answer_tokens": [needle.first, needle.last],
            "similarity": similarity.tolist(), "nearest": nearest}
