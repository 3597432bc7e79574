"""The gate before all routes: it checks the key, admits a bounded number of requests, and counts them.

It stands before anything of a body is read, and a request leaves it only when its reply is complete or its client has
gone; then its jobs are cancelled, however it ended.
"""

from __future__ import annotations

import hmac
import time

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scaledown.serve.refusals import Refusal
from scaledown.serve.web.service_metrics import ServiceMetrics
from scaledown.serve.work.jobs import Job

HEALTH = "/health"
HUNG_UP = 499
"""The status by which a request is counted whose client has gone before its reply; nginx began to count it so."""
FAILED = 500
OTHER = "other"
JOBS = "scaledown.jobs"


class Gate:
    """An ASGI application around another.

    Args:
        app: the routes.
        paths: theirs; requests to others are counted together.
        max_requests: computed ones (POST) at a time.
        key: that clients must send; "" for none.
        metrics: what is counted.
    """

    def __init__(self, app: ASGIApp, paths: frozenset[str], max_requests: int, key: str,
                 metrics: ServiceMetrics) -> None:
        self._app, self._paths, self._max_requests = app, paths, max_requests
        self._key, self._metrics = key.encode(), metrics
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in or refuse it, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), None

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if refusal := self._refusal(scope):
                await refusal.response()(scope, receive, noting)
            elif scope["method"] == "POST":
                await self._computed(scope, receive, noting)
            else:
                await self._app(scope, receive, noting)
        except Exception:
            # Starlette's reply to a fault of ours is sent outside of this gate.
            status = status or FAILED
            raise
        finally:
            path = scope["path"] if scope["path"] in self._paths else OTHER
            self._metrics.requests.labels(path, str(status or HUNG_UP)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)

    async def _computed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a request that costs something, as one of the open ones."""
        scope[JOBS] = []
        self._num_open += 1
        self._metrics.open_requests.set(self._num_open)
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_open -= 1
            self._metrics.open_requests.set(self._num_open)
            for job in scope[JOBS]:
                job.cancel()

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Return why a request is not let in; None if it is."""
        if scope["path"] == HEALTH:
            return None
        sent = Request(scope).headers.get("authorization", "").removeprefix("Bearer ").strip()
        # In a time that does not tell how much of a wrong key is right.
        if self._key and not hmac.compare_digest(sent.encode(), self._key):
            return Refusal(401, "the key is missing or wrong: send it as Authorization: Bearer KEY",
                           code="invalid_api_key")
        if scope["method"] == "POST" and self._num_open >= self._max_requests:
            return Refusal(429, f"the service has {self._max_requests} requests at hand, and takes no more at a time; "
                                "send it again in a second", code="too_many_requests")
        return None


def note_job(request: Request, job: Job) -> None:
    """Let a job be cancelled when its request is over."""
    request.scope[JOBS].append(job)
