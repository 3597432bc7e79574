"""The routes of the service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from scaledown.serve.refusals import Refusal
from scaledown.serve.service import Service
from scaledown.serve.web.body import read_form
from scaledown.serve.web.forms import ChatForm, RerankForm
from scaledown.serve.web.gate import HEALTH, Gate, note_job
from scaledown.serve.web.replies import plain_ranking, ranking
from scaledown.serve.work.jobs import Scores

CHAT, MODELS, METRICS = "/v1/chat/completions", "/v1/models", "/metrics"
RERANK, RERANK_OF_COHERE, RERANK_OF_TEI = "/v1/rerank", "/v2/rerank", "/rerank"
PATHS = frozenset({CHAT, RERANK, RERANK_OF_COHERE, RERANK_OF_TEI, MODELS, METRICS, HEALTH})
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


def build_app(service: Service, key: str = "") -> FastAPI:
    """Return the application; ``key`` is what clients must send, "" for none."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    # Without pages of documentation, whose scripts would come from elsewhere.
    app = FastAPI(title="ScaleDown", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _failed)
    _add_computed_routes(app, service)
    _add_other_routes(app, service)
    app.add_middleware(Gate, paths=PATHS, max_requests=service.limits.max_requests, key=key, metrics=service.metrics)
    return app


def _add_computed_routes(app: FastAPI, service: Service) -> None:
    """Add the routes that ask the model."""

    @app.post(CHAT)
    async def chat(request: Request) -> Response:
        form = await read_form(request, ChatForm, service.limits)
        job = service.answer_job(form)
        note_job(request, job)
        if not form.stream:
            return JSONResponse(await _unless_gone(request, service.whole_answer(job)))

        # What fails before the first token still gets a status of its own.
        parts = service.answer_parts(job)
        opening = await _unless_gone(request, _first(parts))
        has_usage = form.stream_options is not None and form.stream_options.include_usage
        return StreamingResponse(service.events(parts, opening, has_usage), media_type="text/event-stream",
                                 headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def ranked(request: Request) -> tuple[RerankForm, Scores]:
        form = await read_form(request, RerankForm, service.limits)
        job = service.ranking_job(form)
        note_job(request, job)
        return form, await _unless_gone(request, service.scores(job))

    @app.post(RERANK)
    @app.post(RERANK_OF_COHERE)
    async def rerank(request: Request) -> Response:
        return JSONResponse(ranking(*await ranked(request), service.name))

    @app.post(RERANK_OF_TEI)
    async def rerank_plainly(request: Request) -> Response:
        return JSONResponse(plain_ranking(*await ranked(request)))


def _add_other_routes(app: FastAPI, service: Service) -> None:
    """Add the routes that say something about the service."""
    started = int(time.time())

    @app.get(MODELS)
    async def models() -> Response:
        model = {"id": service.name, "object": "model", "created": started, "owned_by": "scaledown"}
        return JSONResponse({"object": "list", "data": [model]})

    # Process managers ask here, without a key.
    @app.get(HEALTH)
    async def health() -> Response:
        if service.is_healthy:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "requests are not computed any more; start the service again"}, 503)

    @app.get(METRICS)
    async def metrics() -> Response:
        return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of ``work``, which ends at once if the client hangs up.

    Raises:
        Refusal: if it does; nobody will read it.
    """
    computed, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({computed, gone}, return_when=asyncio.FIRST_COMPLETED)
        if computed.done():
            return computed.result()
        raise Refusal(499, "the client has hung up")
    finally:
        for task in (computed, gone):
            task.cancel()
        await asyncio.gather(computed, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    """Return when the client has hung up: behind the body nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _first(parts: AsyncIterator[Result]) -> Result:
    return await anext(parts)


async def _refused(_: Request, refusal: Refusal) -> Response:
    return refusal.response()


async def _no_route(request: Request, fault: HTTPException) -> Response:
    """Return OpenAI's form of an error for a path or method that there is not."""
    response = Refusal(fault.status_code, f"{request.method} {request.url.path}: {fault.detail}").response()
    # Of a 405: the methods that there are.
    response.headers.update(fault.headers or {})
    return response


async def _failed(request: Request, fault: Exception) -> Response:
    """Return an error that says nothing of the inside, which the log does."""
    logger.error("a request to %s failed", request.url.path, exc_info=fault)
    return Refusal(500, "the service failed at this request; its log says why").response()
