"""The requests of the load test: questions whose answers are known, broken bodies, and clients that hang up."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scaledown.data.records import Record

WHOLE, STREAMED, RANKED, BROKEN, CUT_OFF = KINDS = ("whole", "streamed", "ranked", "broken", "cut off")
LATEST_CUT_SECONDS = 0.2
"""A client that hangs up does so at a random moment up to here."""
BAD_BODIES: tuple[tuple[bytes, int], ...] = (
    (b"", 400), (b"{", 400), (b"[" * 100_000, 400), (b'{"messages": "\xff\xfe"}', 400), (b"[]", 422),
    (b'{"messages": [{"role": "user", "content": "Who?"}]}', 422),
    (b'{"messages": [{"role": "user", "content": "Who?"}], "documents": [1]}', 422),
    (b'{"messages": [{"role": "user", "content": "Who?"}], "documents": ["a"], "max_tokens": 1e999}', 422),
    (b'{"messages": [{"role": "user", "content": "Who?"}], "documents": ["a"], "temperature": NaN}', 422),
    (b'{"messages": [{"role": "user", "content": [{"type": "prompt_embeds"}]}], "documents": ["a"]}', 422),
    (b'{"documents": ["' + b"a" * 5_000_000 + b'"]}', 413))
"""Bodies that the service must refuse, with the status that it must give."""


@dataclass(frozen=True)
class SentRequest:
    """One request, and what must come back.

    Attributes:
        kind: one of ``KINDS``.
        body: JSON, or what poses as it.
        question: the number of the question; -1 for a broken body.
        status: of HTTP.
        cut_after: seconds until the client hangs up.
    """

    kind: str
    body: bytes
    question: int
    status: int = 200
    cut_after: float = 0.0


def drawn_requests(records: Sequence[Record], number: int, broken_share: float, cut_off_share: float, max_tokens: int,
                   seed: int) -> list[SentRequest]:
    """Return ``number`` requests: broken and cut off ones by their shares, and of the others most are whole answers."""
    rng = random.Random(seed)
    # A fifth of the good ones is streamed, a fifth ranks.
    good_share = 1 - broken_share - cut_off_share
    shares = (0.6 * good_share, 0.2 * good_share, 0.2 * good_share, broken_share, cut_off_share)
    requests = []
    for kind in rng.choices(KINDS, shares, k=number):
        if kind == BROKEN:
            body, status = rng.choice(BAD_BODIES)
            requests.append(SentRequest(kind, body, -1, status))
            continue
        question = rng.randrange(len(records))
        body = _body(kind, records[question], max_tokens, rng)
        requests.append(SentRequest(kind, json.dumps(body).encode(), question,
                                    cut_after=rng.uniform(0.0, LATEST_CUT_SECONDS)))
    return requests


def _body(kind: str, record: Record, max_tokens: int, rng: random.Random) -> dict[str, Any]:
    if kind == RANKED:
        return {"query": record.query, "documents": list(record.documents)}
    return {"messages": [{"role": "user", "content": record.query}], "documents": list(record.documents),
            "max_tokens": max_tokens, "stream": kind == STREAMED or (kind == CUT_OFF and rng.random() < 0.5)}
