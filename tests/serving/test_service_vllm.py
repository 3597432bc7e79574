"""The service in front of a vLLM server: a stand-in for it that reads and replies as vLLM 0.32 was seen to do.

``test_vllm_itself.py`` asks vLLM, if it is installed.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from running_service import CLIENT, DOCUMENTS, QUESTION, asked, counted, running_service
from transformers import PreTrainedModel

from scaledown import ScaleDownModel
from scaledown.serve.start_checks import VLLM_KEY, vllm_model
from scaledown.serve.work.vllm import VllmServer

CHAT = "/v1/chat/completions"
GENERATOR = {"id": "merged_generator", "object": "model", "parent": None}
ADAPTER = {"id": "scaledown", "object": "model", "parent": "merged_generator"}


class StandIn(BaseHTTPRequestHandler):
    """Answers ``/v1/models`` and ``/v1/completions`` with the merged generator, as vLLM does."""

    generator: PreTrainedModel
    decode: object
    bodies: list[dict] = []
    keys: list[str | None] = []
    fault: str | None = None
    served: list[dict] = [GENERATOR]

    def do_GET(self) -> None:
        self._send(200, json.dumps({"object": "list", "data": self.served}), "application/json")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        self.keys.append(self.headers["Authorization"])
        if self.fault is not None:
            self._send(400, self.fault, "application/json")
            return

        # As vLLM loads it: a 2-D tensor and nothing else.
        data = base64.b64decode(body["prompt_embeds"], validate=True)
        prompt = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        assert prompt.dim() == 2 and prompt.dtype == torch.float32
        assert prompt.untyped_storage().nbytes() == prompt.nbytes, "more than the prompt was sent"
        assert "prompt" not in body and body["temperature"] == 0 and self.path == "/v1/completions"

        ids = self.generator.generate(inputs_embeds=prompt[None], max_new_tokens=body["max_tokens"], do_sample=False)[0]
        events = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in self.pieces(ids)]
        events.append({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
        events.append({"choices": [], "usage": {"prompt_tokens": len(prompt), "completion_tokens": len(ids),
                                                "total_tokens": len(prompt) + len(ids)}})
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        self._send(200, "".join([*lines, "data: [DONE]\n\n"]), "text/event-stream")

    def pieces(self, ids: torch.Tensor) -> Iterator[str]:
        for token in ids:
            yield self.decode(token[None], skip_special_tokens=True)

    def _send(self, status: int, text: str, kind: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def model() -> ScaleDownModel:
    return ScaleDownModel.from_pretrained("embedded", device="cpu")


@pytest.fixture
def vllm_url(model: ScaleDownModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the stand-in."""
    monkeypatch.setattr(StandIn, "generator", model.merge(), raising=False)
    monkeypatch.setattr(StandIn, "decode", model.processor.tokenizer.decode, raising=False)
    monkeypatch.setattr(StandIn, "bodies", [])
    monkeypatch.setattr(StandIn, "keys", [])
    monkeypatch.setenv(VLLM_KEY, "secret")
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_the_prompt_goes_to_vllm_as_embeddings_and_its_answer_comes_back(model: ScaleDownModel, vllm_url: str) -> None:
    with running_service(model, vllm=VllmServer(vllm_url, vllm_model(vllm_url))) as url:
        whole = CLIENT.post(url + CHAT, json=asked(max_tokens=9)).json()
        assert whole["choices"][0]["message"]["content"] == model.answer(QUESTION, DOCUMENTS) == "Sarik Ulmer"
        assert whole["choices"][0]["finish_reason"] == "stop" and len(whole["scaledown"]["sources"]) == 2
        [body], [key] = StandIn.bodies, StandIn.keys
        assert body["model"] == "merged_generator" and body["max_tokens"] == 9 and key == "Bearer secret"

        sent = torch.load(io.BytesIO(base64.b64decode(body["prompt_embeds"])), weights_only=True)
        assert torch.equal(sent, model.prompt_embeds(QUESTION, DOCUMENTS))
        assert whole["usage"]["prompt_tokens"] == len(sent) and whole["usage"]["completion_tokens"] > 2

        stream = CLIENT.post(url + CHAT, json=asked(stream=True)).text
        chunks = [json.loads(line.removeprefix("data: ")) for line in stream.split("\n\n")[:-2]]
        texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
        assert "".join(texts) == "Sarik Ulmer" and len(texts) > 3


def test_a_vllm_server_that_fails_is_named(model: ScaleDownModel, vllm_url: str,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    message = "You must set `--enable-prompt-embeds` to input `prompt_embeds`"
    fault = {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}
    monkeypatch.setattr(StandIn, "fault", json.dumps(fault))
    with running_service(model, vllm=VllmServer(vllm_url, "merged_generator")) as url:
        reply = CLIENT.post(url + CHAT, json=asked())
        assert reply.status_code == 502
        assert reply.json()["error"]["message"] == f"the vLLM server answers 400: {message}"
        assert "data: {\"error\"" in CLIENT.post(url + CHAT, json=asked(stream=True)).text
        assert counted(url, "scaledown_open_requests") == 0

    with running_service(model, vllm=VllmServer("http://127.0.0.1:9/v1", "merged_generator")) as url:
        reply = CLIENT.post(url + CHAT, json=asked())
        assert reply.status_code == 502 and "cannot be reached" in reply.json()["error"]["message"]
    with pytest.raises(ValueError, match="--vllm_url http://127.0.0.1:9/v1: cannot be used"):
        vllm_model("http://127.0.0.1:9/v1")


@pytest.mark.parametrize("served", [[], [None], ["a"], [{"id": 7}], {"id": "a"}, 3,
                                    [GENERATOR, ADAPTER | {"id": None}]])
def test_a_list_of_models_that_is_none_is_told(vllm_url: str, served: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "served", served)
    with pytest.raises(ValueError, match="/v1/models does not list a model as vLLM does"):
        vllm_model(vllm_url)


def test_of_a_generator_with_an_adapter_the_adapter_is_asked(vllm_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "served", [GENERATOR, ADAPTER])
    assert vllm_model(vllm_url) == "scaledown"
    monkeypatch.setattr(StandIn, "served", [GENERATOR, ADAPTER, ADAPTER | {"id": "another"}])
    with pytest.raises(ValueError, match=r"serves several adapters \(scaledown, another\)"):
        vllm_model(vllm_url)
