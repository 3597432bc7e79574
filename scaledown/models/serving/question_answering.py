"""From questions and documents (or memory) to answers: compress, choose, put prompts together, generate; in batches."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from scaledown.models.generator import Prompts
from scaledown.models.memory import Keep, Memory, check_keep_documents, documents_to_keep
from scaledown.models.processor import SHORTER_PROMPT, Processor
from scaledown.models.serving import streaming
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.user_input import Documents, check_number, check_texts

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel


@dataclass(frozen=True)
class Answer:
    """An answer with the documents that it was given, so that it can cite them.

    Attributes:
        text: what the generator said.
        documents: numbers of its documents in the list that was given, in the order in which they were read.
        scores: the relevance of each of these, or None without reranking.
    """

    text: str
    documents: tuple[int, ...]
    scores: tuple[float, ...] | None


@dataclass(frozen=True)
class Request:
    """The arguments of :meth:`ScaleDownModel.answer`, checked as a whole before anything is computed.

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
            ValueError: if the arguments contradict one another, or the model cannot do what they ask for.
        """
        if self.documents is not None and self.memory is not None:
            raise ValueError("give documents or memory, not both")
        check_number("max_new_tokens", self.max_new_tokens)
        check_number("batch_size", self.batch_size)
        if self.keep_documents is not None:
            check_keep_documents(self.keep_documents, model.config.enable_reranking, model.config.keep_threshold)

        # Memory was compressed with a number of its own.
        if self.memory is not None and self.num_memory_tokens is not None:
            raise ValueError("num_memory_tokens is chosen when documents are compressed: give it to compress")
        model.config.checked_memory_tokens(self.num_memory_tokens)

        check_texts(self.questions, [[] for _ in self.questions] if self.documents is None else self.documents)
        if self.memory is not None and len(self.memory) != len(self.questions):
            raise ValueError(f"{len(self.questions)} questions, but memory for {len(self.memory)}")
        _generation_config(model, self.max_new_tokens, self.options)


class _Batch(NamedTuple):
    """Some of the questions, by number, with their prompts, the documents in each prompt and their scores."""

    questions: list[int]
    prompts: Prompts
    documents: list[list[int]]
    scores: list[tuple[float, ...] | None]


def answers(model: ScaleDownModel, request: Request) -> list[Answer]:
    """Return the answers in the order of the questions."""
    by_question: dict[int, Answer] = {}
    for batch in _batches(model, request):
        texts = generate(model, batch.prompts, request.max_new_tokens, **request.options)
        for number, text, documents, scores in zip(batch.questions, texts, batch.documents, batch.scores, strict=True):
            by_question[number] = Answer(text, tuple(documents), scores)
    return [by_question[number] for number in range(len(request.questions))]


def stream(model: ScaleDownModel, request: Request) -> Iterator[streaming.Piece]:
    """Yield the answers as they grow, piece by piece."""
    criteria = request.options.get("stopping_criteria") or []

    def run(prompts: Prompts, streamer: BaseStreamer, stopping_criteria: list[StoppingCriteria]) -> None:
        options = request.options | {"streamer": streamer, "stopping_criteria": [*criteria, *stopping_criteria]}
        # The texts that it returns are not needed: their tokens came through the streamer.
        generate(model, prompts, request.max_new_tokens, **options)

    for batch in _batches(model, request):
        tokens = streaming.steps(partial(run, batch.prompts))
        yield from streaming.pieces(tokens, batch.questions, model.stop_ids, partial(to_text, model))


def generate(model: ScaleDownModel, prompts: Prompts, max_new_tokens: int, **options: Any) -> list[str]:
    """Return the answers to ``prompts``; sets ``prompts.num_new_tokens``."""
    config, others = _generation_config(model, max_new_tokens, options)
    limit = model.processor.position_limit
    if limit is not None:
        # An answer that passes the limit would change how its neighbours in the batch are read.
        longest = max(prompts.num_prompt_tokens, default=0) + config.max_new_tokens
        limit.check(longest, f"the longest prompt with an answer of {config.max_new_tokens} tokens",
                    f"{SHORTER_PROMPT}, or lower --max_new_tokens")

    with model.inference():
        ids = model.generator.generate(prompts, config, **others)                 # (B and dummies, S)

    # Dummies, which fill a batch up to a rounded shape, come last.
    prompts.num_new_tokens, texts = [], []
    for answer_ids in ids[:len(prompts.num_prompt_tokens)].tolist():
        text_ids = list(itertools.takewhile(lambda token: token not in model.stop_ids, answer_ids))
        # The end token counts, but an answer that was cut at its longest has none.
        prompts.num_new_tokens.append(min(len(text_ids) + 1, len(answer_ids)))
        texts.append(to_text(model, text_ids))
    return texts


def _generation_config(model: ScaleDownModel, max_new_tokens: int,
                       options: dict[str, Any]) -> tuple[GenerationConfig, dict[str, Any]]:
    """Return the config of ``generate``, greedy unless ``options`` say otherwise, and the options that are not in it.

    Raises:
        ValueError: if they ask for several answers to a question.
    """
    given = options.get("generation_config")
    config = GenerationConfig(do_sample=False) if given is None else copy.deepcopy(given)
    others = config.update(**{name: value for name, value in options.items() if name != "generation_config"})
    if (config.num_return_sequences or 1) != 1:
        raise ValueError("num_return_sequences must be 1: every question gets one answer; ask it several times")

    # Token ids alone: an answer is its text.
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


def _batches(model: ScaleDownModel, request: Request) -> Iterator[_Batch]:
    """Compress and choose documents and put the prompts together, for questions of similar length at a time."""
    all_documents = [[] for _ in request.questions] if request.documents is None else request.documents
    lengths = []
    for question, documents in zip(request.questions, all_documents, strict=True):
        lengths.append(len(question) + sum(map(len, documents)))
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)

    for start in range(0, len(by_length), request.batch_size):
        numbers = by_length[start:start + request.batch_size]
        questions = [request.questions[number] for number in numbers]
        if request.memory is None:
            documents = [all_documents[number] for number in numbers]
            memory = model.compress(questions, documents, request.batch_size, request.num_memory_tokens, request.cache)
        else:
            memory = request.memory.select(numbers)

        chosen_documents = documents_to_keep(memory, request.keep_documents, model.config.keep_threshold)
        if request.keep_documents is not None:
            memory = memory.keep(chosen_documents)

        scores: list[tuple[float, ...] | None] = [None] * len(numbers)
        if memory.scores is not None:
            # Without the padding behind a question's documents.
            scores = [tuple(padded[:len(of_question)])
                      for padded, of_question in zip(memory.scores.tolist(), chosen_documents, strict=True)]
        yield _Batch(numbers, model.prompts(questions, memory), chosen_documents, scores)
