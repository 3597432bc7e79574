"""The teacher's settings, and the interface of all teachers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from scaledown.data.pipeline.addresses import OPENAI_KEY, url_faults
from scaledown.settings import positive, require, setting

TEACHER_ADVICE = "What works without it: a local folder, --teacher_url URL, or --teacher_model embedded."

TeacherQuestion = tuple[str, Sequence[str]]
"""A query and its documents."""


@dataclass(frozen=True)
class TeacherConfig:
    """The model that answers, the machine that runs it, and the limits of asking it."""

    teacher_model: str = setting("mistralai/Mistral-7B-Instruct-v0.2", "the model that answers: a Hub id, "
                                 "a folder, 'embedded', or the server's name for it")
    teacher_revision: str | None = setting(None, "commit, branch or tag of the teacher on the Hub", is_advanced=True)
    teacher_8bit: bool = setting(False, "load the teacher in 8 bits (needs bitsandbytes)", is_advanced=True)
    teacher_url: str | None = setting(None, "ask this OpenAI-compatible server, such as "
                                      f"http://localhost:8000/v1; its key is in {OPENAI_KEY}")
    teacher_concurrency: int = setting(32, "questions that the server is asked at the same time", is_advanced=True)
    teacher_batch_size: int = setting(16, "questions that a local teacher answers together", is_advanced=True)
    teacher_max_new_tokens: int = setting(128, "longest answer, in tokens", is_advanced=True)
    teacher_timeout_seconds: float = setting(120.0, "how long the server may take for one answer", is_advanced=True)
    teacher_patience_seconds: float = setting(600.0, "how long a failed question is asked again before the run "
                                             "stops", is_advanced=True)

    def __post_init__(self) -> None:
        faults = positive(self, "teacher_concurrency", "teacher_batch_size", "teacher_max_new_tokens",
                          "teacher_timeout_seconds", "teacher_patience_seconds")
        if self.teacher_url is not None:
            faults += self._url_faults(self.teacher_url)
        require(faults)

    def _url_faults(self, url: str) -> list[str]:
        faults = url_faults("--teacher_url", url, "http://localhost:8000/v1", OPENAI_KEY)

        # Weights and revision are chosen when the server starts: a flag for them here would do nothing.
        if self.teacher_8bit:
            faults.append("--teacher_8bit belongs to a local teacher: with --teacher_url the server decides")
        if self.teacher_revision is not None:
            faults.append("--teacher_revision belongs to a local teacher: with --teacher_url the server decides")
        return faults


class Teacher(Protocol):
    """Answers questions from their documents, greedily.

    Attributes:
        num_prompt_tokens: tokens read so far.
        num_answer_tokens: tokens generated so far.
    """

    num_prompt_tokens: int
    num_answer_tokens: int

    def answers(self, questions: Sequence[TeacherQuestion]) -> Iterator[tuple[int, str]]:
        """Yield (number, answer) for each question as it becomes ready, in any order.

        An answer is stripped of white space, and empty if the teacher has nothing to say. A caller that stores each
        answer as it comes loses nothing if the teacher fails. The progress bar is the caller's, too.

        Raises:
            ValueError: if the teacher cannot go on; every answer that was ready has been yielded before.
        """
