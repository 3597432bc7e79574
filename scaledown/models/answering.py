"""What a model does with compressed documents: read prompts, answer from them, whole or as the text grows, rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor

from scaledown.config import ScaleDownConfig
from scaledown.models.generator import DecodingState, Generator
from scaledown.models.inputs import Documents, check_number, check_texts
from scaledown.models.memory import Memory
from scaledown.models.memory_cache import MemoryCache
from scaledown.models.pieces import Piece, pieces
from scaledown.models.processor import SHORTER_PROMPT, Processor
from scaledown.models.selection import Answer, Keep, by_score, check, kept


class _Batch(NamedTuple):
    """Some of the questions, by number, their prompts read; with the documents of each and their scores."""

    questions: list[int]
    state: DecodingState
    sources: list[tuple[int, ...]]
    scores: list[tuple[float, ...] | None]


class Answering:
    """The half of :class:`ScaleDownModel` that answers; the other half builds, compresses, trains and saves."""

    config: ScaleDownConfig
    processor: Processor
    generator: Generator
    device: torch.device
    dtype: torch.dtype
    _stop_ids: list[int]
    compress: Callable[..., Memory]
    _inference: Callable[[], AbstractContextManager]

    def prefill(self, questions: Sequence[str], memory: Memory) -> DecodingState:
        """Read the prompts of ``questions`` with their documents' memory; :meth:`decode` goes on from there."""
        with self._inference():
            prompts = self._memory_prompts(questions, memory)
            return self.generator.prefill(prompts, memory.pairs(), start=self.processor.prompt.start)

    def prefill_text(self, questions: Sequence[str], documents: Documents,
                     document_tokens: int | None = None) -> DecodingState:
        """Read the same prompts in full text with LoRA off: the generator as it was, for comparison.

        Args:
            document_tokens: each document is cut there [``config.document_tokens``, what the compressor reads].
        """
        check_texts(questions, documents)
        with self._inference():
            prompts = self.processor.text_prompts(questions, documents, document_tokens)
            return self.generator.prefill(prompts, None, with_adapter=False, start=self.processor.prompt.start)

    def decode(self, state: DecodingState, max_new_tokens: int) -> list[str]:
        """Greedy answers; sets ``state.num_new_tokens``.

        Raises:
            ValueError: if the prompt and an answer of ``max_new_tokens`` go beyond what the generator reads exactly.
        """
        check_number("max_new_tokens", max_new_tokens)
        self._check_positions(state, max_new_tokens)
        with self._inference():
            answers = self.generator.decode(state, max_new_tokens, self._stop_ids)
        return [self._text(ids) for ids in answers]

    def answer(self, questions: Sequence[str], documents: Documents | None = None, memory: Memory | None = None,
               max_new_tokens: int = 64, batch_size: int = 8, num_memory_tokens: int | None = None,
               keep_documents: Keep = None, cache: MemoryCache | None = None,
               stream: bool = False) -> list[str] | Iterator[Piece]:
        """Answer questions from their documents, or from memory that :meth:`compress` gave.

        Any number of documents a question, none included; questions of like length are answered together, and the
        answers come back in the order of the questions.

        Args:
            keep_documents: give the generator the best so many of a question's documents, or with "auto" those that
                score above the calibrated threshold [all, in the order given].
            cache: compress only documents that it does not know with their question.
            stream: hand on the answers as they grow, piece by piece, each with the number of its question.

        Raises:
            ValueError: where both are given, they do not go together with the questions, or the model cannot choose.
        """
        how = (batch_size, num_memory_tokens, keep_documents, cache)
        if stream:
            self._check(questions, documents, memory, max_new_tokens, *how[:-1])
            return self._stream(self._read(questions, documents, memory, *how), max_new_tokens)
        return [answer.text for answer in self.answer_with_sources(questions, documents, memory, max_new_tokens, *how)]

    def answer_with_sources(self, questions: Sequence[str], documents: Documents | None = None,
                            memory: Memory | None = None, max_new_tokens: int = 64, batch_size: int = 8,
                            num_memory_tokens: int | None = None, keep_documents: Keep = None,
                            cache: MemoryCache | None = None) -> list[Answer]:
        """As :meth:`answer`, each answer with the documents that it was given, their order and their scores."""
        self._check(questions, documents, memory, max_new_tokens, batch_size, num_memory_tokens, keep_documents)
        answers: dict[int, Answer] = {}
        for batch in self._read(questions, documents, memory, batch_size, num_memory_tokens, keep_documents, cache):
            texts = self.decode(batch.state, max_new_tokens)
            answers |= {number: Answer(text, sources, scores) for number, text, sources, scores in
                        zip(batch.questions, texts, batch.sources, batch.scores, strict=True)}
        return [answers[number] for number in range(len(questions))]

    def prompt_embeds(self, questions: Sequence[str], documents: Documents | None = None,
                      memory: Memory | None = None) -> list[Tensor]:
        """What the generator reads, one (T, D) for each question: the prompt with its documents' memory.

        This is what vLLM's ``prompt_embeds`` and transformers' ``generate(inputs_embeds=...)`` take, for the generator
        that :meth:`ScaleDownModel.merge` makes.

        Raises:
            ValueError: as :meth:`answer`.
        """
        self._check(questions, documents, memory)
        if memory is None:
            memory = self.compress(questions, [[] for _ in questions] if documents is None else documents)
        with self._inference():
            prompts = self._memory_prompts(questions, memory)
            ids = torch.tensor([token for prompt in prompts for token in prompt], dtype=torch.long, device=self.device)
            embeddings = self.generator.splice(ids, memory.pairs()).to(self.dtype)
        return list(embeddings.split([len(prompt) for prompt in prompts])) if prompts else []

    def rerank(self, question: str, documents: Sequence[str]) -> tuple[list[int], list[float]]:
        """Documents by relevance, best first: their numbers, and each one's score in the order given.

        Raises:
            ValueError: for a model without a reranking head.
        """
        if not self.config.enable_reranking:
            raise ValueError("this model has no reranking head; train one with --enable_reranking")
        scores = self.compress([question], [documents]).scores[0].tolist()
        return by_score(scores), scores

    def _check(self, questions: Sequence[str], documents: Documents | None, memory: Memory | None,
               max_new_tokens: int = 1, batch_size: int = 1, num_memory_tokens: int | None = None,
               keep_documents: Keep = None) -> None:
        """Refuse at once what cannot be answered, also where the answers are only read later."""
        if documents is not None and memory is not None:
            raise ValueError("give documents or memory, not both")
        check_number("max_new_tokens", max_new_tokens)
        check_number("batch_size", batch_size)
        check(keep_documents, self.config.enable_reranking, self.config.keep_threshold)
        if memory is not None and num_memory_tokens is not None:
            raise ValueError("num_memory_tokens is chosen where documents are compressed: give it to compress")
        self.config.checked_memory_tokens(num_memory_tokens)
        check_texts(questions, [[] for _ in questions] if documents is None else documents)
        if memory is not None and len(memory) != len(questions):
            raise ValueError(f"{len(questions)} questions, but memory for {len(memory)}")

    def _read(self, questions: Sequence[str], documents: Documents | None, memory: Memory | None, batch_size: int,
              num_memory_tokens: int | None, keep_documents: Keep, cache: MemoryCache | None) -> Iterator[_Batch]:
        """Compress, choose and read the prompts of questions of like length together."""
        documents = [[] for _ in questions] if documents is None else documents
        order = sorted(range(len(questions)), key=lambda number: _size(questions[number], documents[number]))
        for start in range(0, len(order), batch_size):
            numbers = order[start:start + batch_size]
            asked, given = [questions[number] for number in numbers], [documents[number] for number in numbers]
            found = (self.compress(asked, given, batch_size, num_memory_tokens, cache) if memory is None
                     else memory.select(numbers))
            sources = kept(found, keep_documents, self.config.keep_threshold)
            if keep_documents is not None:
                found = found.keep(sources)
            scores = [None] * len(numbers) if found.scores is None else [
                tuple(row[:len(each)]) for row, each in zip(found.scores.tolist(), sources, strict=True)]
            yield _Batch(numbers, self.prefill(asked, found), [tuple(each) for each in sources], scores)

    def _check_positions(self, state: DecodingState, max_new_tokens: int) -> None:
        """An answer that passes the limit would change how its neighbours in the batch are read."""
        limit = self.processor.position_limit
        if limit is not None:
            longest = max([0, *state.num_prompt_tokens]) + max_new_tokens
            limit.check(longest, f"the longest prompt with an answer of {max_new_tokens} tokens",
                        f"{SHORTER_PROMPT}, or lower --max_new_tokens")

    def _stream(self, batches: Iterator[_Batch], max_new_tokens: int) -> Iterator[Piece]:
        for batch in batches:
            self._check_positions(batch.state, max_new_tokens)
            yield from pieces(self._steps(batch.state, max_new_tokens), batch.questions, self._stop_ids, self._text)

    def _steps(self, state: DecodingState, max_new_tokens: int) -> Iterator[Tensor]:
        """The next tokens (B,), step by step; between two steps whoever reads them has gradients as they were."""
        steps = self.generator.steps(state, max_new_tokens, self._stop_ids)
        while True:
            with self._inference():
                tokens = next(steps, None)
            if tokens is None:
                return
            yield tokens

    def _memory_prompts(self, questions: Sequence[str], memory: Memory) -> list[list[int]]:
        if len(questions) != len(memory):
            raise ValueError(f"{len(questions)} questions, but memory for {len(memory)}")
        return self.processor.memory_prompts(questions, memory.num_documents.tolist(), memory.embeddings.shape[2])

    def _text(self, ids: list[int]) -> str:
        return self.processor.tokenizer.decode(ids, skip_special_tokens=True,
                                               clean_up_tokenization_spaces=False).strip()


def _size(question: str, documents: Sequence[str]) -> int:
    return len(question) + sum(map(len, documents))
