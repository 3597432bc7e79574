"""From questions and documents (or memory) to answers: compress, choose, put prompts together, generate; in batches."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from scaledown.models.generator import Prompts
from scaledown.models.loading.model_fingerprint import fingerprint
from scaledown.models.memory import Keep, Memory, by_score, check_keep_documents, documents_to_keep
from scaledown.models.processor import SHORTER_PROMPT, Processor
from scaledown.models.serving import streaming
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.compressing import check_compresses, compress
from scaledown.models.serving.text_documents import (
    TextDocuments,
    check_memory_of,
    in_places,
    read_text_documents,
    some_of,
)
from scaledown.models.serving.user_input import Documents, Questions, UserInput, check_number, read_input
from scaledown.progress import Bar

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel


@dataclass(frozen=True)
class Answer:
    """An answer with the documents that it was given, so that it can cite them.

    Attributes:
        text: what the generator said.
        documents: numbers of its documents in the list that was given, in the order in which they were read.
        scores: the relevance of each of these; None without reranking, and if the texts were named, since these are not
            compressed.
        document_ids: the id of each of these: as it was given, else a hash of the text; None for memory that does not
            know them.
        text_documents: those of ``documents`` that were read as text, not from memory.
    """

    text: str
    documents: tuple[int, ...]
    scores: tuple[float, ...] | None
    document_ids: tuple[str, ...] | None = None
    text_documents: tuple[int, ...] = ()


class Generation(NamedTuple):
    """The config of transformers' ``generate``, and its options that are not in it."""

    config: GenerationConfig
    others: dict[str, Any]


@dataclass(frozen=True)
class Request:
    """The arguments of :meth:`ScaleDownModel.answer`, read and checked; see :func:`checked_request`."""

    given: UserInput
    memory: Memory | None
    batch_size: int
    num_memory_tokens: int | None
    keep_documents: Keep
    cache: MemoryCache | None
    show_progress_bar: bool
    generation: Generation
    text_documents: int | list[list[int]] = 0


def checked_request(model: ScaleDownModel, questions: Questions, documents: Documents | None = None,
                    memory: Memory | None = None, max_new_tokens: int = 64, batch_size: int = 8,
                    num_memory_tokens: int | None = None, keep_documents: Keep = None,
                    cache: MemoryCache | None = None, show_progress_bar: bool = False,
                    options: dict[str, Any] | None = None, text_documents: TextDocuments = None) -> Request:
    """Return a request that can be answered, before anything is computed.

    Args:
        options: of transformers' ``generate``.

    Raises:
        ValueError: if the arguments contradict one another, or the model cannot do what they ask for.
    """
    if documents is not None and memory is not None and text_documents is None:
        raise ValueError("give documents or memory, not both, unless text_documents says which documents are read as "
                         "text")
    check_number("max_new_tokens", max_new_tokens)
    check_number("batch_size", batch_size)
    if any(value is not None for value in (memory, num_memory_tokens, keep_documents, cache, text_documents)):
        check_compresses(model)
    if keep_documents is not None:
        check_keep_documents(keep_documents, model.config.enable_reranking, model.config.keep_threshold)

    # Memory was compressed with a number of its own.
    if memory is not None and num_memory_tokens is not None:
        raise ValueError("num_memory_tokens is chosen when documents are compressed: give it to compress")
    model.processor.checked_memory_tokens(num_memory_tokens)

    given = read_input(questions, documents)
    if memory is not None:
        memory.check(given.questions, fingerprint(model))
    if documents is not None and memory is not None:
        check_memory_of(given, memory)
    if text_documents and documents is None:
        raise ValueError("text_documents needs the documents, also beside their memory, which has no texts")
    as_text = read_text_documents(text_documents, given, keep_documents, model.config.enable_reranking)
    generation = generation_of(model, max_new_tokens, options or {})
    return Request(given, memory, batch_size, num_memory_tokens, keep_documents, cache, show_progress_bar, generation,
                   as_text)


class PromptBatch(NamedTuple):
    """Some of the questions, by number, with their prompts, and for each its answer's sources."""

    questions: list[int]
    prompts: Prompts
    sources: list[Answer]


def answers(model: ScaleDownModel, request: Request) -> list[Answer]:
    """Return the answers in the order of the questions."""
    by_question: dict[int, Answer] = {}
    for batch in batches(model, request):
        texts = generate(model, batch.prompts, request.generation)
        for number, text, source in zip(batch.questions, texts, batch.sources, strict=True):
            by_question[number] = dataclasses.replace(source, text=text)
    return [by_question[number] for number in range(len(request.given.questions))]


def stream(model: ScaleDownModel, request: Request) -> Iterator[streaming.Piece]:
    """Yield the answers as they grow, piece by piece."""
    config, others = request.generation
    criteria = others.get("stopping_criteria") or []

    def run(prompts: Prompts, streamer: BaseStreamer, stopping_criteria: list[StoppingCriteria]) -> None:
        options = others | {"streamer": streamer, "stopping_criteria": [*criteria, *stopping_criteria]}
        # The texts that it returns are not needed: their tokens came through the streamer.
        generate(model, prompts, Generation(config, options))

    for batch in batches(model, request):
        tokens = streaming.steps(partial(run, batch.prompts))
        yield from streaming.pieces(tokens, batch.questions, model.stop_ids, partial(to_text, model))


def prompts_of(model: ScaleDownModel, request: Request) -> Prompts:
    """Return the prompts of all questions of a request, in one batch."""
    return _batch(model, request, list(range(len(request.given.questions)))).prompts


