"""Targets of training beside the answer: what each document's memory says by itself, and the teacher's scores."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scaledown.models.losses import IGNORED

if TYPE_CHECKING:
    from scaledown.models.processor import Processor

UNSTATED = "unknown"
"""The readout target of a document that does not state the answer."""


def readout_targets(processor: Processor, records: Iterable[Any], num_memory_tokens: int) -> Tensor:
    """Return the tokens that each document's memory is trained to say by itself: (P, num_memory_tokens).

    They are the start of the answer for a document that states it, and of ``UNSTATED`` for the others of a record.
    """
    readouts: list[list[int]] = []
    for record in records:
        stated = record.stated_answers
        if any(stated):
            readouts += [_readout_ids(processor, answer or UNSTATED)[:num_memory_tokens] for answer in stated]
        else:
            # As with answers in a teacher's own words: there is nothing to read out.
            readouts += [[] for _ in stated]

    targets = torch.full((len(readouts), num_memory_tokens), IGNORED)
    for target, ids in zip(targets, readouts, strict=True):
        target[:len(ids)] = torch.tensor(ids, dtype=torch.long)
    return targets


def _readout_ids(processor: Processor, answer: str) -> list[int]:
    """Return the ids of an answer as a document has it, after a space, unless that takes more tokens."""
    bare, spaced = processor.answer_ids(answer), processor.answer_ids(f" {answer}")
    return spaced if len(spaced) <= len(bare) else bare


def teacher_scores(records: Iterable[Any]) -> dict[str, Tensor]:
    """Return ``teacher_scores`` (P,), those of all documents, and ``has_score`` (P,), whether there is one."""
    scores: list[float] = []
    for record in records:
        scores += record.reranking_scores or [math.nan] * len(record.documents)

    of_documents = torch.tensor(scores, dtype=torch.float32)                # (P,)
    return {"teacher_scores": of_documents.nan_to_num(), "has_score": ~of_documents.isnan()}
