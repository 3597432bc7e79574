"""From questions and documents (or memory) to answers: compress, choose, put prompts together, generate; in batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from scaledown.models.generator import Prompts
from scaledown.models.inputs import Documents, check_number, check_texts
from scaledown.models.memory import Memory
from scaledown.models.processor import SHORTER_PROMPT, Processor
from scaledown.models.selection import Answer, Keep, check, kept
from scaledown.models.serving import streaming
from scaledown.models.serving.cache import MemoryCache

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel


@dataclass(frozen=True)
class Asked:
    """What :meth:`ScaleDownModel.answer` was asked, checked as a whole before anything is computed.

    Attributes:
        options: of transformers' ``generate``.
    """

    questions: Sequence[str]
    documents: Documents | None = None
    memory: Memory | None = None
    max_new_tokens: int = 64
    batch_size: int = 8
    num_memory_tokens: int | None = None
    keep_documents: Keep = None
    cache: MemoryCache | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def check(self, model: ScaleDownModel) -> None:
        """Refuse what cannot be answered.

        Raises:
            ValueError: if its parts do not go together, or the model cannot do it.
        """
        if self.documents is not None and self.memory is not None:
            raise ValueError("give documents or memory, not both")
        check_number("max_new_tokens", self.max_new_tokens)
        check_number("batch_size", self.batch_size)
        if self.keep_documents is not None:
            check(self.keep_documents, model.config.enable_reranking, model.config.keep_threshold)
        if self.memory is not None and self.num_memory_tokens is not None:
            raise ValueError("num_memory_tokens is chosen where documents are compressed: give it to compress")
        model.config.checked_memory_tokens(self.num_memory_tokens)
        check_texts(self.questions, [[] for _ in self.questions] if self.documents is None else self.documents)
        if self.memory is not None and len(self.memory) != len(self.questions):
            raise ValueError(f"{len(self.questions)} questions, but memory for {len(self.memory)}")
        _generation_config(model, self.max_new_tokens, self.options)


@dataclass(frozen=True)
class _Batch:
    """Some of the questions, by number, their prompts, the documents of each and their scores."""

    questions: list[int]
    prompts: Prompts
    sources: list[tuple[int, ...]]
    scores: list[tuple[float, ...] | None]


def answers(model: ScaleDownModel, asked: Asked) -> list[Answer]:
    """Return the answers in the order of the questions."""
    found: dict[int, Answer] = {}
    for batch in _batches(model, asked):
        texts = generate(model, batch.prompts, asked.max_new_tokens, **asked.options)
        for number, *answer in zip(batch.questions, texts, batch.sources, batch.scores, strict=True):
            found[number] = Answer(*answer)
    return [found[number] for number in range(len(asked.questions))]


def stream(model: ScaleDownModel, asked: Asked) -> Iterator[streaming.Piece]:
    """Yield the answers as they grow, piece by piece."""
    own_criteria = asked.options.get("stopping_criteria") or []

    def run(prompts: Prompts, streamer: BaseStreamer, stopping_criteria: list[StoppingCriteria]) -> None:
        options = asked.options | {"streamer": streamer, "stopping_criteria": [*own_criteria, *stopping_criteria]}
        _generate_ids(model, prompts, asked.max_new_tokens, **options)

    for batch in _batches(model, asked):
        tokens = streaming.steps(partial(run, batch.prompts))
        yield from streaming.pieces(tokens, batch.questions, model.stop_ids, partial(to_text, model))


def generate(model: ScaleDownModel, prompts: Prompts, max_new_tokens: int, **options: Any) -> list[str]:
    """Return the answers to prompts that were read, and note their lengths there."""
    ids = _generate_ids(model, prompts, max_new_tokens, **options)
    rows = [until(row, model.stop_ids) for row in ids.tolist()][:len(prompts.num_prompt_tokens)]
    prompts.num_new_tokens = [min(len(row) + 1, ids.shape[1]) for row in rows]
    return [to_text(model, row) for row in rows]


def _generate_ids(model: ScaleDownModel, prompts: Prompts, max_new_tokens: int, **options: Any) -> Tensor:
    config, others = _generation_config(model, max_new_tokens, options)
    limit = model.processor.position_limit
    if limit is not None:
        # An answer that passes the limit would change how its neighbours in the batch are read.
        longest = max([0, *prompts.num_prompt_tokens]) + config.max_new_tokens
        limit.check(longest, f"the longest prompt with an answer of {config.max_new_tokens} tokens",
                    f"{SHORTER_PROMPT}, or lower --max_new_tokens")
    with model.inference():
        return model.generator.generate(prompts, config, **others)


def _generation_config(model: ScaleDownModel, max_new_tokens: int,
                       options: dict[str, Any]) -> tuple[GenerationConfig, dict[str, Any]]:
    """Return what ``generate`` is to do, greedy unless ``options`` say otherwise, and those that no config has.

    Raises:
        ValueError: if they ask for several answers to a question.
    """
    given = options.get("generation_config")
    config = GenerationConfig(do_sample=False) if given is None else copy.deepcopy(given)
    others = config.update(**{name: value for name, value in options.items() if name != "generation_config"})
    if (config.num_return_sequences or 1) != 1:
        raise ValueError("num_return_sequences must be 1: every question gets one answer; ask it several times")

    # An answer is its text.
    config.return_dict_in_generate = False
    if config.max_new_tokens is None:
        config.max_new_tokens = max_new_tokens
    if config.eos_token_id is None:
        config.eos_token_id = model.stop_ids
    if config.pad_token_id is None:
        config.pad_token_id = model.stop_ids[0]
    return config, others


def stop_ids(processor: Processor, base: PreTrainedModel) -> list[int]:
    """Return every token that ends an answer: the template's, the tokenizer's and the generation config's."""
    ends = base.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({processor.prompt.end_id, processor.tokenizer.eos_token_id, *ends} - {None})


def to_text(model: ScaleDownModel, ids: list[int]) -> str:
    """Return an answer's text."""
    text = model.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


def until(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    """Return ``ids`` up to the first that ends an answer."""
    end = next((place for place, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]


def _batches(model: ScaleDownModel, asked: Asked) -> Iterator[_Batch]:
    """Compress, choose and put the prompts together, of questions of like length."""
    documents = [[] for _ in asked.questions] if asked.documents is None else asked.documents
    order = sorted(range(len(asked.questions)), key=lambda number: _size(asked.questions[number], documents[number]))
    for start in range(0, len(order), asked.batch_size):
        numbers = order[start:start + asked.batch_size]
        questions = [asked.questions[number] for number in numbers]
        if asked.memory is None:
            memory = model.compress(questions, [documents[number] for number in numbers], asked.batch_size,
                                    asked.num_memory_tokens, asked.cache)
        else:
            memory = asked.memory.select(numbers)

        if asked.keep_documents is None:
            sources = [list(range(count)) for count in memory.num_documents.tolist()]
        else:
            sources = kept(memory, asked.keep_documents, model.config.keep_threshold)
            memory = memory.keep(sources)
        scores: list[Any] = [None] * len(numbers)
        if memory.scores is not None:
            scores = [tuple(row[:len(each)]) for row, each in zip(memory.scores.tolist(), sources, strict=True)]
        yield _Batch(numbers, model.prompts(questions, memory), [tuple(each) for each in sources], scores)


def _size(question: str, documents: Sequence[str]) -> int:
    return len(question) + sum(map(len, documents))
