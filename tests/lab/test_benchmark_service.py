"""The load test of the service: what it sends, and what it would notice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import httpx2
import pytest

from lab.benchmark_service import clients
from lab.benchmark_service.__main__ import main
from lab.benchmark_service.clients import Expected, send_all, streamed_text
from lab.benchmark_service.sent_requests import BROKEN, CUT_OFF, KINDS, SentRequest, drawn_requests
from scaledown.data.world.synthetic import synthetic_records


def test_the_mixture_has_its_shares_and_is_the_same_each_time():
    records = list(synthetic_records(5))
    requests = drawn_requests(records, 2_000, 0.1, 0.2, 8, seed=1)
    counts = Counter(request.kind for request in requests)
    assert counts.keys() == set(KINDS) and abs(counts[BROKEN] - 200) < 50 and abs(counts[CUT_OFF] - 400) < 70
    assert requests == drawn_requests(records, 2_000, 0.1, 0.2, 8, seed=1)
    assert all(json.loads(request.body) for request in requests if request.kind != BROKEN)


def test_a_lost_reply_and_anothers_answer_are_noticed(monkeypatch):
    """By a service that answers every question with the answer of question 1, and loses what is broken."""
    def reply(request):
        if b"broken" in request.content:
            return httpx2.Response(200, json={})
        return httpx2.Response(200, json={"choices": [{"message": {"content": "one"}}]})

    transport = httpx2.MockTransport(reply)
    monkeypatch.setattr(clients.httpx2, "AsyncClient",
                        lambda timeout, make=httpx2.AsyncClient: make(timeout=timeout, transport=transport))
    sent = [SentRequest("whole", b"{}", number) for number in range(3)] + [SentRequest(BROKEN, b"broken", -1, 400)]
    outcome = asyncio.run(send_all("http://service", sent, 2, Expected(["zero", "one", "two"], [0, 0, 0])))
    assert len(outcome.lost) == 1 and "status 200 instead of 400" in outcome.lost[0]
    assert len(outcome.others) == 2 and not outcome.wrong and len(outcome.seconds) == 3


def test_a_stream_that_breaks_off_is_no_answer():
    event = 'data: {"choices": [{"delta": {"content": "Kel"}}]}\n\n'
    assert streamed_text(f"{event}data: [DONE]\n\n") == "Kel"
    with pytest.raises(ValueError, match="ends with"):
        streamed_text(event)


@pytest.mark.slow
def test_the_whole_load_test_in_small(tmp_path, capsys):
    assert main(["--num_requests", "24", "--num_clients", "4", "--output_dir", str(tmp_path)]) == 0
    services = json.loads((tmp_path / "service.json").read_text())["services"]
    for row in services.values():
        assert sum(row["counts"].values()) == 24 and not row["lost"] and not row["others"] and not row["wrong"]
        assert row["cpu_ms"] > 0 and len(row["memory_mib"]) == 1
    assert "exit code 0" in capsys.readouterr().out
