"""The gate before the page: Gradio has many routes, and this page needs few of them.

Closed are those that take or give files, fetch from other machines, edit the app, or call functions by name. What may
be sent is bounded and plain: texts and numbers, no object in which Gradio would look for a path or an address. And the
browser is told to load nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
from json import JSONDecodeError
from typing import Any

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scaledown.files import parse_json
from scaledown.serve.web.body import BODY_SECONDS

MOST_BODY_BYTES = 4 * 2**20
"""A file of 1 MiB takes 1.4 MiB in base64."""
API = "/gradio_api"
ASK = f"{API}/queue/join"
READ_PATHS = frozenset({"/", "/config", "/theme.css", "/manifest.json", "/favicon.ico", "/robots.txt", f"{API}/info",
                        f"{API}/app_id", f"{API}/startup-events", f"{API}/queue/data"})
READ_FOLDERS = ("/assets/", "/static/", "/svelte/", f"{API}/heartbeat/")
SEND_PATHS = frozenset({ASK, f"{API}/cancel", f"{API}/reset"})
# Gradio's own page has scripts and styles in it, and makes functions from texts.
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
          "img-src 'self' data: blob:; font-src 'self' data:; form-action 'self'; base-uri 'self'")


class PageGate:
    """An ASGI application around the page's.

    Args:
        app: the page's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http" or not is_open(scope["method"], scope["path"]):
            await self._refuse(404, "this page has no such address", scope, receive, send)
            return

        if scope["method"] == "POST":
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await _read(receive)
            except TimeoutError:
                await self._refuse(408, f"the body did not come within {BODY_SECONDS:g} seconds", scope, receive, send)
                return
            if body is None:
                await self._refuse(413, f"more than {MOST_BODY_BYTES // 2**20} MiB", scope, receive, send)
                return
            if scope["path"] == ASK and not is_plain(body):
                await self._refuse(422, "this page takes texts and numbers alone", scope, receive, send)
                return
            receive = _again(body, receive)
        await self._app(scope, receive, _with_policy(send))

    async def _refuse(self, status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response = PlainTextResponse(text, status)
        await response(scope, receive, send)


def is_open(method: str, path: str) -> bool:
    """Return whether the page needs this address."""
    if method == "POST":
        return path in SEND_PATHS
    return method in ("GET", "HEAD") and (path in READ_PATHS or path.startswith(READ_FOLDERS))


def is_plain(body: bytes) -> bool:
    """Return whether what is sent to a function of the page consists of texts and numbers."""
    try:
        sent = parse_json(body)
    except (JSONDecodeError, UnicodeDecodeError):
        return False
    data = sent.get("data") if isinstance(sent, dict) else None
    return isinstance(data, list) and all(_is_plain_value(value) for value in data)


def _is_plain_value(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


async def _read(receive: Receive) -> bytes | None:
    """Return a body, of which never more than the limit is held; None if it is longer."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MOST_BODY_BYTES:
            return None
        # A client that has gone sends nothing more either.
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read, and then goes on with ``receive``."""
    left = [body]

    async def receive_again() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return receive_again


def _with_policy(send: Send) -> Send:
    async def send_with_policy(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", []), (b"content-security-policy", POLICY.encode()),
                       (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
            message = {**message, "headers": headers}
        await send(message)

    return send_with_policy
