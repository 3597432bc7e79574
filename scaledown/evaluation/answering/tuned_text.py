"""The systems of a checkpoint that was trained on text (``--compressor_type none``), all read with its adapter on.

They ask what compression is worth beside a generator that was tuned in the same way: the whole documents, text of the
memory's size, and the one document that a search engine would choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scaledown.data.pipeline.retrieval import BM25
from scaledown.evaluation.systems import Documents, Questions, System
from scaledown.models.serving.inputs.documents import read_document


def _prefill_full_text(model: Any, questions: Questions, documents: Documents, memory: Any) -> Any:
    return model.prefill_text(questions, documents, with_adapter=True)


def _prefill_truncated_text(model: Any, questions: Questions, documents: Documents, memory: Any) -> Any:
    # As many tokens of a document as its memory would have.
    return model.prefill_text(questions, documents, document_tokens=model.config.num_memory_tokens, with_adapter=True)


def _prefill_best_passage(model: Any, questions: Questions, documents: Documents, memory: Any) -> Any:
    chosen = [best_passage(question, texts) for question, texts in zip(questions, documents, strict=True)]
    return model.prefill_text(questions, chosen, with_adapter=True)


def best_passage(question: str, documents: Sequence[str | dict[str, str]]) -> list[str | dict[str, str]]:
    """Return the document that BM25 scores highest, counting words over these documents; of equal ones the first."""
    hits = BM25([read_document(document).text for document in documents]).search([question], 1)[0]
    return [documents[hit.index] for hit in hits]


FULL_TEXT_TUNED = System("full_text_tuned", _prefill_full_text)
TUNED = {"full text, tuned": FULL_TEXT_TUNED,
         "cut text, tuned": System("truncated_text_tuned", _prefill_truncated_text),
         "best passage, tuned": System("best_passage_tuned", _prefill_best_passage)}
"""By their names in the table."""
