"""A chat endpoint on loopback that answers as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """What goes back over the wire."""

    status: int
    text: str
    headers: dict[str, str] = {}


def completion(text: str | None, **usage: int) -> Reply:
    """A chat completion that says ``text``."""
    return Reply(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}))


class Asked:
    """The requests so far, as (body, headers)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[tuple[dict[str, Any], Any]] = []

    def queries(self) -> list[str]:
        return [query_of(body) for body, _ in self.requests]


def query_of(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"].partition("Question: ")[2]


@contextmanager
def chat_server(reply: Callable[[dict[str, Any], int], Reply]) -> Iterator[Asked]:
    """Serve ``reply(body, times)``; ``times`` counts the requests with the same query, this one included."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                asked.requests.append((body, self.headers))
                times = asked.queries().count(query_of(body))
            status, text, headers = reply(body, times)
            content = text.encode()
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    asked = Asked(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
