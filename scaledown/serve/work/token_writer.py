"""Tokens of a batch of answers, sent back to each client as they come; each answer has its own end.

``generate`` gives a streamer the next token of all answers, and then asks its stopping criteria which are finished.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from scaledown.models.serving.streaming import GrowingAnswer
from scaledown.serve.work.jobs import AnswerJob, Ending, Opening, TextPart

STOP, LENGTH = "stop", "length"


class TokenWriter(BaseStreamer):
    """A streamer that sends the text of each answer to its job.

    Args:
        jobs: in the order of the batch.
        openings: of each; sent with its first token, so that what fails before it can be computed again.
        stop_ids: tokens that end an answer.
        to_text: an answer's ids to its text.
    """

    def __init__(self, jobs: Sequence[AnswerJob], openings: Sequence[Opening], stop_ids: Collection[int],
                 to_text: Callable[[list[int]], str]) -> None:
        self.answers = []
        for job, opening in zip(jobs, openings, strict=True):
            self.answers.append(_WrittenAnswer(len(self.answers), job, opening, frozenset(stop_ids), to_text))

    def put(self, value: Tensor) -> None:
        """Take the next tokens (B,), but not the prompt's ids, which come first: a prompt of embeddings has none."""
        if value.numel() and value.dim() == 1:
            # Behind the answers stand those of dummies, if a batch is filled up to a rounded shape.
            for answer, token in zip(self.answers, value.tolist(), strict=False):
                answer.take(token)

    def end(self) -> None:
        """Do nothing: every answer ends by itself."""


class EachEnds(StoppingCriteria):
    """Ends an answer at its own last token, and as soon as its client has gone."""

    def __init__(self, writer: TokenWriter) -> None:
        self._answers = writer.answers

    def __call__(self, input_ids: Tensor, scores: Tensor, **settings: object) -> Tensor:
        """Return which answers are finished (B,)."""
        # Dummies are finished from the start.
        is_finished = torch.ones(len(input_ids), dtype=torch.bool)                        # (B,)
        for row, answer in enumerate(self._answers):
            is_finished[row] = answer.has_ended or answer.job.is_cancelled
        return is_finished.to(input_ids.device)


class _WrittenAnswer(GrowingAnswer):
    """An answer that sends its new text to its job."""

    def __init__(self, number: int, job: AnswerJob, opening: Opening, stop_ids: frozenset[int],
                 to_text: Callable[[list[int]], str]) -> None:
        super().__init__(number)
        self.job, self._opening, self._stop_ids, self._to_text = job, opening, stop_ids, to_text

    def take(self, token: int) -> None:
        """Add the next token; behind the end an answer is padded until the longest of the batch ends."""
        if self.has_ended or self.job.is_cancelled:
            return
        if not self.job.has_begun:
            self.job.put(self._opening)
        if token in self._stop_ids:
            self._finish(STOP, len(self.ids) + 1)
            return

        if not self.job.is_streamed:
            # All text is sent at the end.
            self.ids.append(token)
        elif new := self.add(token, self._to_text):
            self.job.put(TextPart(new))
        if len(self.ids) == self.job.max_tokens:
            self._finish(LENGTH, len(self.ids))

    def _finish(self, reason: str, num_tokens: int) -> None:
        self.has_ended = True
        if new := self.rest(self._to_text):
            self.job.put(TextPart(new))
        self.job.put(Ending(reason, num_tokens))
