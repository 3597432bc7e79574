"""From questions and documents to their memory, in batches; from a cache or a store if there is one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from scaledown.models.compressors.base import Compressed
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.engine import fixed_shapes
from scaledown.models.engine.packing import TextLists
from scaledown.models.loading.memory_origin import MemoryOrigin
from scaledown.models.loading.model_fingerprint import fingerprint
from scaledown.models.memory import Memory
from scaledown.models.processor import NO_QUERY
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.disk.memory_store import MemoryStore
from scaledown.models.serving.inputs.long_documents import split_input
from scaledown.models.serving.inputs.user_input import UserInput, check_number, check_type
from scaledown.models.serving.store import (
    DocumentKey,
    DocumentReader,
    DocumentStore,
    MemoryReader,
    Reader,
    Store,
)
from scaledown.progress import Bar

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel

DOCUMENTS_AT_ONCE = 128
"""In one pass. More are no faster, but their activations grow: memory and, beyond the CPU's caches, time."""


def check_compresses(model: ScaleDownModel) -> None:
    """Refuse a model without a compressor.

    Raises:
        ValueError: for one, with what it can do.
    """
    if model.config.reads_text:
        raise ValueError("this model reads text (--compressor_type none): it has no compressor for memory, stores, "
                         "caches or scores; answer(questions, documents) answers from the full text")


def compress(model: ScaleDownModel, given: UserInput, batch_size: int, num_memory_tokens: int | None = None,
             cache: MemoryCache | None = None, store: Store | None = None,
             show_progress_bar: bool = False, long_documents: str | None = None) -> Memory:
    """Return the memory of each question's documents; see :meth:`ScaleDownModel.compress`."""
    check_compresses(model)
    check_number("batch_size", batch_size)
    check_type("cache", cache, MemoryCache)
    check_type("store", store, Store)
    num_memory = model.processor.checked_memory_tokens(num_memory_tokens)

    # From here on a passage of a long document is a document like any other.
    given, passages = split_input(model.processor, given, model.long_documents_or(long_documents))
    documents = given.documents
    queries = [NO_QUERY if question is None else question for question in given.questions]
    has_query = None not in given.questions
    if not has_query:
        _warn_of_no_query(model)
    elif isinstance(store, MemoryStore):
        raise ValueError("this store holds memory without a query, which serves any question: give it to "
                         "compress(None, documents, store=store)")
    counts = [len(of_question) for of_question in documents]
    bar = Bar(total=sum(counts), desc="compressing", unit="document", disable=not show_progress_bar)

    # A cache calls the same function, for the documents that it does not hold. A store of memory is one already.
    compress_batch = partial(_compress_batch, model, num_memory=num_memory, store=store, bar=bar)
    if cache is not None and not isinstance(store, MemoryStore):
        compress_batch = partial(cache.compressed, num_memory_tokens=num_memory, reader=_reader(model),
                                 compress=compress_batch)

    with model.inference(), bar:
        if store is not None and not isinstance(store, MemoryStore):
            read_documents(model, list(itertools.chain.from_iterable(documents)), store)

        # One batch even if there is no question: it gives the memory its shape.
        compressed = []
        for start in range(0, max(1, len(counts)), batch_size):
            batch = slice(start, start + batch_size)
            compressed.append(compress_batch(queries[batch], documents[batch]))
            # Documents from the cache count as well.
            bar.update(sum(counts[:batch.stop]) - bar.n)

    # A score says how relevant a document is to its query.
    if not has_query:
        compressed = [part._replace(scores=None) for part in compressed]
    kept_numbers = model.processor.kept_numbers(queries, documents)
    origin = MemoryOrigin(fingerprint(model), tuple(given.questions), tuple(given.document_ids),
                          model.config.document_tokens, passages,
                          None if kept_numbers is None else tuple(map(tuple, kept_numbers)))
    return Memory.of_pairs(compressed, counts, origin)


def _warn_of_no_query(model: ScaleDownModel) -> None:
    """Warn, once, that a model has never compressed a document without a query."""
    if not model.progress.query_dropout:
        model.processor.warn_once("this model was trained on documents with a query alone, so its memory without one "
                                  "may say little; train it with --query_dropout 0.2; said once")


