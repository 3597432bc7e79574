"""Jobs: a question to be answered, or documents to be ranked, and the way back to its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from torch import Tensor

from scaledown.models.serving.choosing import Keep
from scaledown.models.serving.question_answering import Answer


class Opening(NamedTuple):
    """The prompt of an answer is ready.

    Attributes:
        read: the documents and passages in it, with their ids and scores; its text is empty.
        num_prompt_tokens: what the generator reads.
        num_full_text_tokens: what it would read without compression.
        embeddings: the prompt (T, D), if another engine answers.
    """

    read: Answer
    num_prompt_tokens: int
    num_full_text_tokens: int
    embeddings: Tensor | None = None


class TextPart(NamedTuple):
    """More text of an answer."""

    text: str


class Ending(NamedTuple):
    """The end of an answer: ``reason`` is "stop", or "length" for one that was cut at its longest."""

    reason: str
    num_tokens: int


class Scores(NamedTuple):
    """The ranking of a request's documents.

    Attributes:
        order: their numbers, best first.
        scores: in the order in which they were given.
        num_tokens: of the question and the documents.
    """

    order: list[int]
    scores: list[float]
    num_tokens: int


class Choice(NamedTuple):
    """Which documents a prompt has, and how; as in :meth:`ScaleDownModel.answer`."""

    keep_documents: Keep = None
    keep_tokens: int | None = None
    text_documents: int | None = None


class Job:
    """A question with its documents; made in the event loop, computed in the thread of the model.

    Attributes:
        question: a text.
        documents: as the model takes them.
        is_cancelled: whether its client has gone; the thread of the model looks at it.
        has_begun: whether anything was sent back.
        is_over: whether the last part of the result was sent back.
    """

    def __init__(self, question: str, documents: list[dict[str, Any]]) -> None:
        self.question, self.documents = question, documents
        self.is_cancelled = self.has_begun = self.is_over = False
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[Any] = asyncio.Queue()

    def cancel(self) -> None:
        """Stop the work as soon as possible."""
        self.is_cancelled = True

    def put(self, part: Any) -> None:
        """Send a part of the result back, or the exception that ends it; from any thread."""
        self.has_begun = True
        self.is_over = isinstance(part, Exception | Ending | Scores)
        self.send(part)

    def send(self, part: Any) -> None:
        """Bring a part to the event loop."""
        self._loop.call_soon_threadsafe(self._parts.put_nowait, part)

    async def parts(self) -> AsyncIterator[Any]:
        """Yield the parts of the result as they come, without end: the last one says that it is the last.

        Raises:
            Exception: the one that was sent back.
        """
        while True:
            part = await self._parts.get()
            if isinstance(part, Exception):
                raise part
            yield part


class AnswerJob(Job):
    """A question to be answered with at most ``max_tokens`` tokens; ``is_streamed`` if its text is sent as it grows."""

    def __init__(self, question: str, documents: list[dict[str, Any]], max_tokens: int, choice: Choice,
                 is_streamed: bool) -> None:
        super().__init__(question, documents)
        self.max_tokens, self.choice, self.is_streamed = max_tokens, choice, is_streamed


class RankingJob(Job):
    """Documents to be ranked for a question."""