def prompt_embeds(model: ScaleDownModel, request: Request) -> list[Tensor]:
    """Return the prompt of each question as embeddings (T, D)."""
    prompts = prompts_of(model, request)
    # Without the padding, which is on the left; dummies of a rounded shape come last and are dropped.
    padded = zip(prompts.embeddings.to(model.dtype), prompts.num_prompt_tokens, strict=False)
    return [embeddings[len(embeddings) - length:] for embeddings, length in padded]


def text_prompts(model: ScaleDownModel, given: UserInput, document_tokens: int | None = None,
                 with_adapter: bool = False) -> Prompts:
    """Return the prompts of questions with their documents in full text; see :meth:`ScaleDownModel.prefill_text`."""
    with model.inference():
        ids = model.processor.text_prompts(given.questions, given.documents, document_tokens)
        return model.generator.prompts(ids, None, with_adapter)


def generate(model: ScaleDownModel, prompts: Prompts, generation: Generation) -> list[str]:
    """Return the answers to ``prompts``; sets ``prompts.num_new_tokens``."""
    config, others = generation
    limit = model.processor.position_limit
    if limit is not None:
        # An answer that passes the limit would change how its neighbours in the batch are read.
        longest = max(prompts.num_prompt_tokens, default=0) + config.max_new_tokens
        limit.check(longest, f"the longest prompt with an answer of {config.max_new_tokens} tokens",
                    f"{SHORTER_PROMPT}, or lower max_new_tokens")

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


def generation_of(model: ScaleDownModel, max_new_tokens: int, options: dict[str, Any]) -> Generation:
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
    return Generation(config, others)


def stop_ids(processor: Processor, base: PreTrainedModel) -> list[int]:
    """Return every token that ends an answer: the template's, the tokenizer's and the generation config's."""
    ends = base.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({processor.prompt.end_id, processor.tokenizer.eos_token_id, *ends} - {None})


def to_text(model: ScaleDownModel, ids: list[int]) -> str:
    """Return an answer's text."""
    text = model.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


def batches(model: ScaleDownModel, request: Request) -> Iterator[PromptBatch]:
    """Compress and choose documents and put the prompts together, for questions of similar length at a time."""
    given = request.given
    lengths = []
    for question, documents in zip(given.questions, given.documents, strict=True):
        lengths.append(len(question) + sum(map(len, documents)))
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)

    # It counts a question once its answer is there: when the next batch is asked for.
    bar = Bar(total=len(by_length), desc="answering", unit="question", disable=not request.show_progress_bar)
    with bar:
        for start in range(0, len(by_length), request.batch_size):
            numbers = by_length[start:start + request.batch_size]
            yield _batch(model, request, numbers)
            bar.update(len(numbers))


def _batch(model: ScaleDownModel, request: Request, numbers: list[int]) -> PromptBatch:
    """Return the questions with these numbers, ready to be answered together."""
    given = request.given.select(numbers)
    if model.config.reads_text:
        # All documents, as they are; only a compressor could choose among them.
        sources = []
        for ids in given.document_ids:
            documents = tuple(range(len(ids)))
            sources.append(Answer("", documents, None, tuple(ids), documents))
        return PromptBatch(numbers, text_prompts(model, given, with_adapter=True), sources)

    memory = None if request.memory is None else request.memory.select(numbers)
    if isinstance(request.text_documents, int):
        memory, sources = _chosen_by_score(model, request, given, memory)
    else:
        named = [request.text_documents[number] for number in numbers]
        memory, sources = _named_as_text(model, request, given, memory, named)

    documents, as_text = [source.documents for source in sources], [source.text_documents for source in sources]
    texts = in_places(given, documents, as_text) if any(as_text) else None
    return PromptBatch(numbers, model.prompts(given.questions, memory, texts), sources)


def _chosen_by_score(model: ScaleDownModel, request: Request, given: UserInput,
                     memory: Memory | None) -> tuple[Memory, list[Answer]]:
    """Return the memory that the prompts read, and the answers' sources; the best documents kept may become text."""
    if memory is None:
        memory = compress(model, given, request.batch_size, request.num_memory_tokens, request.cache)
    kept = documents_to_keep(memory, request.keep_documents, model.config.keep_threshold)

    sources, from_memory = [], []
    for question, documents in enumerate(kept):
        scores, as_text = None, []
        if memory.scores is not None:
            all_scores = memory.scores[question].tolist()
            scores = tuple(all_scores[number] for number in documents)
            # The places of the best among those kept, in the order of the prompt.
            best = sorted(by_score(scores)[:request.text_documents])
            as_text = [documents[place] for place in best]
        ids = None
        if memory.origin is not None:
            ids = tuple(memory.origin.document_ids[question][number] for number in documents)
        from_memory.append([number for number in documents if number not in as_text])
        sources.append(Answer("", tuple(documents), scores, ids, tuple(as_text)))

    # All documents stay in memory, unless asked otherwise.
    if request.keep_documents is not None or request.text_documents:
        memory = memory.keep(from_memory)
    return memory, sources


def _named_as_text(model: ScaleDownModel, request: Request, given: UserInput, memory: Memory | None,
                   named: list[list[int]]) -> tuple[Memory, list[Answer]]:
    """Return the memory that the prompts read, and the answers' sources; documents that are named need no memory."""
    sources, from_memory = [], []
    for ids, as_text in zip(given.document_ids, named, strict=True):
        documents = range(len(ids))
        from_memory.append([number for number in documents if number not in as_text])
        sources.append(Answer("", tuple(documents), None, tuple(ids), tuple(as_text)))

    if memory is None:
        memory = compress(model, some_of(given, from_memory), request.batch_size, request.num_memory_tokens,
                          request.cache)
    else:
        memory = memory.keep(from_memory)
    return memory, sources
