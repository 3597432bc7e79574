"""Batches of a run: the order of the records, the micro-batches of each process, and their shapes.

Order: random, but records of similar length share a batch. Attention pads prompts to the longest of their batch; in
purely random batches of real questions a sixth or more of its work is padding.

Micro-batches: every process draws the same records for a step and takes its share of them. So a step does not depend on
the number of processes, nor on the number of micro-batches into which each divides its share to save memory.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from scaledown.config import ENCODER, ScaleDownConfig, TrainingConfig
from scaledown.models.engine.fixed_shapes import Shapes
from scaledown.models.engine.moving import Parcel
from scaledown.models.losses import IGNORED
from scaledown.models.model import ScaleDownModel
from scaledown.models.processor import Processor
from scaledown.progress import Bar
from scaledown.training.devices import check_compiler, wants_one_shape
from scaledown.training.optimizer import IN_8_BITS

CHARACTERS_A_TOKEN = 4
MEASURED_TOGETHER = 64
"""Records that are tokenised at one time to measure their lengths."""


@dataclass(frozen=True)
class StepCollator:
    """Turns the records of a step into the micro-batches of this process; all processes get the same number of them.

    Attributes:
        processor: collates; all micro-batches of a step have one number of memory tokens.
        config: the size of a step and its number of micro-batches.
        shapes: the one shape of all batches; if None, each is as large as its records need.
        rank: the number of this process, of ``num_processes``.
    """

    processor: Processor
    config: TrainingConfig
    shapes: Shapes | None = None
    rank: int = 0
    num_processes: int = 1

    @property
    def part_size(self) -> int:
        """The largest number of records in a micro-batch."""
        return self.config.batch_size // (self.num_processes * self.config.gradient_accumulation_steps)

    def __call__(self, records: Sequence[Any]) -> list[Parcel]:
        """Return the micro-batches of this process, packed; each also has the ``record_ids`` of its records."""
        num_memory_tokens = draw_memory_tokens(records, self.processor.config.memory_token_choices)
        text_documents = draw_text_documents(records, self.config.train_text_documents)
        without_query = draw_without_query(records, self.config.query_dropout)
        # One micro-batch of every process at a time; process r takes records r, r + n, r + 2n, ... of these.
        size = self.part_size * self.num_processes
        batches = []
        for start in range(0, len(records), size):
            own = slice(start + self.rank, start + size, self.num_processes)
            texts = None if text_documents is None else text_documents[own]
            batches.append(Parcel.of(self._batch(records[own], records[0], num_memory_tokens, texts,
                                                 without_query[own])))
        return batches

    def _batch(self, records: Sequence[Any], stand_in: Any, num_memory_tokens: int,
               text_documents: Sequence[Sequence[int]] | None, without_query: Sequence[bool]) -> dict[str, Any]:
        """Collate ``records``; if there are none left for this process, ``stand_in`` with no target that counts."""
        if text_documents is not None:
            text_documents = text_documents or [()]
        batch = self.processor.collate(records or [stand_in], self.config.answer_tokens, num_memory_tokens,
                                       with_readout=self.config.readout_loss_weight > 0, shapes=self.shapes,
                                       batch_size=self.part_size, text_documents=text_documents,
                                       without_query=without_query or [False])

        # All processes run the same number of passes, or those that run more would wait for the others forever.
        if not records:
            for name in {"answer_targets", "readout_targets"} & batch.keys():
                batch[name] = torch.full_like(batch[name], IGNORED)
            if "has_score" in batch:
                batch["has_score"] = torch.zeros_like(batch["has_score"])
        return batch | {"record_ids": [record.id for record in records]}


def draw_memory_tokens(records: Sequence[Any], numbers: Sequence[int]) -> int:
    """Draw one of the numbers of memory tokens that are trained together, for a step."""
    return _drawing_for(records).choice(numbers)


def draw_without_query(records: Sequence[Any], query_dropout: float) -> list[bool]:
    """Draw for each record of a step whether its documents are compressed without the query: this share of them."""
    rng = _drawing_for(records, "without query")
    return [rng.random() < query_dropout for _ in records]


def draw_text_documents(records: Sequence[Any], numbers: Sequence[int] | None) -> list[list[int]] | None:
    """Draw the documents that a step's prompts have as text: first one of ``numbers``, then as many of each record.

    Any document may be drawn, also one that does not answer: so the generator learns to look for the answer in both
    texts and memory.
    """
    if numbers is None:
        return None
    rng = _drawing_for(records, "texts")
    number = rng.choice(numbers)
    drawn = []
    for record in records:
        count = len(record.documents)
        drawn.append(sorted(rng.sample(range(count), min(number, count))))
    return drawn


def _drawing_for(records: Sequence[Any], *what: str) -> random.Random:
    """Return a source of draws for a step on ``records``.

    Their texts seed it: a resumed run draws as one that never stopped, and all processes draw alike.

    Args:
        records: of the step, over all processes.
        what: is drawn, so that draws of several kinds do not go together.
    """
    return random.Random("\n".join([*what, *(f"{record.query} {record.answer}" for record in records)]))


def shapes_of(records: Sequence[Any], processor: Processor, answer_tokens: int | None = None) -> Shapes:
    """Return the shape of batches that any of ``records`` fits; all of them are tokenised once.

    The model must have one number of memory tokens.
    """
    config = processor.config
    kind = (config.input_order == "document_first", config.reads_with == ENCODER)
    largest = Shapes(1, 1, 1, 1, 0, 0, *kind)

    starts = range(0, len(records), MEASURED_TOGETHER)
    for start in Bar(starts, "measuring the records", disable=len(starts) == 1):
        # By number: records may come from a dataset, which has no slices.
        numbers = range(start, min(start + MEASURED_TOGETHER, len(records)))
        chunk = [records[number] for number in numbers]
        batch = processor.collate(chunk, answer_tokens)

        # The padded form of a batch is as long as its longest text.
        packing, reads = batch["documents"].packing, batch["documents"].reads
        of_chunk = Shapes(
            packing.prefixes.positions.shape[1], packing.suffixes.positions.shape[1],
            batch["prompts"].packing.prefixes.positions.shape[1],
            max(len(processor.answer_ids(record.answer, answer_tokens)) for record in chunk),
            max(len(record.documents) for record in chunk),
            max(reads.prefixes.positions.shape[1], reads.suffixes.positions.shape[1]), *kind)
        largest = Shapes(*map(max, dataclasses.astuple(largest), dataclasses.astuple(of_chunk)))
    return largest


def prompt_sizes(records: Sequence[Any], config: ScaleDownConfig) -> list[int]:
    """Return about how many tokens each record's prompt and answer take, without tokenising them."""
    sizes = []
    for record in records:
        # A document takes its memory tokens and a separator, or the text that is left of it.
        of_documents = len(record.documents) * (config.num_memory_tokens + (config.keep_numbers or 0) + 1)
        if config.reads_text:
            of_documents = sum(min(len(document) // CHARACTERS_A_TOKEN, config.document_tokens)
                               for document in record.documents)
        sizes.append(of_documents + (len(record.query) + len(record.answer)) // CHARACTERS_A_TOKEN)
    return sizes


class LikeLengthSampler(Sampler[int]):
    """Random batches of records of similar length; the order depends on the seed and the epoch alone.

    Args:
        sizes: of each record, in any unit.
        batch_size: the global one.
        seed: of the order.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int) -> None:
        self.sizes, self.batch_size, self.seed, self.epoch = list(sizes), batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.sizes)

    def set_epoch(self, epoch: int) -> None:
        """Draw another order; the trainer calls this, also when a run is resumed."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.sizes, self.batch_size, generator=generator))


def check_shard(config: TrainingConfig, model: ScaleDownConfig) -> None:
    """Refuse ``--shard`` beside settings that it does not go with.

    Raises:
        ValueError: with all of them, and the reason of each.
    """
    if not config.shard:
        return

    # All of them are told together.
    faults = []
    if config.compile:
        faults.append("--compile")
    if model.load_in_4bit or model.load_in_8bit:
        faults.append(f"--load_in_{4 if model.load_in_4bit else 8}bit")
    if config.optimizer in IN_8_BITS:
        faults.append(f"--optimizer {config.optimizer} (it cannot step sharded weights)")
    if model.compressor_lora_rank is not None:
        faults.append(f"--compressor_lora_rank {model.compressor_lora_rank} (compressor and generator may share "
                      "weights)")
    if faults:
        raise ValueError(f"--shard does not go with {', nor with '.join(faults)}; of the presets of large GPUs, paper "
                         "has none of these")


def pads_to_max(config: TrainingConfig, model: ScaleDownModel) -> bool:
    """Return whether all batches get one shape, padded to the longest texts of all records.

    ``--compile``, ``--shard`` and devices that compile a program for each shape need that; elsewhere it costs time.

    Raises:
        ValueError: if they need one shape and cannot have it, or if the step cannot be compiled.
    """
    check_shard(config, model.config)
    if config.shard and model.dtype == torch.float16:
        raise ValueError("--shard does not go with --dtype float16 (its scaled gradients): give --dtype float32")
    if not (config.compile or config.shard or wants_one_shape(model.device)):
        return False

    if config.compile:
        check_compiler(model.device)

    # Each number of memory tokens, and each choice of texts, gives prompts of another length.
    reason = "--compile" if config.compile else "--shard" if config.shard else "Trainium"
    if any(config.train_text_documents or ()):
        numbers = " ".join(map(str, config.train_text_documents))
        raise ValueError(f"{reason} needs batches of one shape: --train_text_documents {numbers} would give batches of "
                         "many shapes; leave it out")
    if len(choices := model.config.memory_token_choices) > 1:
        raise ValueError(f"{reason} needs batches of one shape: --train_memory_tokens {' '.join(map(str, choices))} "
                         f"would give batches of {len(choices)} shapes; train one number of memory tokens")
    return True
