"""A teacher behind an OpenAI-compatible chat endpoint: vLLM or TGI on a cluster, ``transformers serve``, a service.

The server renders its model's chat template over the same messages as a local teacher, and tokenises the text itself.
What a request does not set, the server chooses: vLLM, for one, applies a model's own repetition penalty unless it is
started with ``--generation-config vllm``.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence

from scaledown.data.pipeline.teacher.endpoint import Endpoint, Form, Reply, Trouble
from scaledown.data.pipeline.teacher.teacher import TeacherConfig, TeacherQuestion

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
START_PATIENCE_SECONDS = 15.0
"""A server that is not there is reported soon, while the user still watches the start of the run."""
FORMS = [Form(True, True), Form(True, False), Form(False, True), Form(False, False)]
"""Forms of a request, in the order in which they are tried."""
WRONG_FORM = (400, 422, 500)
"""The statuses with which servers refuse a role or a field that they, or their chat template, do not know."""
FIRST_QUESTION = ("Which city is the capital of France?", ["The capital of France is Paris."])

logger = logging.getLogger(__name__)


class ServerTeacher:
    """Keeps ``teacher_concurrency`` requests in flight; one that fails is sent again, after growing pauses.

    Attributes:
        num_prompt_tokens: tokens read so far, as the server counts them.
        num_answer_tokens: tokens generated so far, as the server counts them.

    Raises:
        ValueError: if the server does not answer a first, short question in any form.
    """

    def __init__(self, config: TeacherConfig) -> None:
        self.num_prompt_tokens = self.num_answer_tokens = 0
        self._config = config
        self._num_ready = 0
        self._has_warned = False

        # One short question shows now whether URL, key and model are right.
        try:
            self._form = asyncio.run(self._find_form())
        except Trouble as trouble:
            raise ValueError(f"--teacher_url {config.teacher_url}: {trouble}") from None

    def answers(self, questions: Sequence[TeacherQuestion]) -> Iterator[tuple[int, str]]:
        """See :class:`~scaledown.data.pipeline.teacher.teacher.Teacher`."""
        stream = self._stream(questions)

        async def next_pair() -> tuple[int, str] | None:
            return await anext(stream, None)

        # The event loop runs only while the caller waits for an answer; requests in flight pause in between.
        with asyncio.Runner() as runner:
            while (pair := runner.run(next_pair())) is not None:
                yield pair

    async def _find_form(self) -> Form:
        """Return the first form in which the server accepts a question."""
        refusals = []

        # Each form is tried once, but while the server does not answer at all, the same one again.
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

        # The richest form's refusal says the most.
        raise refusals[0]

    async def _stream(self, questions: Sequence[TeacherQuestion]) -> AsyncIterator[tuple[int, str]]:
        """Yield answers as they come. After a failure nothing new is asked; requests in flight still count."""
        numbers = iter(range(len(questions)))  # of the questions not asked yet
        running: set[asyncio.Task[tuple[int, str]]] = set()
        failures: list[Trouble] = []
        has_failed = asyncio.Event()
        async with Endpoint(self._config) as endpoint:
            while True:
                # Fill up to the limit of concurrent requests, until one has failed for good.
                num_free = 0 if failures else self._config.teacher_concurrency - len(running)
                for number in itertools.islice(numbers, num_free):
                    request = self._answer(endpoint, number, questions[number], has_failed)
                    running.add(asyncio.create_task(request))
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

        # Only now, when all that the server did answer has been yielded.
        if failures:
            raise ValueError(
                f"--teacher_url {self._config.teacher_url}: {failures[0]}. The {self._num_ready} answers of this run "
                "are safe; see to the server, then run the same command again: it goes on from there")

    async def _answer(self, endpoint: Endpoint, number: int, question: TeacherQuestion,
                      has_failed: asyncio.Event) -> tuple[int, str]:
        config = self._config
        answer = await self._patiently(lambda: endpoint.ask(question, self._form, config.teacher_max_new_tokens),
                                       config.teacher_patience_seconds, has_failed)
        self.num_prompt_tokens += answer.num_prompt_tokens
        self.num_answer_tokens += answer.num_answer_tokens
        return number, answer.text

    async def _patiently(self, ask: Callable[[], Awaitable[Reply]], patience_seconds: float,
                         has_failed: asyncio.Event, final: Collection[int] = ()) -> Reply:
        """Return the answer of ``ask``, called again after growing pauses while that may help.

        Raises:
            Trouble: the last one: after ``patience_seconds``, if another question has failed for good, or at once if
                its status is one of ``final``.
        """
        give_up = time.monotonic() + patience_seconds
        for attempt in itertools.count():
            try:
                answer = await ask()
            except Trouble as trouble:
                # No use in a pause that ends after the patience does.
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
        """Log what holds the run up, once until the server answers again."""
        # A single refusal is nothing unusual on a busy server.
        if attempt and not self._has_warned:
            self._has_warned = True
            logger.warning("the teacher at %s %s; asking again", self._config.teacher_url, trouble)


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Wait for ``seconds``, and return False; if ``event`` comes first, return True at once."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _pause(trouble: Trouble, attempt: int) -> float:
    """Return the seconds until the next try: what the server asks for, else twice as long each time."""
    # A random share keeps the concurrent requests from all coming back at once.
    if trouble.retry_after is not None:
        return trouble.retry_after * random.uniform(1.0, 1.1)
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** attempt) * random.uniform(0.5, 1.0)
