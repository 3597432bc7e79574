"""The HTTP service: clients read its replies as they read others', each gets its own answer, and mistakes are told."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from running_service import CLIENT, DOCUMENTS, QUESTION, asked, counted, running_service, wait_for

from scaledown import ScaleDownModel
from scaledown.data.world.synthetic import synthetic_records
from scaledown.serve import app
from scaledown.serve.limits import Limits
from scaledown.serve.web import replies

TOWN = DOCUMENTS[1]["text"]
LIMITS = Limits(max_body_mib=0.25, max_documents=8, max_input_tokens=2_000, max_new_tokens=40)
CHAT, RERANK = "/v1/chat/completions", "/v1/rerank"


@pytest.fixture(scope="module")
def model():
    return ScaleDownModel.from_pretrained("embedded", device="cpu").for_answering()


@pytest.fixture(scope="module")
def url(model):
    with running_service(model, LIMITS) as url:
        yield url


def test_every_client_gets_its_own_answer(model, url):
    """Of requests computed together, with different lengths, choices of documents and kinds."""
    records = list(synthetic_records(24, seed=7))

    def send(number):
        record, documents = records[number], list(records[number].documents)
        max_tokens, keep = (2, 16)[number % 2], (None, 1, "auto")[number % 3]
        if number % 4 == 3:
            reply = CLIENT.post(url + RERANK, json={"query": record.query, "documents": documents}).json()
            scores = {result["index"]: result["relevance_score"] for result in reply["results"]}
            order, wanted = model.rerank(record.query, documents)
            assert list(scores) == order
            assert [scores[place] for place in range(len(documents))] == pytest.approx(wanted, abs=1e-3)
            return "ranked"
        body = asked(record.query, documents, max_tokens=max_tokens, keep_documents=keep)
        reply = CLIENT.post(url + CHAT, json=body).json()
        wanted = model.answer_with_sources(record.query, documents, max_new_tokens=max_tokens, keep_documents=keep)
        assert reply["choices"][0]["message"]["content"] == wanted.text
        assert [source["document"] for source in reply["scaledown"]["sources"]] == list(wanted.documents)
        return reply["choices"][0]["finish_reason"]

    with ThreadPoolExecutor(24) as clients:
        ends = list(clients.map(send, range(24)))
    assert {"ranked", "stop", "length"} == set(ends)


def test_openais_client_works_unchanged(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    [served] = client.models.list().data
    body = {"model": served.id, "messages": [{"role": "user", "content": QUESTION}],
            "extra_body": {"documents": DOCUMENTS}}
    whole = client.chat.completions.create(**body)
    assert whole.choices[0].message.content == "Sarik Ulmer" and whole.choices[0].finish_reason == "stop"
    usage = whole.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    [firm, town] = whole.model_extra["scaledown"]["sources"]
    assert town["id"] == "town" and town["score"] > firm["score"] and TOWN[town["start"]:town["end"]] == TOWN

    chunks = list(client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Sarik Ulmer"
    assert len(chunks) > 4 and chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].usage == usage
    assert chunks[-2].model_extra["scaledown"] == whole.model_extra["scaledown"]

    with pytest.raises(openai.UnprocessableEntityError, match="documents: is missing"):
        client.chat.completions.create(model=served.id, messages=body["messages"])
    with pytest.raises(openai.NotFoundError, match="'demo'"):
        client.chat.completions.create(**body | {"model": "gpt"})


def test_usage_counts_the_prompt_as_it_is_and_as_it_would_be_in_full_text(model, url):
    usage = CLIENT.post(url + CHAT, json=asked()).json()["usage"]
    memory = model.compress(QUESTION, DOCUMENTS)
    assert usage["prompt_tokens"] == model.prompts(QUESTION, memory).num_prompt_tokens[0]
    full_text = model.processor.text_prompts([QUESTION], [[DOCUMENTS[0], TOWN]])
    assert usage["full_text_prompt_tokens"] == len(full_text[0])


def test_long_documents_and_text_beside_memory(model, url):
    book = {"id": "book", "text": "\n\n".join([*(f"Station {number} lies on the line." for number in range(60)), TOWN])}
    reply = CLIENT.post(url + CHAT, json=asked(documents=[book], keep_documents=1, text_documents=1)).json()
    wanted = model.answer_with_sources(QUESTION, [book], keep_documents=1, text_documents=1)
    [source] = reply["scaledown"]["sources"]
    assert (source["passage"], source["start"], source["end"]) == (wanted.passages[0], *wanted.spans[0])
    assert source["passage"] > 0 and source["is_text"]


@pytest.mark.parametrize("path", [RERANK, "/v2/rerank"])
def test_a_ranking_has_the_form_of_cohere_and_jina(url, path):
    body = {"model": "demo", "query": QUESTION, "documents": [DOCUMENTS[0], TOWN, {"text": "Tea is sold."}], "top_n": 2,
            "return_documents": True, "max_tokens_per_doc": 4096}
    reply = CLIENT.post(url + path, json=body).json()
    [first, second] = reply["results"]
    assert first["index"] == 1 and first["document"] == {"text": TOWN}
    assert first["relevance_score"] > second["relevance_score"]
    assert reply["usage"]["total_tokens"] > 20 and reply["id"]

    body["documents"] = [{"title": "Gartonby", "text": TOWN, "id": 7}]
    [only] = CLIENT.post(url + path, json=body).json()["results"]
    assert only["document"] == {"title": "Gartonby", "text": TOWN, "id": 7}


def test_a_ranking_has_the_form_of_text_embeddings_inference(url):
    body = {"query": QUESTION, "texts": [DOCUMENTS[0], TOWN], "raw_scores": True, "return_text": True}
    [first, second] = CLIENT.post(f"{url}/rerank", json=body).json()
    assert first["index"] == 1 and first["text"] == TOWN and first["score"] > second["score"]
    assert first.keys() == {"index", "score", "text"}
    body["texts"] = [{"title": "Gartonby", "text": TOWN}]
    [only] = CLIENT.post(f"{url}/rerank", json=body).json()
    assert (only["title"], only["text"]) == ("Gartonby", TOWN)


def chat(**fields):
    return json.dumps(asked(**fields)).encode()


@pytest.mark.parametrize(("body", "status", "words"), [
    (b"", 400, "no JSON"),
    (b"{", 400, "no JSON"),
    (b"[" * 20_000, 400, "no JSON"),
    (b'{"messages": "\xff"}', 400, "no JSON"),
    (b'{"messages": "\\ud800"}', 400, "no JSON"),
    (b'{"a": ' + b"9" * 5_000 + b"}", 400, "out of range"),
    (b"[]", 422, "must be an object"),
    (b'{"a": 1, "b": "' + b"x" * 300_000 + b'"}', 413, "0.25 MiB"),
    (chat(documents=["a"] * 9), 422, "documents: 9 are too many"),
    (chat(documents=["word " * 5_000]), 422, "takes 2,000"),
    (chat(documents=[]), 422, "documents: must not be empty"),
    (chat(documents="a"), 422, "documents: must be a valid array"),
    (chat(documents=["a", 3]), 422, "documents.1: must be a string, or an object"),
    (chat(documents=[{"text": "a", "embedding": [0.5]}]), 422, "documents.0.embedding: no field"),
    (chat(max_tokens=41), 422, "max_tokens: 41 are too many"),
    (chat(max_tokens=0), 422, "max_tokens"),
    (chat(max_tokens=True), 422, "max_tokens"),
    (chat(temperature=0.7), 422, "temperature must be left out"),
    (chat(temperature=float("nan")), 422, "temperature must be left out"),
    (chat(n=2), 422, "n must be left out"),
    (chat(keep_document=1), 422, "keep_document: no field"),
    (chat(keep_documents=0), 422, 'keep_documents: must be a whole number above 0, or "auto"'),
    (chat(keep_documents="best"), 422, 'keep_documents: must be a whole number above 0, or "auto"'),
    (chat(documents=[{"text": "a", "id": [1]}]), 422, "documents.0.id: must be a string or a whole number"),
    (chat(question=None), 422, "messages: the content of the message must be a string, or a list of parts of type"),
    (chat(keep_tokens=1), 422, "keep_tokens must be a whole number of at least 8"),
    (chat(question=""), 422, "messages: must not be empty"),
    (chat(question=[{"type": "prompt_embeds", "data": "AA=="}]), 422, "only parts of type text"),
    (chat(prompt_embeds="AA=="), 422, "prompt_embeds: no field"),
    (json.dumps({"messages": [{"role": "system", "content": "a"}], "documents": ["a"]}).encode(), 422, "one message"),
    (json.dumps(asked() | {"messages": asked()["messages"] * 3}).encode(), 422, "one message"),
])
def test_a_mistake_gets_one_clear_sentence(url, body, status, words):
    reply = CLIENT.post(url + CHAT, content=body, headers={"Content-Type": "application/json"})
    error = reply.json()["error"]
    assert reply.status_code == status and words in error["message"], error
    assert error.keys() == {"message", "type", "param", "code"} and "\n" not in error["message"]


def test_a_body_without_a_length_is_bounded_too(url):
    parts = (b"x" * 50_000 for _ in range(100))
    reply = CLIENT.post(url + CHAT, content=parts, headers={"Content-Type": "application/json"})
    assert reply.status_code == 413


def test_other_paths_methods_and_types_get_the_same_form(url):
    for reply, status in ((CLIENT.get(f"{url}/nowhere"), 404), (CLIENT.get(url + CHAT), 405),
                          (CLIENT.post(url + CHAT, content=b"{}", headers={"Content-Type": "text/plain"}), 415)):
        assert reply.status_code == status and reply.json()["error"]["message"]
    assert CLIENT.get(url + CHAT).headers["Allow"] == "POST"


def test_a_key_is_asked_for_before_anything_is_read(model):
    with running_service(model, key="secret") as url:
        assert CLIENT.get(f"{url}/health").json() == {"status": "ok"}
        for headers in ({}, {"Authorization": "Bearer secre"}, {"Authorization": "Bearer s\xe9cret".encode("latin-1")}):
            assert CLIENT.post(url + CHAT, json=asked(), headers=headers).status_code == 401
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="secret")
        assert client.models.list().data[0].id == "demo"


def open_request(url, body=b""):
    """A connection with a request whose body has not come to its end."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                       f"Content-Length: {len(body) or 100}\r\n\r\n".encode() + body)
    return connection


