"""The service behind the routes: forms become jobs, and the parts that come back become replies."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.store import Store
from scaledown.serve.limits import Limits
from scaledown.serve.refusals import Refusal
from scaledown.serve.web import replies
from scaledown.serve.web.forms import ChatForm, RerankForm
from scaledown.serve.web.service_metrics import ServiceMetrics
from scaledown.serve.work.batch_worker import BatchWorker
from scaledown.serve.work.batching import Batcher
from scaledown.serve.work.jobs import AnswerJob, Choice, Ending, Opening, RankingJob, Scores, TextPart
from scaledown.serve.work.vllm import VllmServer


class Batching(NamedTuple):
    """The most requests that are computed together, and the time for which the first waits for others."""

    batch_size: int
    wait_seconds: float


class Service:
    """A model that several clients ask.

    Args:
        model: answers, or only makes the prompts for ``vllm``; its only caller is this object.
        name: by which clients know it.
        limits: of requests.
        batching: of requests.
        store: documents that were read ahead.
        vllm: the server that answers from the prompts.

    Raises:
        ValueError: if the model has no compressor.
    """

    def __init__(self, model: ScaleDownModel, name: str, limits: Limits, batching: Batching,
                 store: Store | None = None, vllm: VllmServer | None = None) -> None:
        if model.config.reads_text:
            raise ValueError("--checkpoint: this model reads text (--compressor_type none); the service compresses "
                             "documents, so give a checkpoint with a compressor")
        self.name, self.limits, self.metrics = name, limits, ServiceMetrics()
        self._can_rank, self._vllm = model.config.enable_reranking, vllm
        worker = BatchWorker(model, limits.max_input_tokens, store, makes_only_prompts=vllm is not None)
        self._batcher = Batcher(worker.compute, *batching, self.metrics.batch_size.observe)

    @property
    def is_healthy(self) -> bool:
        """True while requests are being computed."""
        return self._batcher.is_running

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compute requests within this context."""
        async with contextlib.AsyncExitStack() as stack:
            if self._vllm is not None:
                await stack.enter_async_context(self._vllm)
            await stack.enter_async_context(self._batcher.running())
            yield

    # Answers

    def answer_job(self, form: ChatForm) -> AnswerJob:
        """Let a question wait for its answer.

        Raises:
            Refusal: if it asks for another model, or for too much.
        """
        self._check(form.model, len(form.documents))
        # Clients send the new name, the old one, or both.
        max_tokens = form.max_completion_tokens or form.max_tokens or self.limits.usual_new_tokens
        if max_tokens > self.limits.max_new_tokens:
            raise Refusal(422, f"max_tokens: {max_tokens} are too many; answers have at most "
                               f"{self.limits.max_new_tokens} tokens here", "max_tokens", "too_many_tokens")
        choice = Choice(form.keep_documents, form.keep_tokens, form.text_documents)
        documents = [document.as_dict() for document in form.documents]
        job = AnswerJob(form.question, documents, max_tokens, choice, bool(form.stream))
        self._batcher.submit(job)
        return job

    async def answer_parts(self, job: AnswerJob) -> AsyncIterator[Opening | TextPart | Ending]:
        """Yield the answer as it grows, and count it at its end.

        Raises:
            Refusal: if it cannot be answered.
        """
        opening: Opening | None = None
        async with contextlib.aclosing(self._parts(job)) as parts:
            async for part in parts:
                yield part
                if isinstance(part, Opening):
                    opening = part
                elif isinstance(part, Ending):
                    self.metrics.count_answer(opening.num_prompt_tokens, opening.num_full_text_tokens, part.num_tokens)
                    return

    async def _parts(self, job: AnswerJob) -> AsyncIterator[Opening | TextPart | Ending]:
        async with contextlib.aclosing(job.parts()) as parts:
            async for part in parts:
                if not isinstance(part, Opening) or part.embeddings is None:
                    yield part
                    continue
                # Nothing else comes from the model: vLLM goes on.
                yield part._replace(embeddings=None)
                async with contextlib.aclosing(self._vllm.answer(part.embeddings, job.max_tokens)) as answer:
                    async for of_answer in answer:
                        yield of_answer

    async def whole_answer(self, job: AnswerJob) -> dict[str, Any]:
        """Return the reply to a request that is not streamed."""
        texts, opening, ending = [], None, None
        async with contextlib.aclosing(self.answer_parts(job)) as parts:
            async for part in parts:
                if isinstance(part, Opening):
                    opening = part
                elif isinstance(part, TextPart):
                    texts.append(part.text)
                else:
                    ending = part
        return replies.Completion(self.name).whole("".join(texts), opening, ending)

    async def events(self, parts: AsyncIterator[Any], opening: Opening, has_usage: bool) -> AsyncIterator[str]:
        """Yield the events of a stream from the parts behind its opening; a fault in the middle is one of them."""
        completion, ending = replies.Completion(self.name), None
        yield replies.event(completion.chunk({"role": "assistant", "content": ""}))
        try:
            async with contextlib.aclosing(parts):
                async for part in parts:
                    if isinstance(part, TextPart):
                        yield replies.event(completion.chunk({"content": part.text}))
                    else:
                        ending = part
        except Refusal as refusal:
            yield replies.event(refusal.body())
            return

        yield replies.event(completion.chunk({}, ending.reason, scaledown=replies.sources(opening.read)))
        if has_usage:
            yield replies.event(completion.usage_chunk(opening, ending))
        yield replies.DONE

    # Rankings

    def ranking_job(self, form: RerankForm) -> RankingJob:
        """Let documents wait for their ranking.

        Raises:
            Refusal: if it asks for another model or for too much, or the model cannot rank.
        """
        self._check(form.model, len(form.documents))
        if not self._can_rank:
            raise Refusal(422, "this model has no reranking head, so it cannot rank documents", code="no_reranking")
        job = RankingJob(form.query, [document.as_dict() for document in form.documents])
        self._batcher.submit(job)
        return job

    async def scores(self, job: RankingJob) -> Scores:
        """Return the ranking.

        Raises:
            Refusal: if there is none.
        """
        async with contextlib.aclosing(job.parts()) as parts:
            return await anext(parts)

    def _check(self, model: str | None, num_documents: int) -> None:
        """Refuse another model, and too many documents."""
        if model not in (None, self.name):
            raise Refusal(404, f"model: there is none of this name; this service has {self.name!r}", "model",
                          "model_not_found")
        if num_documents > self.limits.max_documents:
            raise Refusal(422, f"documents: {num_documents:,} are too many; this service takes "
                               f"{self.limits.max_documents:,} in a request", "documents", "too_many_documents")
