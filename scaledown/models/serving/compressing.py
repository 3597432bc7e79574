"""From questions and documents to their memory, in batches; from a cache or a store if there is one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from scaledown.models.compressors.base import Compressed
from scaledown.models.engine import decoder, fixed_shapes
from scaledown.models.engine.packing import TextLists
from scaledown.models.memory import Memory
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.store import DocumentStore
from scaledown.models.serving.user_input import Documents, check_number, check_texts

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel

DOCUMENTS_AT_ONCE = 128
"""In one pass. More are no faster, but their activations grow: memory and, beyond the CPU's caches, time."""


def compress(model: ScaleDownModel, questions: Sequence[str], documents: Documents, batch_size: int,
             num_memory_tokens: int | None, cache: MemoryCache | None, store: DocumentStore | None) -> Memory:
    """Return the memory of each question's documents; see :meth:`ScaleDownModel.compress`."""
    check_texts(questions, documents)
    check_number("batch_size", batch_size)
    num_memory = model.config.checked_memory_tokens(num_memory_tokens)

    # A cache calls the same function, for the documents that it does not hold.
    compress_batch = partial(_compress_batch, model, num_memory=num_memory, store=store)
    if cache is not None:
        version = decoder.weights_version(model.compressor)
        compress_batch = partial(cache.compressed, num_memory_tokens=num_memory, version=version,
                                 compress=compress_batch)

    with model.inference():
        if store is not None:
            model.read_documents(list(itertools.chain.from_iterable(documents)), store)

        # One batch even if there is no question: it gives the memory its shape.
        compressed = []
        for start in range(0, max(1, len(questions)), batch_size):
            batch = slice(start, start + batch_size)
            compressed.append(compress_batch(questions[batch], documents[batch]))
    return Memory.of_pairs(compressed, [len(of_question) for of_question in documents])


def _compress_batch(model: ScaleDownModel, questions: Sequence[str], documents: Documents, num_memory: int,
                    store: DocumentStore | None) -> Compressed:
    """Compress all documents of some questions together: (P, L, D) and scores (P,)."""
    lists = model.processor.compressor_texts(questions, documents, num_memory)
    parts = lists.parts(DOCUMENTS_AT_ONCE)
    return Compressed.joined([_compress_texts(model, part, num_memory, store) for part in parts])


def _compress_texts(model: ScaleDownModel, lists: TextLists, num_memory: int,
                    store: DocumentStore | None) -> Compressed:
    """Compress documents in one pass."""
    num_documents = sum(1 for wanted in lists.reads if len(wanted))
    if num_documents and model.device.type in fixed_shapes.COMPILED_BY_SHAPE:
        lists = fixed_shapes.rounded_texts(lists)
    texts = lists.packed()
    if num_documents and store is not None:
        texts = texts.behind(store.gather(lists.prefixes))

    # A rounded shape has dummy documents at the end.
    embeddings, scores = model.compressor(texts.to(model.device), model.generator.embed, num_memory)
    return Compressed(embeddings[:num_documents], None if scores is None else scores[:num_documents])
