"""From a batch of jobs to their results, in the thread of the model.

All documents of the batch are compressed together, which also ranks them. Answers then are generated together as far as
their prompts are chosen alike; each has its own longest length, its own end, and its own client, who may go.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from scaledown.models.memory import Memory
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving import question_answering
from scaledown.models.serving.choosing import rankings
from scaledown.models.serving.disk.store_index import StoreFault
from scaledown.models.serving.inputs.user_input import read_input
from scaledown.models.serving.question_answering import Answer, Generation, PromptBatch
from scaledown.models.serving.store import Store
from scaledown.prompt.plain_text import plain_ids
from scaledown.serve.refusals import Refusal
from scaledown.serve.work.jobs import AnswerJob, Choice, Job, Opening, Scores
from scaledown.serve.work.token_writer import EachEnds, TokenWriter

logger = logging.getLogger(__name__)


class BatchWorker:
    """Computes batches with one model.

    Args:
        model: its only caller is this object.
        max_input_tokens: of a request's question and documents.
        store: documents that were read ahead.
        makes_only_prompts: another engine answers from the prompts.
    """

    def __init__(self, model: ScaleDownModel, max_input_tokens: int, store: Store | None = None,
                 makes_only_prompts: bool = False) -> None:
        self._model, self._store = model, store
        self._max_input_tokens, self._makes_only_prompts = max_input_tokens, makes_only_prompts

    def compute(self, jobs: Sequence[Job]) -> None:
        """Compute jobs, and send their results back.

        If they fail together, each is computed alone, so that a request fails by its own fault and not by another's.
        """
        waiting = [job for job in jobs if not job.is_cancelled and not job.has_begun]
        try:
            self._compute_together(waiting)
        except Exception as fault:  # noqa: BLE001 - told to the client; whatever it was, other requests are computed
            failed = [job for job in waiting if not job.is_cancelled and not job.is_over]
            alone = [job for job in failed if not job.has_begun] if len(waiting) > 1 else []
            for job in failed:
                if job not in alone:
                    job.put(_refusal(fault))
            for job in alone:
                self.compute([job])

    def _compute_together(self, jobs: Sequence[Job]) -> None:
        counted = {job: self._num_full_text_tokens(job) for job in jobs}
        short = []
        for job, num_tokens in counted.items():
            if num_tokens <= self._max_input_tokens:
                short.append(job)
                continue
            job.put(Refusal(422, f"documents: with the question they have {num_tokens:,} tokens, and this service "
                                 f"takes {self._max_input_tokens:,}; send fewer or shorter documents", "documents",
                            "too_many_tokens"))
        if not short:
            return

        memory = self._model.compress([job.question for job in short], [job.documents for job in short],
                                      batch_size=len(short), store=self._store)
        _check_scores(memory)
        by_choice: dict[Choice, list[int]] = {}
        for number, job in enumerate(short):
            if isinstance(job, AnswerJob):
                by_choice.setdefault(job.choice, []).append(number)
                continue
            # A ranking needs nothing more.
            [(order, scores)] = rankings(memory.select([number]))
            job.put(Scores(order, scores, counted[job]))

        # Prompts that are chosen alike are generated together.
        for choice, numbers in by_choice.items():
            self._answer_alike(choice, [short[number] for number in numbers], memory.select(numbers), counted)

    def _num_full_text_tokens(self, job: Job) -> int:
        """Return the length of the prompt in full text."""
        [texts] = read_input(job.question, job.documents).documents
        processor = self._model.processor
        # A tokenizer holds settings of its last call, so it belongs to one thread at a time, as the model does.
        with self._model.inference():
            return len(processor.prompt.of_texts(job.question, plain_ids(processor.tokenizer, texts)))

    def _answer_alike(self, choice: Choice, jobs: Sequence[AnswerJob], memory: Memory,
                      num_full_text: dict[Job, int]) -> None:
        # Texts are only needed beside memory if some of them are read.
        documents = [job.documents for job in jobs] if choice.text_documents else None
        request = question_answering.checked_request(
            self._model, [job.question for job in jobs], documents, memory, max(job.max_tokens for job in jobs),
            batch_size=len(jobs), keep_documents=choice.keep_documents, keep_tokens=choice.keep_tokens,
            text_documents=choice.text_documents)

        for batch in question_answering.batches(self._model, request):
            of_batch = [jobs[number] for number in batch.questions]
            openings = [self._opening(batch, row, num_full_text[job]) for row, job in enumerate(of_batch)]
            if not self._makes_only_prompts:
                self._generate(batch, of_batch, openings, request.generation)
                continue
            for job, opening in zip(of_batch, openings, strict=True):
                job.put(opening)
                job.is_over = True

    def _opening(self, batch: PromptBatch, row: int, num_full_text_tokens: int) -> Opening:
        num_tokens = batch.prompts.num_prompt_tokens[row]
        embeddings = None
        if self._makes_only_prompts:
            # Without the padding on the left, and a copy: a view would be sent with all of its batch.
            embeddings = batch.prompts.embeddings[row, -num_tokens:].to(self._model.dtype).cpu().clone()  # (T, D)
        return Opening(Answer.of("", batch.sources[row]), num_tokens, num_full_text_tokens, embeddings)

    def _generate(self, batch: PromptBatch, jobs: Sequence[AnswerJob], openings: Sequence[Opening],
                  generation: Generation) -> None:
        to_text = partial(question_answering.to_text, self._model)
        writer = TokenWriter(jobs, openings, self._model.stop_ids, to_text)
        options = {"streamer": writer, "stopping_criteria": [EachEnds(writer)]}
        # The texts that it returns are not needed: their tokens came through the writer.
        question_answering.generate(self._model, batch.prompts, Generation(generation.config, options))


def _check_scores(memory: Memory) -> None:
    """Refuse scores that say nothing, and that JSON cannot hold.

    Raises:
        ArithmeticError: if the score of a document is no finite number.
    """
    # Places without a document have -inf.
    if memory.scores is not None and (memory.scores.isfinite().sum(1).cpu() < memory.num_documents).any():
        raise ArithmeticError("a document's score is no finite number: the checkpoint's weights are damaged, or "
                              "their numbers are beyond --dtype")


def _refusal(fault: Exception) -> Refusal:
    """Return what a client is told: what it can mend is a ValueError, unless a store's, and all else is ours."""
    if isinstance(fault, Refusal):
        return fault
    if isinstance(fault, ValueError) and not isinstance(fault, StoreFault):
        return Refusal(422, str(fault))
    logger.error("a request failed", exc_info=fault)
    return Refusal(500, "the service failed at this request; its log says why")