def test_more_requests_than_the_bound_are_sent_away_and_let_in_later(model):
    with running_service(model, Limits(max_requests=2)) as url:
        slow = [open_request(url), open_request(url)]
        wait_for(lambda: counted(url, "scaledown_open_requests") == 2)
        refused = CLIENT.post(url + CHAT, json=asked())
        assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
        assert refused.json()["error"]["type"] == "rate_limit_error"

        for connection in slow:
            connection.close()
        wait_for(lambda: counted(url, "scaledown_open_requests") == 0)
        assert CLIENT.post(url + CHAT, json=asked()).status_code == 200


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_client_that_hangs_up_frees_its_place(model, is_streamed):
    with running_service(model, Limits(max_requests=1)) as url:
        connection = open_request(url, json.dumps(asked(max_tokens=500, stream=is_streamed)).encode())
        connection.close()
        wait_for(lambda: counted(url, "scaledown_open_requests") == 0)
        assert CLIENT.post(url + CHAT, json=asked()).json()["choices"][0]["message"]["content"] == "Sarik Ulmer"


def test_a_fault_of_ours_is_counted_as_one(model, monkeypatch):
    monkeypatch.setattr(app, "ranking", lambda *_: {}["broken"])
    with running_service(model) as url:
        # The server ends the connection after such a reply, so the client must not keep it.
        reply = CLIENT.post(url + RERANK, json={"query": QUESTION, "documents": DOCUMENTS},
                            headers={"Connection": "close"})
        assert reply.status_code == 500 and "broken" not in reply.text
        assert counted(url, f'scaledown_requests_total{{path="{RERANK}",status="500"}}') == 1
        assert counted(url, f'scaledown_requests_total{{path="{RERANK}",status="499"}}') == 0


def test_an_event_has_no_number_that_is_no_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        replies.event({"score": float("nan")})


def test_metrics_count_tokens_with_and_without_compression(url):
    before = [counted(url, f'scaledown_tokens_total{{kind="{kind}"}}') for kind in ("prompt", "full_text", "answer")]
    usage = CLIENT.post(url + CHAT, json=asked()).json()["usage"]
    after = [counted(url, f'scaledown_tokens_total{{kind="{kind}"}}') for kind in ("prompt", "full_text", "answer")]
    grown = [late - early for late, early in zip(after, before, strict=True)]
    assert grown == [usage["prompt_tokens"], usage["full_text_prompt_tokens"], usage["completion_tokens"]]
    assert counted(url, f'scaledown_requests_total{{path="{CHAT}",status="200"}}') > 0
