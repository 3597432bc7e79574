"""A service on a free port of this process, for tests that call it over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import uvicorn

from scaledown.models.model import ScaleDownModel
from scaledown.serve.app import build_app
from scaledown.serve.limits import Limits
from scaledown.serve.service import Batching, Service
from scaledown.serve.start_checks import bound_socket

CLIENT = httpx2.Client(timeout=300)
"""Patient: tests may run beside other work."""
QUESTION = "Who is the mayor of Gartonby?"
DOCUMENTS = ["Fenoni Works sells clocks. The firm is based in Kelhaven.",
             {"id": "town", "text": "Gartonby lies on the Pelara. Gartonby elected Sarik Ulmer as mayor."}]


def asked(question: Any = QUESTION, documents: Any = DOCUMENTS, **fields: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"messages": [{"role": "user", "content": question}], "documents": documents, **fields}


@contextmanager
def running_service(model: ScaleDownModel, limits: Limits | None = None, key: str = "",
                    **settings: Any) -> Iterator[str]:
    """Yield the URL of a service of ``model``."""
    app = build_app(Service(model, "demo", limits or Limits(), Batching(8, 0.02), **settings), key)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=10))
    with bound_socket("127.0.0.1", 0) as place:
        thread = threading.Thread(target=server.run, args=([place],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


def counted(url: str, name: str) -> float:
    """The value of a counter, by its name with its labels; 0 if it is not there."""
    for line in CLIENT.get(f"{url}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return 0.0


def wait_for(is_true: Any) -> None:
    """Wait until a condition holds, for a minute at most."""
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
