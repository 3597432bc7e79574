"""Answers from a vLLM server: the prompt goes to it as embeddings, and its text comes back as a stream.

``POST /v1/completions`` with one ``prompt_embeds``, a tensor (T, D) as torch saves it, in base64. It is the whole
prompt, with the chat template in it; ``/v1/chat/completions`` would render the template again around it. The server
needs --enable-prompt-embeds, and the generator that ``python -m scaledown.models.merge`` wrote, or its adapter on the
base. vLLM casts the prompt to its own number format, and counts the token that ends an answer, as ScaleDown does
(tests/serving/test_vllm_itself.py).
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import torch
from torch import Tensor

from scaledown.serve.refusals import Refusal
from scaledown.serve.start_checks import vllm_headers
from scaledown.serve.work.jobs import Ending, TextPart

LONGEST_CONNECT_SECONDS = 10.0
LONGEST_SILENCE_SECONDS = 300.0
SHOWN_REPLY_CHARACTERS = 300
DATA, DONE = "data:", "[DONE]"


class VllmServer:
    """A vLLM server, as an asynchronous context.

    Args:
        url: up to ``/v1``.
        model: its name for the merged generator.
    """

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = url.rstrip("/"), model

    async def __aenter__(self) -> VllmServer:
        timeout = httpx2.Timeout(LONGEST_SILENCE_SECONDS, connect=LONGEST_CONNECT_SECONDS)
        # As many connections as there are requests, which the gate bounds.
        self._client = httpx2.AsyncClient(headers=vllm_headers(), timeout=timeout, limits=httpx2.Limits())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def answer(self, embeddings: Tensor, max_tokens: int) -> AsyncIterator[TextPart | Ending]:
        """Yield the answer to a prompt (T, D) as it grows; vLLM stops if the caller closes the iterator.

        Raises:
            Refusal: if the server cannot be reached, or answers something else.
        """
        body = {"model": self._model, "prompt_embeds": as_base64(embeddings), "max_tokens": max_tokens,
                "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
        text, reason, num_tokens = _StrippedText(), "stop", 0
        try:
            async with self._client.stream("POST", f"{self._url}/completions", json=body) as response:
                if response.status_code != 200:
                    shown = _reason((await response.aread()).decode(errors="replace"))
                    raise Refusal(502, f"the vLLM server answers {response.status_code}: {shown}")

                async for chunk in _chunks(response):
                    # The last one has the usage and no choice.
                    for choice in chunk.get("choices", []):
                        reason = choice.get("finish_reason") or reason
                        if new := text.add(choice.get("text", "")):
                            yield TextPart(new)
                    num_tokens = (chunk.get("usage") or {}).get("completion_tokens", num_tokens)
        except httpx2.HTTPError as fault:
            raise Refusal(502, f"the vLLM server cannot be reached ({type(fault).__name__})") from None
        yield Ending(reason, num_tokens)


def as_base64(embeddings: Tensor) -> str:
    """Return a tensor in the form that vLLM reads: as ``torch.save`` writes it, in base64."""
    file = io.BytesIO()
    # Not safetensors: vLLM takes no other form. It is only written here; no tensor is ever read from a client.
    torch.save(embeddings, file)
    return base64.b64encode(file.getvalue()).decode("ascii")


async def _chunks(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a stream, read from JSON.

    Raises:
        Refusal: if one is an error, or no JSON.
    """
    async for line in response.aiter_lines():
        if not line.startswith(DATA):
            continue
        data = line.removeprefix(DATA).strip()
        if data == DONE:
            return
        try:
            chunk = json.loads(data)
        except ValueError:
            chunk = {"error": data}
        if "error" in chunk:
            raise Refusal(502, f"the vLLM server fails: {_reason(data)}")
        yield chunk


def _reason(reply: str) -> str:
    """Return the message of an error as vLLM writes it, or the start of what else came."""
    with contextlib.suppress(ValueError, LookupError, TypeError):
        reply = str(json.loads(reply)["error"]["message"])
    return reply[:SHOWN_REPLY_CHARACTERS]


class _StrippedText:
    """A growing text without the spaces around it, as ScaleDown's own answers are."""

    def __init__(self) -> None:
        self._whole, self._num_sent = "", 0

    def add(self, text: str) -> str:
        """Return what is new; spaces at the end wait until more text comes."""
        self._whole += text
        stripped = self._whole.strip()
        new, self._num_sent = stripped[self._num_sent:], len(stripped)
        return new
