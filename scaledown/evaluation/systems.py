"""The systems to compare: ScaleDown and its baselines, all with the same generator and the same questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scaledown.models.serving.choosing import Keep, documents_to_keep

Questions = list[str]
Documents = list[list[str | dict[str, str]]]
"""For each question its documents, as :attr:`Record.documents_with_titles` has them."""


def _no_compression(model: Any, questions: Questions, documents: Documents) -> None:
    """Stand in for compression in systems that read text."""


def _decode(model: Any, state: Any, max_new_tokens: int) -> list[str]:
    return model.decode(state, max_new_tokens=max_new_tokens)


@dataclass(frozen=True)
class System:
    """One way to answer: how documents are compressed (or not), and how the prompt is read.

    Attributes:
        name: its key in the report.
        prefill: (model, questions, documents, memory) -> decoding state.
        compress: (model, questions, documents) -> memory, or None for a system that reads text.
        decode: (model, decoding state, max_new_tokens) -> answers; the state then has each question's token counts.
    """

    name: str
    prefill: Callable[[Any, Questions, Documents, Any], Any]
    compress: Callable[[Any, Questions, Documents], Any] = _no_compression
    decode: Callable[[Any, Any, int], list[str]] = _decode


def _compress(model: Any, questions: Questions, documents: Documents) -> Any:
    return model.compress(questions, documents)


def _compress_without_query(model: Any, questions: Questions, documents: Documents) -> Any:
    return model.compress(None, documents)


def _prefill_memory(model: Any, questions: Questions, documents: Documents, memory: Any) -> Any:
    return model.prefill(questions, memory)


def _prefill_full_text(model: Any, questions: Questions, documents: Documents, memory: Any) -> Any:
    return model.prefill_text(questions, documents)


def _prefill_truncated_text(model: Any, questions: Questions, documents: Documents, memory: Any) -> Any:
    # A memory embedding takes one position of the prompt, so both systems have the same budget, of a long document for
    # each of its passages.
    return model.prefill_text(questions, documents, document_tokens=model.config.num_memory_tokens)


def _prefill_no_documents(model: Any, questions: Questions, documents: Documents, memory: Any) -> Any:
    return model.prefill_text(questions, [[] for _ in documents])


def scaledown_with(num_memory_tokens: int) -> System:
    """Return ScaleDown with another of the numbers of memory tokens that the model is trained for."""

    def compress(model: Any, questions: Questions, documents: Documents) -> Any:
        return model.compress(questions, documents, num_memory_tokens=num_memory_tokens)

    return System(f"scaledown_{num_memory_tokens}", _prefill_memory, compress)


def truncated_text_with(document_tokens: int) -> System:
    """Return the system that reads only each document's first ``document_tokens`` tokens, for each of its passages."""

    def prefill(model: Any, questions: Questions, documents: Documents, memory: Any) -> Any:
        return model.prefill_text(questions, documents, document_tokens=document_tokens)

    return System(f"truncated_text_{document_tokens}", prefill)


SCALEDOWN = System("scaledown", _prefill_memory, _compress)
WITHOUT_QUERY = System("scaledown_without_query", _prefill_memory, _compress_without_query)
"""ScaleDown whose documents are compressed without the query, as they would be stored for all questions."""
FULL_TEXT = System("full_text", _prefill_full_text)
TRUNCATED_TEXT = System("truncated_text", _prefill_truncated_text)
NO_DOCUMENTS = System("no_documents", _prefill_no_documents)
BASELINES = (NO_DOCUMENTS, TRUNCATED_TEXT, FULL_TEXT)
LABELS = {NO_DOCUMENTS.name: "No documents", TRUNCATED_TEXT.name: "Truncated text, same token budget",
          SCALEDOWN.name: "ScaleDown", FULL_TEXT.name: "Full text", "naive_compressor": "Naive compressor"}
"""What tables and figures call the systems."""
LABELS_OF_TRAINING = LABELS | {"before_training": "ScaleDown, before training",
                               SCALEDOWN.name: "ScaleDown, after training"}
"""The same in a report of training, which has ScaleDown twice."""


def keeping(keep_documents: Keep) -> System:
    """Return ScaleDown that compresses and scores all documents in one pass, and reads only the best of them."""

    def compress(model: Any, questions: Questions, documents: Documents) -> Any:
        memory = model.compress(questions, documents)
        # The others were compressed too: their scores come from that same pass.
        return memory.keep(documents_to_keep(memory, keep_documents, model.config.keep_threshold))

    return System(f"scaledown_keeping_{keep_documents}", _prefill_memory, compress)
