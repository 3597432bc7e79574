"""Batches of one shape, or of few, for devices that compile a program for each new shape (Trainium).

Training knows all its records, so its batches have one shape: every text is filled up to the longest of the data, and
the batch with dummy texts. The model's code is the same, and so are the losses: causality hides filler at the end of a
text, no placeholder takes a dummy document's memory, and a target of ``losses.IGNORED`` does not count. When answering,
questions are not known ahead, so their texts are filled up to rounded lengths, of which a handful covers everything.

This file alone decides shapes: :data:`COMPILED_BY_SHAPE` for answering, :class:`Shapes` for training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import StoppingCriteria

from scaledown.models.engine.packing import Ids, TextLists
from scaledown.models.losses import IGNORED

COMPILED_BY_SHAPE = ("neuron",)
"""Kinds of devices that compile a program for each shape, so answering rounds its shapes there."""
SMALLEST_TEXT = 32


@dataclass(frozen=True)
class Shapes:
    """The largest lengths in some records, in tokens, and the largest number of documents of one of them.

    Attributes:
        document_reads: the number of wanted tokens of a document: memory and rerank tokens. A batch without documents
            could not tell.
    """

    prefix_tokens: int = 1
    suffix_tokens: int = 1
    prompt_tokens: int = 1
    answer_tokens: int = 1
    num_documents: int = 0
    document_reads: int = 0
    reads_documents_first: bool = False
    reads_whole_pairs: bool = False

    def fill(self, texts: TextLists, prompts: TextLists, answers: Sequence[Ids], batch: dict[str, Any],
             batch_size: int) -> tuple[TextLists, TextLists, list[Ids], dict[str, Any]]:
        """Return a batch of at most ``batch_size`` records in its one shape: texts, prompts, answers and the rest."""
        assert len(answers) <= batch_size, "more records than the batch's shape holds"
        num_documents = batch_size * self.num_documents

        # Texts of the compressor: whole pairs, or prefixes (queries, or documents if these come first) and suffixes.
        if self.reads_whole_pairs:
            texts = fill_texts(texts, num_documents, self.prefix_tokens, num_reads=self.document_reads)
        else:
            num_prefixes = num_documents if self.reads_documents_first else batch_size
            texts = fill_texts(texts, num_prefixes, self.prefix_tokens, num_documents, self.suffix_tokens,
                           self.document_reads)

        # The generator's.
        prompts = fill_texts(prompts, batch_size, self.prompt_tokens, num_reads=self.answer_tokens)
        answers = [_grown(answer, self.answer_tokens, IGNORED) for answer in _extended(answers, batch_size)]

        # Targets that do not count, for dummy documents.
        fills = {"teacher_scores": 0.0, "has_score": False, "readout_targets": IGNORED}
        for name in fills.keys() & batch.keys():
            missing = num_documents - len(batch[name])
            # Only the first dimension, that of documents, grows.
            sides = [0, 0] * (batch[name].dim() - 1) + [0, missing]
            batch[name] = F.pad(batch[name], sides, value=fills[name])
        return texts, prompts, answers, batch


def fill_texts(texts: TextLists, num_prefixes: int, prefix_tokens: int, num_suffixes: int = 0, suffix_tokens: int = 0,
           num_reads: int = 0) -> TextLists:
    """Return the same texts, each filled up to a size, and dummy texts behind them.

    Args:
        num_reads: the number of wanted tokens of each suffix, or of each prefix if there are no suffixes. A text with
            fewer repeats its first token.
    """
    num_real_prefixes = len(texts.prefixes)
    reads_of_prefix, reads_of_suffix = (0, num_reads) if num_suffixes else (num_reads, 0)
    of_prefixes = _extended(texts.reads[:num_real_prefixes], num_prefixes)
    of_suffixes = _extended(texts.reads[num_real_prefixes:], num_suffixes)
    reads = [_grown(wanted, reads_of_prefix) for wanted in of_prefixes]
    reads += [_grown(wanted, reads_of_suffix) for wanted in of_suffixes]

    # Dummy suffixes continue the last prefix; filler beyond a prefix's own length is seen by nobody.
    return TextLists(
        [_grown(ids, prefix_tokens) for ids in _extended(texts.prefixes, num_prefixes)],
        [_grown(ids, suffix_tokens) for ids in _extended(texts.suffixes, num_suffixes)],
        _grown(texts.prefix, num_suffixes, fill=max(0, num_prefixes - 1)), reads,
        _grown([len(ids) for ids in texts.prefixes], num_prefixes))


def rounded_texts(texts: TextLists) -> TextLists:
    """Return the same texts in a rounded shape; the states of dummies come after those of real texts."""
    sizes = [rounded(len(texts.prefixes)), rounded(max(map(len, texts.prefixes), default=1), SMALLEST_TEXT)]
    if texts.suffixes:
        sizes += [rounded(len(texts.suffixes)), rounded(max(map(len, texts.suffixes)), SMALLEST_TEXT)]
    return fill_texts(texts, *sizes, num_reads=max(map(len, texts.reads), default=0))


class DummiesEnd(StoppingCriteria):
    """Ends the answers to dummies at once: the prompts after the first ``num_real`` of ``num_prompts``."""

    def __init__(self, num_real: int, num_prompts: int) -> None:
        self.num_real, self.num_prompts = num_real, num_prompts

    def __call__(self, input_ids: Tensor, scores: Tensor, **settings: Any) -> Tensor:
        """Return which sequences (B * beams,) are done."""
        num_beams = len(input_ids) // self.num_prompts
        sequence = torch.arange(len(input_ids), device=input_ids.device)
        return sequence >= self.num_real * num_beams


def rounded(number: int, smallest: int = 1) -> int:
    """Return the next power of two, or ``smallest``: few different sizes, at most twice as large as needed."""
    return max(smallest, 1 << max(0, number - 1).bit_length())


def _grown(values: Sequence[int], size: int, fill: int = 0) -> list[int]:
    return [*values, *[fill] * (size - len(values))]


def _extended(texts: Sequence[Ids], number: int) -> list[Ids]:
    assert len(texts) <= number, "more texts than the batch's shape holds"
    return [*texts, *[()] * (number - len(texts))]
