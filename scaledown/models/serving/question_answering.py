"""From questions and documents (or memory) to answers: compress, choose, put prompts together, generate; in batches."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from scaledown.config import CUT, SPLIT
from scaledown.models.generator import Prompts
from scaledown.models.loading.model_fingerprint import fingerprint
from scaledown.models.memory import Memory
from scaledown.models.processor import SHORTER_PROMPT, Processor
from scaledown.models.serving import streaming
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.choosing import Keep, check_keep_documents, check_keep_tokens, check_scored
from scaledown.models.serving.compressing import check_compresses
from scaledown.models.serving.inputs.long_documents import split_input
from scaledown.models.serving.inputs.user_input import (
    Documents,
    Questions,
    UserInput,
    check_number,
    check_type,
    read_input,
)
from scaledown.models.serving.prompt_sources import Sources, chosen_by_score, named_as_text, whole_texts
from scaledown.models.serving.text_documents import (
    WHOLE,
    TextDocuments,
    check_memory_of,
    read_text_documents,
    texts_to_read,
)
from scaledown.progress import Bar

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel


@dataclass(frozen=True)
class Answer:
    """An answer with the documents that it was given, so that it can cite them.

    Attributes:
        text: what the generator said.
        documents: numbers of its documents in the list that was given, in the order in which they were read; a long
            document stands here once for each of its passages that was read.
        scores: the relevance of each of these; None without reranking, and if the texts were named, since these are not
            compressed.
        document_ids: the id of each of these: as it was given, else a hash of the text; None for memory that does not
            know them.
        passages: for each of these the number of its passage, 0 for a document that was read whole; None for memory
            that does not know them.
        spans: for each of these the characters that were read, (start, end) in the text of the document without its
            title; None as ``passages``.
        text_documents: numbers of the documents that were read as text, or of which a passage was; not from memory.
    """

    text: str
    documents: tuple[int, ...]
    scores: tuple[float, ...] | None
    document_ids: tuple[str, ...] | None = None
    passages: tuple[int, ...] | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    text_documents: tuple[int, ...] = ()

    @classmethod
    def of(cls, text: str, read: Sources) -> Answer:
        """Return an answer that was given to the documents and passages of ``read``."""
        documents = tuple(read.numbers)
        if read.passages is not None:
            documents = tuple(passage.document for passage in read.passages)
        pairs = zip(documents, read.texts or [], strict=bool(read.texts))
        as_text = tuple(sorted({document for document, text_of_it in pairs if text_of_it is not None}))
        if read.passages is None:
            return cls(text, documents, read.scores, read.document_ids, text_documents=as_text)
        return cls(text, documents, read.scores, read.document_ids,
                   tuple(passage.number for passage in read.passages),
                   tuple((passage.start, passage.end) for passage in read.passages), as_text)


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
    long_documents: str
    keep_tokens: int | None = None
    text_documents: int | list[list[int]] = 0


def checked_request(model: ScaleDownModel, questions: Questions, documents: Documents | None = None,
                    memory: Memory | None = None, max_new_tokens: int = 64, batch_size: int = 8,
                    num_memory_tokens: int | None = None, keep_documents: Keep = None,
                    cache: MemoryCache | None = None, show_progress_bar: bool = False,
                    options: dict[str, Any] | None = None, long_documents: str | None = None,
                    keep_tokens: int | None = None, text_documents: TextDocuments = None) -> Request:
    """Return a request that can be answered, before anything is computed.

    Args:
        options: of transformers' ``generate``.

    Raises:
        ValueError: if the arguments contradict one another, or the model cannot do what they ask for.
    """
    if documents is not None and memory is not None and text_documents is None:
        raise ValueError("give documents or memory, not both, unless text_documents says which are read as text")
    check_number("max_new_tokens", max_new_tokens)
    check_number("batch_size", batch_size)
    of_memory = (memory, num_memory_tokens, keep_documents, keep_tokens, cache, text_documents)
    if any(value is not None for value in of_memory):
        check_compresses(model)
    check_type("memory", memory, Memory)
    check_type("cache", cache, MemoryCache)
    if keep_documents is not None:
        check_keep_documents(keep_documents, model.config.enable_reranking, model.config.keep_threshold)

    # Memory was compressed with a number of its own.
    if memory is not None and num_memory_tokens is not None:
        raise ValueError("num_memory_tokens is chosen when documents are compressed: give it to compress")
    if memory is not None and long_documents is not None:
        raise ValueError("long_documents is chosen when documents are compressed: give it to compress")
    num_memory = model.processor.checked_memory_tokens(num_memory_tokens)
    if keep_tokens is not None:
        num_memory = num_memory if memory is None else memory.embeddings.shape[2]
        check_keep_tokens(keep_tokens, model.config.enable_reranking, num_memory + (model.config.keep_numbers or 0))
    long_documents = model.long_documents_or(long_documents)

    given = read_input(questions, documents)
    if memory is not None:
        memory = memory.checked(given.questions, fingerprint(model))
    if documents is not None and memory is not None:
        # Its documents were split when it was made, or none of them was.
        long_documents = SPLIT if memory.origin is not None and memory.origin.has_split_documents else CUT
        check_memory_of(split_input(model.processor, given, long_documents)[0], memory)
    if text_documents and documents is None:
        raise ValueError("text_documents needs the documents, also beside their memory, which has no texts")
    is_chosen = keep_documents is not None or keep_tokens is not None
    as_text = read_text_documents(text_documents, given, is_chosen, model.config.enable_reranking)
    _check_scores(memory, is_chosen, as_text)
    generation = generation_of(model, max_new_tokens, options or {})
    return Request(given, memory, batch_size, num_memory_tokens, keep_documents, cache, show_progress_bar, generation,
                   long_documents, keep_tokens, as_text)


def _check_scores(memory: Memory | None, is_chosen: bool, as_text: int | list[list[int]]) -> None:
    """Refuse memory without scores for documents that are chosen by score."""
    # A number of documents to read as text are those that score best.
    is_chosen = is_chosen or (isinstance(as_text, int) and as_text > 0)
    if memory is not None and is_chosen:
        check_scored(memory)


class PromptBatch(NamedTuple):
    """Some of the questions, by number, with their prompts, and what is in each prompt."""

    questions: list[int]
    prompts: Prompts
    sources: list[Sources]


def answers(model: ScaleDownModel, request: Request) -> list[Answer]:
    """Return the answers in the order of the questions."""
    by_question: dict[int, Answer] = {}
    for batch in batches(model, request):
        texts = generate(model, batch.prompts, request.generation)
        for number, text, read in zip(batch.questions, texts, batch.sources, strict=True):
            by_question[number] = Answer.of(text, read)
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
                 with_adapter: bool = False, long_documents: str | None = None) -> Prompts:
    """Return the prompts of questions with their documents in full text; see :meth:`ScaleDownModel.prefill_text`."""
    documents, document_tokens = texts_to_read(model.processor, given, document_tokens,
                                               model.long_documents_or(long_documents))
    with model.inference():
        ids = model.processor.text_prompts(given.questions, documents, document_tokens)
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
        prompts = text_prompts(model, given, with_adapter=True, long_documents=request.long_documents)
        return PromptBatch(numbers, prompts, whole_texts(model, given, request.long_documents))

    memory = None if request.memory is None else request.memory.select(numbers)
    if isinstance(request.text_documents, int):
        memory, sources = chosen_by_score(model, request, given, memory)
    else:
        named = [request.text_documents[number] for number in numbers]
        memory, sources = named_as_text(model, request, given, memory, named)

    texts = None
    if any(read.texts for read in sources):
        texts = [read.texts or [None] * len(read.numbers) for read in sources]
    document_tokens = WHOLE if request.long_documents == SPLIT else None
    return PromptBatch(numbers, model.prompts(given.questions, memory, texts, document_tokens), sources)
