"""Batches of one shape, or of few, for devices that compile a program for each shape that they meet (Trainium).

Training knows all its records, so its batches have one shape: every text is filled up to the longest of the data, and
the batch with dummy texts. The model's code is the same, and so are the losses: causality hides filler behind a text,
no placeholder asks for a dummy document's memory, and a target of ``losses.IGNORED`` is not learned. Questions to
answer come one after the other, so their texts are filled up to rounded sizes, of which a handful covers everything.

Here stands all that decides shapes: :data:`COMPILED_BY_SHAPE` for answering, :class:`Shapes` for training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import StoppingCriteria

from scaledown.models.losses import IGNORED
from scaledown.models.packing import Ids, TextLists

if TYPE_CHECKING:
    from scaledown.models.processor import Processor

COMPILED_BY_SHAPE = ("neuron",)
"""Kinds of devices that compile a program for each shape, so answering rounds its shapes there."""
MEASURED_TOGETHER = 64
SMALLEST_TEXT = 32


@dataclass(frozen=True)
class Shapes:
    """The longest of everything in some records, in tokens, and the most documents that one of them has.

    Of each document as many tokens are wanted, its memory and rerank tokens; a batch may have no document to tell it.
    """

    prefix_tokens: int = 1
    suffix_tokens: int = 1
    prompt_tokens: int = 1
    answer_tokens: int = 1
    num_documents: int = 0
    document_reads: int = 0
    reads_documents_first: bool = False
    reads_whole_pairs: bool = False

    @classmethod
    def of_records(cls, records: Sequence[Any], processor: Processor, answer_tokens: int | None = None) -> Shapes:
        """Measure ``records`` of a model with one number of memory tokens; all of them are tokenised once."""
        config = processor.config
        kind = (config.input_order == "document_first", config.compressor_type == "modernbert")
        shapes = cls(1, 1, 1, 1, 0, 0, *kind)
        starts = range(0, len(records), MEASURED_TOGETHER)
        for start in tqdm(starts, "measuring the records", disable=len(starts) == 1):
            some = [records[number] for number in range(start, min(start + MEASURED_TOGETHER, len(records)))]
            batch = processor.collate(some, answer_tokens)
            packing, reads = batch["documents"].packing, batch["documents"].reads
            found = cls(packing.prefixes.positions.shape[1], packing.suffixes.positions.shape[1],
                        batch["prompts"].packing.prefixes.positions.shape[1],
                        max(len(processor.answer_ids(record.answer, answer_tokens)) for record in some),
                        max(len(record.documents) for record in some),
                        max(reads.prefixes.positions.shape[1], reads.suffixes.positions.shape[1]), *kind)
            shapes = cls(*map(max, astuple(shapes), astuple(found)))
        return shapes

    def fill(self, texts: TextLists, prompts: TextLists, answers: Sequence[Ids], batch: dict[str, Any],
             batch_size: int) -> tuple[TextLists, TextLists, list[Ids], dict[str, Any]]:
        """Return a batch of at most ``batch_size`` records in its one shape: texts, prompts, answers and the rest."""
        assert len(answers) <= batch_size, "a batch of more records than its shape has room for"
        num_documents = batch_size * self.num_documents
        if self.reads_whole_pairs:
            texts = filled(texts, num_documents, self.prefix_tokens, num_reads=self.document_reads)
        else:
            num_prefixes = num_documents if self.reads_documents_first else batch_size
            texts = filled(texts, num_prefixes, self.prefix_tokens, num_documents, self.suffix_tokens,
                           self.document_reads)
        prompts = filled(prompts, batch_size, self.prompt_tokens, num_reads=self.answer_tokens)
        answers = [_grown(answer, self.answer_tokens, IGNORED) for answer in _extended(answers, batch_size)]

        fills = {"teacher_scores": 0.0, "has_score": False, "readout_targets": IGNORED}
        for name in fills.keys() & batch.keys():
            missing = num_documents - len(batch[name])
            # Only the first dimension, that of documents, grows.
            sides = [0, 0] * (batch[name].dim() - 1) + [0, missing]
            batch[name] = F.pad(batch[name], sides, value=fills[name])
        return texts, prompts, answers, batch


def filled(texts: TextLists, num_prefixes: int, prefix_tokens: int, num_suffixes: int = 0, suffix_tokens: int = 0,
           num_reads: int = 0) -> TextLists:
    """Return the same texts, each filled up to a size, and dummy texts behind them.

    Args:
        num_reads: wanted tokens of each text that may have any: of suffixes, or of prefixes that nothing continues.
            What a text lacks of these is made up by its first token.
    """
    number = len(texts.prefixes)
    of_prefixes, of_suffixes = (0, num_reads) if num_suffixes else (num_reads, 0)
    reads = [_grown(each, of_prefixes) for each in _extended(texts.reads[:number], num_prefixes)]
    reads += [_grown(each, of_suffixes) for each in _extended(texts.reads[number:], num_suffixes)]
    return TextLists(
        [_grown(ids, prefix_tokens) for ids in _extended(texts.prefixes, num_prefixes)],
        [_grown(ids, suffix_tokens) for ids in _extended(texts.suffixes, num_suffixes)],
        _grown(texts.prefix, num_suffixes, fill=max(0, num_prefixes - 1)), reads,
        _grown([len(ids) for ids in texts.prefixes], num_prefixes))


def rounded_texts(texts: TextLists) -> TextLists:
    """Return the same texts in a rounded shape; the states of dummies come behind those of real texts."""
    sizes = [rounded(len(texts.prefixes)), rounded(max(map(len, texts.prefixes), default=1), SMALLEST_TEXT)]
    if texts.suffixes:
        sizes += [rounded(len(texts.suffixes)), rounded(max(map(len, texts.suffixes)), SMALLEST_TEXT)]
    return filled(texts, *sizes, num_reads=max(map(len, texts.reads), default=0))


class DummiesEnd(StoppingCriteria):
    """Ends at once the answers to dummies, which stand behind the first ``num_real`` of ``num_prompts``."""

    def __init__(self, num_real: int, num_prompts: int) -> None:
        self.num_real, self.num_prompts = num_real, num_prompts

    def __call__(self, input_ids: Tensor, scores: Tensor, **settings: Any) -> Tensor:
        """Return whether each row (B,) is done; a prompt has as many rows as there are beams."""
        rows = torch.arange(len(input_ids), device=input_ids.device)
        return rows >= self.num_real * (len(input_ids) // self.num_prompts)


def rounded(number: int, smallest: int = 1) -> int:
    """Return the next power of two, or ``smallest``: sizes that soon repeat, at most twice as large as they need be."""
    return max(smallest, 1 << max(0, number - 1).bit_length())


def _grown(values: Sequence[int], size: int, fill: int = 0) -> list[int]:
    return [*values, *[fill] * (size - len(values))]


def _extended(texts: Sequence[Ids], number: int) -> list[Ids]:
    assert len(texts) <= number, "a batch of more texts than its shape has room for"
    return [*texts, *[()] * (number - len(texts))]
