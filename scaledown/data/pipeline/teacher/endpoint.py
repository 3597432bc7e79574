"""One request to an OpenAI-compatible chat endpoint: an answer, or the trouble and when to ask again."""

from __future__ import annotations

import asyncio
import email.utils
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2

from scaledown.data.pipeline.addresses import OPENAI_KEY
from scaledown.data.pipeline.teacher.teacher import TeacherConfig, TeacherQuestion
from scaledown.files import parse_json
from scaledown.prompt import TEMPLATE_SETTINGS, chat_messages

LONGEST_CONNECT_SECONDS = 10
SHOWN_REPLY_CHARACTERS = 300
MAY_PASS = {408, 425, 429, *range(500, 600)}
"""Statuses after which the same request may succeed later."""
WHAT_TO_CHECK = {
    401: f"; is the key in the environment, {OPENAI_KEY}, the right one?",
    403: f"; is the key in the environment, {OPENAI_KEY}, the right one?",
    404: "; the URL usually ends in /v1, and --teacher_model is the server's name for its model",
}


@dataclass(frozen=True)
class Form:
    """The form of a request: not every chat template has a system role, nor does every server take settings."""

    has_system_role: bool
    has_template_settings: bool


@dataclass(frozen=True)
class Reply:
    """The server's answer, and the tokens that it counted (0 if it counts none)."""

    text: str
    num_prompt_tokens: int
    num_answer_tokens: int


class Trouble(Exception):
    """A request without an answer: the reason, the HTTP status if any, and the seconds that the server asks to wait."""

    def __init__(self, reason: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after

    @property
    def may_pass(self) -> bool:
        """Return whether to ask again. Silence, and nonsense with status 200, may come from a server that restarts."""
        return self.status in (None, 200) or self.status in MAY_PASS


class Endpoint:
    """The server that ``config`` names, as an asynchronous context.

    The key is read from the environment, travels in one header, and is cut out of every message.

    Raises:
        ValueError: if the key has characters that a header cannot carry.
    """

    def __init__(self, config: TeacherConfig) -> None:
        self._config = config
        self._url = f"{config.teacher_url.rstrip('/')}/chat/completions"
        self._key = os.environ.get(OPENAI_KEY, "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise ValueError(f"{OPENAI_KEY}, in the environment, holds characters that a header cannot carry")

    async def __aenter__(self) -> Endpoint:
        # No timeout for reads and writes: ``ask`` limits the whole request.
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(None, connect=LONGEST_CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=self._config.teacher_concurrency))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(self, question: TeacherQuestion, form: Form, max_new_tokens: int) -> Reply:
        """Return the greedy answer to one question.

        Raises:
            Trouble: if none comes in time, or not in the protocol's format.
        """
        limit = self._config.teacher_timeout_seconds
        try:
            # The client's own limits restart with every byte; this one does not.
            async with asyncio.timeout(limit):
                response = await self._client.post(self._url, json=self._body(question, form, max_new_tokens))
        except TimeoutError:
            raise Trouble(f"no answer within {limit:g} seconds") from None
        except httpx2.HTTPError as fault:
            raise Trouble(f"cannot be reached ({type(fault).__name__}: {self._shown(str(fault))})") from None

        # A proxy may answer 200 with a page of its own, so the content decides.
        if response.status_code != 200:
            raise Trouble(f"answers {response.status_code} ({self._shown(response.text)})"
                          + WHAT_TO_CHECK.get(response.status_code, ""), response.status_code,
                          _seconds(response.headers.get("Retry-After")))

        answer = _read(response.content)
        if answer is None:
            raise Trouble(f"answers 200 with no answer in it ({self._shown(response.text)})", 200)
        return answer

    def _body(self, question: TeacherQuestion, form: Form, max_new_tokens: int) -> dict[str, Any]:
        query, documents = question
        # Temperature 0 is greedy decoding, as for a local teacher.
        body = {"model": self._config.teacher_model, "temperature": 0, "max_tokens": max_new_tokens,
                "messages": chat_messages(query, documents, form.has_system_role)}
        if form.has_template_settings:
            body["chat_template_kwargs"] = TEMPLATE_SETTINGS
        return body

    def _shown(self, text: str) -> str:
        """Return the beginning of ``text`` on one line, without the key: servers repeat what they are sent."""
        if self._key:
            text = text.replace(self._key, "***")
        text = " ".join(text.split())

        return text if len(text) <= SHOWN_REPLY_CHARACTERS else f"{text[:SHOWN_REPLY_CHARACTERS]}..."


def _read(content: bytes) -> Reply | None:
    """Return the answer in a chat completion, or None if ``content`` is none."""
    try:
        reply = parse_json(content)
        text = reply["choices"][0]["message"]["content"]

        # Not every server counts tokens, and some send null. JSON's 1e999 is infinite, and no integer.
        usage = reply.get("usage") or {}
        num_prompt_tokens = int(usage.get("prompt_tokens") or 0)
        num_answer_tokens = int(usage.get("completion_tokens") or 0)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None
    if not isinstance(text, str):
        return None
    return Reply(text.strip(), num_prompt_tokens, num_answer_tokens)


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds from now of a Retry-After header, which holds seconds or a date; None if it has neither."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass  # not a number, so perhaps a date

    try:
        date = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None

    # HTTP's dates are in GMT; one without a zone is taken for that.
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
