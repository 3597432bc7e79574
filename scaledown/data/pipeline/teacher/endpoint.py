"""One request to an OpenAI-compatible chat endpoint: an answer, or what the trouble is and when to ask again."""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2

from scaledown.data.pipeline.teacher.teacher_config import Question, TeacherConfig
from scaledown.prompt import TEMPLATE_SETTINGS, chat_messages

KEY = "OPENAI_API_KEY"
CONNECT_SECONDS = 10
SHOWN_CHARACTERS = 300
MAY_PASS = {408, 425, 429, *range(500, 600)}
"""Statuses after which the same request may well succeed later."""
WHAT_TO_CHECK = {
    401: f"; is the key in the environment, {KEY}, the right one?",
    403: f"; is the key in the environment, {KEY}, the right one?",
    404: "; the URL usually ends in /v1, and --teacher_model is the server's name for its model",
}


@dataclass(frozen=True)
class Form:
    """How a request is written: not every chat template has a system role, nor does every server take settings."""

    has_system_role: bool
    has_template_settings: bool


@dataclass(frozen=True)
class Answer:
    """What the server said, and the tokens that it counted (0 where it counts none)."""

    text: str
    num_prompt_tokens: int
    num_answer_tokens: int


class Trouble(Exception):
    """No answer: why, the status if there was one, and the seconds that the server asks to wait, if it does."""

    def __init__(self, reason: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after

    @property
    def may_pass(self) -> bool:
        """Whether to ask again. Silence, and nonsense with status 200, may come from a server that restarts."""
        return self.status in (None, 200) or self.status in MAY_PASS


class Endpoint:
    """The server that ``config`` names, as an asynchronous context.

    The key is read from the environment, travels in one header, and is cut out of every message.

    Raises:
        ValueError: for a key that cannot travel so.
    """

    def __init__(self, config: TeacherConfig) -> None:
        self._config = config
        self._url = f"{config.teacher_url.rstrip('/')}/chat/completions"
        self._key = os.environ.get(KEY, "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise ValueError(f"{KEY}, in the environment, holds characters that a header cannot carry")

    async def __aenter__(self) -> Endpoint:
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=self._config.teacher_concurrency))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(self, question: Question, form: Form, max_new_tokens: int) -> Answer:
        """The greedy answer to one question.

        Raises:
            Trouble: where none comes, in time and in the shape that the protocol has.
        """
        limit = self._config.teacher_timeout_seconds
        try:
            # The client's own limits start anew with every byte; this one does not.
            async with asyncio.timeout(limit):
                response = await self._client.post(self._url, json=self._body(question, form, max_new_tokens))
        except TimeoutError:
            raise Trouble(f"no answer within {limit:g} seconds") from None
        except httpx2.HTTPError as fault:
            raise Trouble(f"cannot be reached ({type(fault).__name__}: {self._shown(str(fault))})") from None
        if response.status_code != 200:
            raise Trouble(f"answers {response.status_code} ({self._shown(response.text)})"
                          + WHAT_TO_CHECK.get(response.status_code, ""), response.status_code,
                          _seconds(response.headers.get("Retry-After")))
        answer = _read(response.content)
        if answer is None:
            raise Trouble(f"answers 200 with no answer in it ({self._shown(response.text)})", 200)
        return answer

    def _body(self, question: Question, form: Form, max_new_tokens: int) -> dict[str, Any]:
        query, documents = question
        body = {"model": self._config.teacher_model, "temperature": 0, "max_tokens": max_new_tokens,
                "messages": chat_messages(query, documents, form.has_system_role)}
        return body | ({"chat_template_kwargs": TEMPLATE_SETTINGS} if form.has_template_settings else {})

    def _shown(self, text: str) -> str:
        text = " ".join((text.replace(self._key, "***") if self._key else text).split())
        return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _read(content: bytes) -> Answer | None:
    """The answer in a chat completion, or None where ``content`` is no such thing."""
    try:
        reply = json.loads(content)
        text = reply["choices"][0]["message"]["content"]
        usage = reply.get("usage") or {}
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return Answer(text.strip(), *counts) if isinstance(text, str) else None


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header, which holds seconds or a date, as seconds from now; None where it says nothing."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
