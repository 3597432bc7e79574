"""The command that serves: it starts, ends what runs at SIGTERM, and tells at once what cannot work."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import uvicorn
from running_service import CLIENT, asked

from scaledown import ScaleDownModel
from scaledown.config import ScaleDownConfig
from scaledown.models.serving.disk.disk_store import DiskStore
from scaledown.models.serving.disk.memory_store import MemoryStore
from scaledown.serve import __main__ as command
from scaledown.serve.start_checks import bound_socket, is_loopback
from scaledown.serve.telling_server import TellingServer

ROOT = Path(__file__).resolve().parents[2]


def started(*flags: str, **environment: str) -> tuple[subprocess.Popen, str]:
    """A service in a process of its own, and its address."""
    process = subprocess.Popen([sys.executable, "-m", "scaledown.serve", "--device", "cpu", *flags], cwd=ROOT,
                               text=True, stdout=subprocess.PIPE, env=os.environ | environment)
    line = process.stdout.readline()
    assert line.startswith("ready: embedded on http://127.0.0.1:"), line
    return process, line.split()[-1]


@pytest.mark.slow
def test_sigterm_lets_what_runs_end_and_a_killed_service_starts_anew():
    process, url = started("--port", "0")
    with CLIENT.stream("POST", f"{url}/v1/chat/completions", json=asked(stream=True)) as reply:
        lines = reply.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Sarik Ulmer"
    assert process.wait(60) == 0
    process.stdout.close()

    port = url.rpartition(":")[2]
    for _ in range(2):
        process, url = started("--port", port)
        assert CLIENT.post(f"{url}/v1/chat/completions", json=asked()).status_code == 200
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(("flags", "words"), [
    (["--port", "70000"], "--port must be between 0 and 65535"),
    (["--host", "203.0.113.1"], "cannot listen there"),
    (["--host", "no such host"], "cannot listen there"),
    (["--host", "h\xf6st..x", "--port", "0"], "--host h\xf6st..x: is no address and no name of a machine"),
    (["--max_requests", "0"], "--max_requests must be above 0"),
    (["--batch_wait_ms", "-1"], "--batch_wait_ms must be at least 0"),
    (["--vllm_url", "localhost:8001"], "--vllm_url must look like"),
    (["--vllm_url", "http://me:secret@localhost:8001/v1"], "--vllm_url must hold no login and no query"),
    (["--vllm_url", "http://localhost:abc/v1"], "--vllm_url must look like"),
    (["--vllm_url", "http://localhost:99999/v1"], "--vllm_url must look like"),
    (["--vllm_url", "http://localhost:8001/v1\n"], "--vllm_url must look like"),
    (["--vllm_url", "http://h\xf6st..x/v1", "--port", "0"], "cannot be used"),
    (["--vllm_url", "http://127.0.0.1:9/v1", "--port", "0"], "cannot be used"),
    (["--read_ahead", "nowhere"], "fill one with"),
])
def test_what_cannot_work_is_told_at_once(flags, words, capsys):
    assert command.main(flags) == 2
    assert words in capsys.readouterr().err


def test_a_taken_port_and_an_unusable_key_are_told(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command.main(["--port", str(taken.getsockname()[1])]) == 2
    assert "Address already in use" in capsys.readouterr().err
    monkeypatch.setenv(command.KEY, "sch\xfcssel")
    assert command.main([]) == 2
    assert "SCALEDOWN_API_KEY" in capsys.readouterr().err
    monkeypatch.delenv(command.KEY)
    monkeypatch.setenv(command.VLLM_KEY, "sch\xfcssel")
    assert command.main(["--vllm_url", "http://127.0.0.1:9/v1", "--port", "0"]) == 2
    assert "VLLM_API_KEY, in the environment, holds characters" in capsys.readouterr().err


def test_of_two_services_that_start_at_once_on_one_port_the_second_is_told():
    with bound_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bound_socket("127.0.0.1", port) as second:
            first.listen()
            server = TellingServer(uvicorn.Config(lambda *_: None, lifespan="off"), "demo")
            with pytest.raises(ValueError, match=f"--port {port}: cannot listen there .Address already in use"):
                server.run(sockets=[second])


def test_a_store_of_another_checkpoint_is_told_before_requests_come(tmp_path, capsys, monkeypatch):
    generator = tiny.generator_folder(tmp_path / "generator")
    config = ScaleDownConfig(generator_model=str(generator), num_layers=2, num_memory_tokens=2,
                             input_order="document_first")
    ScaleDownModel(config).save_pretrained(tmp_path / "checkpoint")
    store = DiskStore(tmp_path / "store")
    ScaleDownModel(config).read_documents(["Ada sings."], store)
    store.close()

    served = []
    monkeypatch.setattr(TellingServer, "run", lambda *_, **__: served.append("served"))
    flags = ["--checkpoint", str(tmp_path / "checkpoint"), "--port", "0", "--device", "cpu", "--read_ahead"]
    assert command.main([*flags, str(store.folder)]) == 2
    assert "were read by another checkpoint" in capsys.readouterr().err and not served

    MemoryStore(tmp_path / "memory").close()
    assert command.main([*flags, str(tmp_path / "memory")]) == 2
    assert "holds memory without a query, and a service needs keys and values" in capsys.readouterr().err and not served

    DiskStore(tmp_path / "own").close()
    assert command.main([*flags, str(tmp_path / "own")]) == 0 and served


def test_only_this_machine_reaches_a_service_unless_told_otherwise():
    assert is_loopback(command.build_parser().parse_args([]).host)
    assert [is_loopback(host) for host in ("localhost", "127.8.8.8", "::1", "0.0.0.0", "10.0.0.1", "example.org")] == [
        True, True, True, False, False, False]