def read_documents(model: ScaleDownModel, documents: Sequence[str], store: Store | None = None,
                   batch_size: int = 32, show_progress_bar: bool = False) -> Store:
    """Return a store that holds ``documents``; see :meth:`ScaleDownModel.read_documents`."""
    check_type("store", store, Store)
    check_number("batch_size", batch_size)
    reader = reader_for(model, store)

    store = DocumentStore(reader.identity) if store is None else store
    with model.inference():
        store.read(model.processor.document_keys(documents), reader, batch_size, show_progress_bar)
    return store


def reader_for(model: ScaleDownModel, store: Store | None) -> Reader:
    """Return what reads documents for a store, of keys and values or of memory [of keys and values].

    Raises:
        ValueError: for a model that cannot do that.
    """
    if not isinstance(store, MemoryStore):
        return document_reader(model)

    # More documents for a store that has some. A number that is not this model's belongs to another checkpoint, which
    # the store itself refuses with better words.
    num_memory = store.num_memory_tokens
    return memory_reader(model, num_memory if num_memory in model.config.memory_token_choices else None)


def memory_reader(model: ScaleDownModel, num_memory_tokens: int | None = None) -> MemoryReader:
    """Return what compresses documents without a query for a store.

    Raises:
        ValueError: for a model without a compressor, or a number of memory tokens that it is not trained for.
    """
    check_compresses(model)
    _warn_of_no_query(model)
    num_memory = model.processor.checked_memory_tokens(num_memory_tokens)

    def read(documents: Sequence[DocumentKey]) -> Tensor:
        lists = model.processor.texts_without_query(documents, num_memory)
        parts = [_compress_texts(model, part, num_memory, None) for part in lists.parts(DOCUMENTS_AT_ONCE)]
        return Compressed.joined(parts).embeddings                            # (P, L, D)

    return MemoryReader(fingerprint(model), model.device, num_memory, read)


def document_reader(model: ScaleDownModel) -> DocumentReader:
    """Return what reads documents for a store.

    Raises:
        ValueError: for a model that cannot read documents ahead of questions.
    """
    check_compresses(model)
    if model.config.input_order != "document_first" or not isinstance(model.compressor, CausalCompressor):
        raise ValueError("only an n_layers or llm compressor trained with --input_order document_first can read "
                         "documents ahead of questions")
    return DocumentReader(fingerprint(model), model.device, model.dtype, model.compressor, model.generator.embed)


def _reader(model: ScaleDownModel) -> str:
    """Return the identity of a model for stored tensors: also its device and number format, in which these are."""
    return f"{fingerprint(model)} {model.device} {model.dtype}"


def _compress_batch(model: ScaleDownModel, questions: Sequence[str], documents: Sequence[Sequence[str]],
                    num_memory: int, store: Store | None, bar: Bar) -> Compressed:
    """Compress all documents of some questions together: (P, L, D) and scores (P,)."""
    if isinstance(store, MemoryStore):
        return _stored_memory(model, list(itertools.chain.from_iterable(documents)), num_memory, store)
    lists = model.processor.compressor_texts(questions, documents, num_memory)
    compressed = []
    for part in lists.parts(DOCUMENTS_AT_ONCE):
        compressed.append(_compress_texts(model, part, num_memory, store))
        bar.update(len(compressed[-1].embeddings))
    return Compressed.joined(compressed)


def _stored_memory(model: ScaleDownModel, documents: Sequence[str], num_memory: int, store: MemoryStore) -> Compressed:
    """Return the memory of documents without a query, (P, L, D), from the store, which gets those that it lacks."""
    reader, keys = memory_reader(model, num_memory), model.processor.document_keys(documents)
    store.read(keys, reader, DOCUMENTS_AT_ONCE)
    if not keys:
        # Without documents the compressor still gives the memory its shape.
        return Compressed(reader.read(keys), None)
    return Compressed(store.gather(keys, reader), None)


def _compress_texts(model: ScaleDownModel, lists: TextLists, num_memory: int,
                    store: Store | None) -> Compressed:
    """Compress documents in one pass."""
    num_documents = sum(1 for wanted in lists.reads if len(wanted))
    if num_documents and model.device.type in fixed_shapes.COMPILED_BY_SHAPE:
        lists = fixed_shapes.rounded_texts(lists)
    texts = lists.packed()
    if num_documents and store is not None:
        texts = texts.behind(store.gather(lists.prefixes, document_reader(model)))

    # A rounded shape has dummy documents at the end.
    embeddings, scores, _ = model.compressor(texts.to(model.device), model.generator.embed, num_memory)
    return Compressed(embeddings[:num_documents], None if scores is None else scores[:num_documents])
