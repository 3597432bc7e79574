"""Targets of training beside the answer: what each document's memory says by itself, and the teacher's scores.

Both depend on the query, so documents that are compressed without it have none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scaledown.models.losses import IGNORED

if TYPE_CHECKING:
    from scaledown.models.processor import Processor

UNSTATED = "unknown"
"""The readout target of a document that does not state the answer."""


def readout_targets(processor: Processor, records: Sequence[Any], num_memory_tokens: int,
                    without_query: Sequence[bool] | None = None) -> Tensor:
    """Return the tokens that each document's memory is trained to say by itself: (P, num_memory_tokens).

    They are the start of the answer for a document that states it, and of ``UNSTATED`` for the others of a record.
    There are none for records whose documents are compressed ``without_query``.
    """
    readouts: list[list[int]] = []
    for record, is_without in zip(records, without_query or [False] * len(records), strict=True):
        stated = record.stated_answers
        if any(stated) and not is_without:
            readouts += [_readout_ids(processor, answer or UNSTATED)[:num_memory_tokens] for answer in stated]
        else:
            # Also with answers in a teacher's own words there is nothing to read out.
            readouts += [[] for _ in stated]

    targets = torch.full((len(readouts), num_memory_tokens), IGNORED)
    for target, ids in zip(targets, readouts, strict=True):
        target[:len(ids)] = torch.tensor(ids, dtype=torch.long)
    return targets


def _readout_ids(processor: Processor, answer: str) -> list[int]:
    """Return the ids of an answer as a document has it, after a space, unless that takes more tokens."""
    bare, spaced = processor.answer_ids(answer), processor.answer_ids(f" {answer}")
    return spaced if len(spaced) <= len(bare) else bare


def teacher_scores(records: Sequence[Any], without_query: Sequence[bool]) -> dict[str, Tensor]:
    """Return ``teacher_scores`` (P,), those of all documents, and ``has_score`` (P,), whether there is one."""
    scores: list[float] = []
    for record, is_without in zip(records, without_query, strict=True):
        no_scores = [math.nan] * len(record.documents)
        scores += no_scores if is_without else record.reranking_scores or no_scores

    of_documents = torch.tensor(scores, dtype=torch.float32)                # (P,)
    return {"teacher_scores": of_documents.nan_to_num(), "has_score": ~of_documents.isnan()}
