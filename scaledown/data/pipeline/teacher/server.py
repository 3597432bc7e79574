"""A teacher behind an OpenAI-compatible chat endpoint: vLLM or TGI on a cluster, ``transformers serve``, a service.

The server renders its model's chat template over the same messages as a local teacher, and tokenises the text itself.
What a request does not set is the server's to choose: vLLM, for one, takes a model's own repetition penalty unless it
is started with ``--generation-config vllm``.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence

from scaledown.data.pipeline.teacher.endpoint import Answer, Endpoint, Form, Trouble
from scaledown.data.pipeline.teacher.teacher_config import Question, TeacherConfig

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
START_PATIENCE_SECONDS = 15.0
"""Whoever starts a run sits before it: a server that is not there is told soon."""
FORMS = [Form(has_system_role, has_settings) for has_system_role in (True, False) for has_settings in (True, False)]
WRONG_FORM = (400, 422, 500)
"""What servers answer to a role or a field that they, or their chat template, do not know."""
FIRST_QUESTION = ("Which city is the capital of France?", ["The capital of France is Paris."])

logger = logging.getLogger(__name__)


class ServerTeacher:
    """Keeps ``teacher_concurrency`` requests under way; one that fails is sent again, ever more slowly.

    Attributes:
        num_prompt_tokens: tokens read so far, as the server counts them.
        num_answer_tokens: tokens said so far, as the server counts them.

    Raises:
        ValueError: where the server does not answer a first, short question in any form.
    """

    def __init__(self, config: TeacherConfig) -> None:
        self.num_prompt_tokens = self.num_answer_tokens = 0
        self._config = config
        self._num_ready = 0
        self._has_warned = False
        try:
            self._form = asyncio.run(self._find_form())
        except Trouble as trouble:
            raise ValueError(f"--teacher_url {config.teacher_url}: {trouble}") from None

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """See :class:`~scaledown.data.pipeline.teacher.teacher_config.Teacher`."""
        stream = self._stream(questions)

        async def next_pair() -> tuple[int, str] | None:
            return await anext(stream, None)

        with asyncio.Runner() as runner:
            while (pair := runner.run(next_pair())) is not None:
                yield pair

    async def _find_form(self) -> Form:
        """The first form in which the server takes a question."""
        refusals = []
        patience = min(START_PATIENCE_SECONDS, self._config.teacher_patience_seconds)
        async with Endpoint(self._config) as endpoint:
            for form in FORMS:
                try:
                    await self._patiently(lambda form=form: endpoint.ask(FIRST_QUESTION, form, max_new_tokens=1),
                                          patience, asyncio.Event(), final=WRONG_FORM)
                except Trouble as trouble:
                    if trouble.status not in WRONG_FORM:
                        raise
                    refusals.append(trouble)
                else:
                    return form
        raise refusals[0]

    async def _stream(self, questions: Sequence[Question]) -> AsyncIterator[tuple[int, str]]:
        """Yield answers as they come. After a failure nothing new is asked; what is under way still counts."""
        waiting, running = iter(range(len(questions))), set()
        failures: list[Trouble] = []
        has_failed = asyncio.Event()
        async with Endpoint(self._config) as endpoint:
            while True:
                room = 0 if failures else self._config.teacher_concurrency - len(running)
                running |= {asyncio.create_task(self._answer(endpoint, number, questions[number], has_failed))
                            for number in itertools.islice(waiting, room)}
                if not running:
                    break
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    if isinstance(fault := task.exception(), Trouble):
                        failures.append(fault)
                        has_failed.set()
                    else:
                        self._num_ready += 1
                        yield task.result()
        if failures:
            raise ValueError(
                f"--teacher_url {self._config.teacher_url}: {failures[0]}. The {self._num_ready} answers of this run "
                "are safe; see to the server, then run the same command again: it goes on from there")

    async def _answer(self, endpoint: Endpoint, number: int, question: Question,
                      has_failed: asyncio.Event) -> tuple[int, str]:
        config = self._config
        answer = await self._patiently(lambda: endpoint.ask(question, self._form, config.teacher_max_new_tokens),
                                       config.teacher_patience_seconds, has_failed)
        self.num_prompt_tokens += answer.num_prompt_tokens
        self.num_answer_tokens += answer.num_answer_tokens
        return number, answer.text

    async def _patiently(self, ask: Callable[[], Awaitable[Answer]], patience_seconds: float,
                         has_failed: asyncio.Event, final: Collection[int] = ()) -> Answer:
        """What ``ask`` brings, asked again with growing pauses while that may help and no other question has failed.

        Raises:
            Trouble: the last one; at once where its status is one of ``final``.
        """
        give_up = time.monotonic() + patience_seconds
        for attempt in itertools.count():
            try:
                answer = await ask()
            except Trouble as trouble:
                pause = _pause(trouble, attempt)
                if not trouble.may_pass or trouble.status in final or time.monotonic() + pause > give_up:
                    raise
                self._warn(trouble, attempt)
                if await _happens(has_failed, pause):
                    raise
            else:
                self._has_warned = False
                return answer
        raise AssertionError("unreachable")

    def _warn(self, trouble: Trouble, attempt: int) -> None:
        """Say what holds the run up, once until the server answers again; a first refusal is everyday life."""
        if attempt and not self._has_warned:
            self._has_warned = True
            logger.warning("the teacher at %s %s; asking again", self._config.teacher_url, trouble)


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Wait so long; True, and at once, where ``event`` comes first."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _pause(trouble: Trouble, attempt: int) -> float:
    """Seconds until the next try: what the server asks for, else twice as long each time; never all at once."""
    if trouble.retry_after is not None:
        return trouble.retry_after * random.uniform(1.0, 1.1)
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** attempt) * random.uniform(0.5, 1.0)
