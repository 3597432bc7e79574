"""Batches of one shape, or of few, for devices that compile a program for each shape that they meet (Trainium).

Training knows all its records, so its batches have one shape: in a batch that :meth:`Processor.collate` made every text
is padded to the longest of the data, the documents to one number for all batches, and a short last batch to a whole
one. The model's code is the same; it finds that all slots are in use, so that nothing has to be moved by an index of a
length that the data decide. What is padding stays without effect: causality hides it behind a text, no placeholder
asks for a dummy document's memory, and a target of ``head_loss.IGNORED`` is not learnt. Losses are those of the ragged
batch.

Questions to answer come one after the other, so their texts are padded to rounded sizes (:func:`rounded`), of which a
handful covers everything from a question to a long prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from scaledown.models.compressor import CompressorInput
from scaledown.models.head_loss import IGNORED
from scaledown.models.processor import Processor
from scaledown.models.ragged import pad

COMPILED_BY_SHAPE = ("neuron",)
"""Kinds of devices on which answering has rounded shapes by itself."""
MEASURED_TOGETHER = 64
SMALLEST_TEXT = 32


@dataclass(frozen=True)
class Shapes:
    """The longest of everything in some records, in tokens, and the most documents that one of them has."""

    first_tokens: int = 1
    second_tokens: int = 1
    prompt_tokens: int = 1
    answer_tokens: int = 1
    num_documents: int = 0
    reads_documents_first: bool = False

    @classmethod
    def of_records(cls, records: Sequence[Any], processor: Processor, answer_tokens: int | None = None) -> Shapes:
        """Measure ``records`` of a model with one number of memory tokens; all of them are tokenised once."""
        shapes = cls(reads_documents_first=processor.config.input_order == "document_first")
        starts = range(0, len(records), MEASURED_TOGETHER)
        for start in tqdm(starts, "measuring the records for --pad_to_max", disable=len(starts) == 1):
            some = [records[number] for number in range(start, min(start + MEASURED_TOGETHER, len(records)))]
            batch = processor.collate(some, answer_tokens)
            found = cls(batch["first_ids"].shape[1], batch["second_ids"].shape[1], batch["prompt_ids"].shape[1],
                        max(len(processor.answer_ids(record.answer, answer_tokens)) for record in some),
                        max(len(record.documents) for record in some), shapes.reads_documents_first)
            shapes = cls(*map(max, astuple(shapes), astuple(found)))
        return shapes

    def pad(self, batch: Mapping[str, Tensor], batch_size: int) -> dict[str, Tensor]:
        """A collated ``batch`` of at most ``batch_size`` records in its one shape, dummies behind what is real.

        ``padding_share`` (a number) says how much of it is padding.
        """
        num_documents = batch_size * self.num_documents
        num_first = num_documents if self.reads_documents_first else batch_size
        first_slots, second_slots = num_first * self.first_tokens, num_documents * self.second_tokens
        prompt_slots = batch_size * self.prompt_tokens
        width, num_answers = batch["prompt_ids"].shape[1], batch_size * self.answer_tokens
        answers = batch["prompt_slots"][batch["answer_index"]]
        answers = answers + answers.div(width, rounding_mode="floor") * (self.prompt_tokens - width)
        num_real = sum(len(batch[name]) for name in ("first_slots", "second_slots", "prompt_slots"))
        fixed = {
            "first_ids": _grown(batch["first_ids"], num_first, self.first_tokens),
            "first_lengths": _grown(batch["first_lengths"], num_first),
            "second_ids": _grown(batch["second_ids"], num_documents, self.second_tokens),
            "second_lengths": _grown(batch["second_lengths"], num_documents),
            "pair_first": _grown(batch["pair_first"], num_documents, fill=max(0, num_first - 1)),
            "first_slots": torch.arange(first_slots),
            "second_slots": torch.arange(second_slots),
            "prompt_ids": _grown(batch["prompt_ids"], batch_size, self.prompt_tokens),
            "prompt_slots": torch.arange(prompt_slots),
            "answer_index": _grown(answers, num_answers),
            "answer_targets": _grown(batch["answer_targets"], num_answers, fill=IGNORED),
            "padding_share": torch.tensor(1 - num_real / (first_slots + second_slots + prompt_slots))}
        for name in {"teacher_scores", "has_score"} & set(batch):
            fixed[name] = _grown(batch[name], num_documents)
        if "readout_targets" in batch:
            targets = batch["readout_targets"]
            fixed["readout_targets"] = _grown(targets, num_documents, targets.shape[1], IGNORED)
        return {**batch, **fixed}


def rounded(number: int, smallest: int = 1) -> int:
    """The next power of two, or ``smallest``: sizes that soon repeat, at most twice as large as they need be."""
    return max(smallest, 1 << max(0, number - 1).bit_length())


def rounded_texts(texts: CompressorInput) -> CompressorInput:
    """A compressor's input in a rounded shape: dummies behind what is real, whose memory is to be left out."""
    num_first, num_second = rounded(len(texts.first_ids)), rounded(len(texts.second_ids))
    first_tokens, second_tokens = (rounded(ids.shape[1], SMALLEST_TEXT) for ids in (texts.first_ids, texts.second_ids))
    return CompressorInput(
        _grown(texts.first_ids, num_first, first_tokens), _grown(texts.first_lengths, num_first),
        _grown(texts.second_ids, num_second, second_tokens), _grown(texts.second_lengths, num_second),
        _grown(texts.pair_first, num_second, fill=num_first - 1),
        torch.arange(num_first * first_tokens), torch.arange(num_second * second_tokens))


def rounded_prompts(prompts: Sequence[Sequence[int]], memory: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Prompts in a rounded shape (B, T) with their lengths (B,), a dummy's being 1, and the memory that fills them."""
    ids, lengths = pad(prompts)
    num_texts = rounded(len(ids))
    ids = _grown(ids, num_texts, rounded(ids.shape[1], SMALLEST_TEXT))
    memory = None if memory is None else _grown(memory, rounded(len(memory)))
    return ids, _grown(lengths, num_texts, fill=1), memory


def _grown(tensor: Tensor, num_rows: int, size: int | None = None, fill: int = 0) -> Tensor:
    """``tensor`` (N, ...) with ``num_rows`` rows, each of ``size``; ``fill`` is what is added."""
    more = num_rows - len(tensor)
    assert more >= 0, "a batch of more records or documents than its shape has room for"
    others = (0, 0) * (tensor.dim() - 1) if size is None else (0, size - tensor.shape[1])
    return F.pad(tensor, (*others, 0, more), value=fill)
