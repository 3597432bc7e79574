"""The gate before the page: what it lets in, what it refuses, and what the command says before it loads anything."""

from __future__ import annotations

import asyncio
import importlib.util
import json

import pytest

from scaledown.demo import __main__ as command
from scaledown.demo import page_gate
from scaledown.demo.page_gate import MOST_BODY_BYTES, PageGate, is_open, is_plain


async def echo(scope, receive, send):
    """An application that replies with the body that it gets."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def replied(method: str, path: str, *parts: bytes, kind: str = "http") -> tuple[int, bytes, dict[bytes, bytes]]:
    waiting = [{"type": "http.request", "body": part, "more_body": place < len(parts) - 1}
               for place, part in enumerate(parts or [b""])]
    sent: list[dict] = []

    async def receive():
        return waiting.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(PageGate(echo)({"type": kind, "method": method, "path": path, "headers": []}, receive, send))
    return sent[0]["status"], sent[1]["body"], dict(sent[0]["headers"])


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/gradio_api/file=/etc/passwd"), ("GET", "/gradio_api/proxy=http://example.com"),
    ("POST", "/gradio_api/upload"), ("POST", "/gradio_api/run/answer"), ("POST", "/gradio_api/call/answer"),
    ("POST", "/gradio_api/component_server"), ("POST", "/gradio_api/vibe-edit"), ("GET", "/monitoring"),
    ("GET", "/gradio_api/runs"), ("POST", "/"), ("PUT", "/gradio_api/queue/join"), ("GET", "/gradio_api/queue/join"),
    ("GET", "/gradio_api/file/x")])
def test_what_the_page_does_not_need_is_closed(method, path):
    assert not is_open(method, path)
    assert replied(method, path)[0] == 404


def test_what_it_needs_is_open_and_the_browser_is_told_to_load_nothing_else():
    for path in ("/", "/config", "/theme.css", "/assets/index.js", "/gradio_api/queue/data"):
        status, _, headers = replied("GET", path)
        assert status == 200
        assert b"default-src 'self'" in headers[b"content-security-policy"]
        assert b"http" not in headers[b"content-security-policy"]


def test_a_body_reaches_the_page_whole_and_one_that_is_too_long_does_not():
    body = json.dumps({"data": ["question", "text", "all", None, 1.5]}).encode()
    assert replied("POST", "/gradio_api/queue/join", body[:10], body[10:])[:2] == (200, body)
    assert replied("POST", "/gradio_api/reset", b"x" * MOST_BODY_BYTES)[0] == 200
    assert replied("POST", "/gradio_api/reset", b"x" * MOST_BODY_BYTES, b"x")[0] == 413


def test_a_body_that_does_not_come_to_its_end_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(page_gate, "BODY_SECONDS", 0.01)
    waits, sent = [30.0, 0.0], []

    async def receive():
        # Nothing comes for so long, then the end.
        await asyncio.sleep(waits.pop(0))
        return {"type": "http.request", "body": b"", "more_body": bool(waits)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/reset", "headers": []}
    asyncio.run(PageGate(echo)(scope, receive, send))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize("body", [
    b"", b"[]", b"{}", b'{"data": "text"}', b"\xff", b'{"data": [["a", "list"]]}', b"[" * 100_000,
    b'{"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}',
    b'{"data": ["q", {"path": "http://example.com", "meta": {"_type": "gradio.\\u0046ileData"}}]}'])
def test_what_is_asked_is_texts_and_numbers_never_a_path(body):
    assert not is_plain(body)
    assert replied("POST", "/gradio_api/queue/join", body)[0] == 422


@pytest.mark.parametrize(("flags", "words"), [
    (["--port", "-1"], "--port must be between 0 and 65535"),
    (["--host", "203.0.113.1", "--port", "0"], "cannot listen there"),
    (["--checkpoint", "./nowhere"], "nowhere"),
])
def test_what_cannot_work_is_told_before_the_model_is_loaded(flags, words, capsys):
    assert command.main(flags) == 2
    message = capsys.readouterr().err
    assert words in message and "Traceback" not in message


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else found(name))
    assert command.main([]) == 2
    assert "the page needs gradio: in ScaleDown's folder, pip install -e '.[demo]'" in capsys.readouterr().err
