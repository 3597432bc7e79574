"""Clients that send requests at once, check each reply, and note how long it took."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from lab.benchmark_service.sent_requests import BROKEN, CUT_OFF, RANKED, STREAMED, SentRequest

LONGEST_SECONDS = 120.0
PATHS = {RANKED: "/v1/rerank"}
"""Of kinds that are no chat completions."""


@dataclass
class Outcome:
    """The outcome of some requests.

    Attributes:
        seconds: of each good one, from sending it to the end of its reply.
        counts: the number of each kind.
        lost: those without a reply, or with another status than they must have.
        others: answers that are those of another question.
        wrong: answers that are no question's, such as one that rounds to another token.
        elapsed: seconds from the first to the last.
    """

    seconds: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    elapsed: float = 0.0

    def add(self, other: Outcome) -> None:
        """Take over what another one has."""
        self.seconds += other.seconds
        for kind, number in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + number
        self.lost, self.others, self.wrong = (self.lost + other.lost, self.others + other.others,
                                              self.wrong + other.wrong)
        self.elapsed += other.elapsed


@dataclass(frozen=True)
class Expected:
    """The model's own words when it is called directly: an answer and the best document of each question."""

    answers: Sequence[str]
    best: Sequence[int]


async def send_all(url: str, requests: Sequence[SentRequest], num_clients: int, expected: Expected) -> Outcome:
    """Send requests by ``num_clients`` clients, each of which sends its next one when it has its reply."""
    outcome, left = Outcome(), iter(requests)
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(num_clients):
            group.create_task(_client(url, left, expected, outcome))
    outcome.elapsed = time.perf_counter() - started
    return outcome


async def _client(url: str, left: Iterator[SentRequest], expected: Expected, outcome: Outcome) -> None:
    async with httpx2.AsyncClient(timeout=LONGEST_SECONDS) as client:
        for request in left:
            outcome.counts[request.kind] = outcome.counts.get(request.kind, 0) + 1
            await _send(client, url + PATHS.get(request.kind, "/v1/chat/completions"), request, expected, outcome)


async def _send(client: httpx2.AsyncClient, url: str, request: SentRequest, expected: Expected,
                outcome: Outcome) -> None:
    """Send one request, and sort its reply."""
    started = time.perf_counter()
    sent = client.post(url, content=request.body, headers={"Content-Type": "application/json"})
    try:
        if request.kind == CUT_OFF:
            # Its reply may come before the client hangs up; then the next one begins.
            async with asyncio.timeout(request.cut_after):
                await sent
            return
        reply = await sent
    except TimeoutError:
        return
    except httpx2.HTTPError as fault:
        outcome.lost.append(f"{request.kind}: {type(fault).__name__} {fault}")
        return

    if reply.status_code != request.status:
        outcome.lost.append(f"{request.kind}: status {reply.status_code} instead of {request.status}: "
                            f"{reply.text[:200]}")
    elif request.kind != BROKEN:
        outcome.seconds.append(time.perf_counter() - started)
        _compare(request, reply, expected, outcome)


def _compare(request: SentRequest, reply: httpx2.Response, expected: Expected, outcome: Outcome) -> None:
    if request.kind == RANKED:
        found: Any = reply.json()["results"][0]["index"]
        wanted, all_wanted = expected.best[request.question], ()
    else:
        found = streamed_text(reply.text) if request.kind == STREAMED else (
            reply.json()["choices"][0]["message"]["content"])
        wanted, all_wanted = expected.answers[request.question], expected.answers
    if found != wanted:
        place = outcome.others if found in all_wanted else outcome.wrong
        place.append(f"{request.kind}, question {request.question}: {found!r} instead of {wanted!r}")


def streamed_text(reply: str) -> str:
    """Return the text of a stream's events.

    Raises:
        ValueError: if the stream does not end as it should.
    """
    lines = [line.removeprefix("data: ") for line in reply.splitlines() if line]
    if lines[-1] != "[DONE]":
        raise ValueError(f"a stream ends with {lines[-1]!r}")
    chunks = map(json.loads, lines[:-1])
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
