"""Checks before the model is loaded, which takes long: of flags, the key, the store, the address and vLLM."""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import httpx2

from scaledown.data.pipeline.addresses import url_faults
from scaledown.files import parse_json
from scaledown.models.serving.disk.store_index import FILE, KEYS_AND_VALUES, StoreIndex, check_folder
from scaledown.serving.read_ahead import check_order
from scaledown.settings import not_negative, positive

KEY = "SCALEDOWN_API_KEY"
"""The environment variable with the key that clients must send."""
VLLM_KEY = "VLLM_API_KEY"
"""That with the vLLM server's key, under the name by which vLLM itself reads it."""
PACKAGES = ("fastapi", "uvicorn", "pydantic", "prometheus_client")
LARGEST_PORT = 65_535
VLLM_SECONDS = 10.0


def flag_faults(args: argparse.Namespace) -> list[str]:
    """Return what is wrong with the flags by themselves."""
    found = positive(args, "batch_size", "max_requests", "max_body_mib", "max_documents", "max_input_tokens",
                     "max_new_tokens") + not_negative(args, "batch_wait_ms")
    found += port_faults(args)
    if args.vllm_url is not None:
        found += url_faults("--vllm_url", args.vllm_url, "http://localhost:8001/v1", VLLM_KEY)
    return found + missing_packages(PACKAGES, "the service", "service")


def port_faults(args: argparse.Namespace) -> list[str]:
    """Return what is wrong with ``--port``."""
    if 0 <= args.port <= LARGEST_PORT:
        return []
    return [f"--port must be between 0 and {LARGEST_PORT}, got {args.port}"]


def missing_packages(packages: Sequence[str], needed_by: str, extra: str) -> list[str]:
    """Return a fault if packages are not installed that a command needs.

    Args:
        packages: their names as Python imports them.
        needed_by: what needs them.
        extra: the name under which pip installs them with ScaleDown.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return []
    return [f"{needed_by} needs {', '.join(missing)}: in ScaleDown's folder, pip install -e '.[{extra}]'"]


def check_store(checkpoint: str, folder: str) -> None:
    """Refuse a store that there is not or that holds memory, and a checkpoint that cannot use one.

    Raises:
        ValueError: if it is one of these.
    """
    check_folder(Path(folder), "--read_ahead ")
    if not (Path(folder) / FILE).exists():
        raise ValueError(f"--read_ahead {folder}: no store of documents; fill one with python -m "
                         "scaledown.serving.read_ahead")

    # Only the index is opened, which needs no torch: a wrong store is told before the model is loaded.
    index = StoreIndex(Path(folder))
    contents = index.contents()
    index.close()
    if contents != KEYS_AND_VALUES:
        raise ValueError(f"--read_ahead {folder}: holds {contents} without a query, and a service needs "
                         f"{KEYS_AND_VALUES}: fill another folder with python -m scaledown.serving.read_ahead, without "
                         "--memory")
    check_order(checkpoint)


def read_key(name: str = KEY) -> str:
    """Return a key of the environment, "" for none.

    Args:
        name: of its variable [the key that clients must send].

    Raises:
        ValueError: if it has characters that a header cannot carry.
    """
    key = os.environ.get(name, "").strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError(f"{name}, in the environment, holds characters that a header cannot carry")
    return key


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address, on which nothing is taken yet.

    Raises:
        ValueError: if it is taken, not allowed, or none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    # A service that is started anew need not wait until the system forgets the old one's connections.
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((host, port))
    except OSError as fault:
        place.close()
        raise ValueError(f"--host {host} --port {port}: cannot listen there ({fault.strerror or fault})") from None
    except (TypeError, UnicodeError):
        # A name that cannot be written as a name of the network, such as one with two dots in a row.
        place.close()
        raise ValueError(f"--host {host}: is no address and no name of a machine") from None
    return place


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def vllm_model(url: str) -> str:
    """Return the name of the model that the server at ``url`` serves: the adapter's, if it serves one.

    Raises:
        ValueError: if there is no such server, or it serves nothing, or several adapters, or its key cannot be sent.
    """
    address, headers = f"{url.rstrip('/')}/models", vllm_headers()
    try:
        response = httpx2.get(address, headers=headers, timeout=VLLM_SECONDS)
        response.raise_for_status()
        served = parse_json(response.content)["data"]
        # The generator that adapters lie on is listed before them; they name it as their parent.
        names = [each["id"] for each in served if each.get("parent")] or [served[0]["id"]]
        if not all(isinstance(name, str) for name in names):
            raise TypeError
    except (httpx2.HTTPError, httpx2.InvalidURL) as fault:
        raise ValueError(f"--vllm_url {url}: cannot be used ({fault}); is vLLM running, does the URL end in /v1, and "
                         f"is its key in the environment, {VLLM_KEY}?") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"--vllm_url {url}: {address} does not list a model as vLLM does") from None
    if len(names) > 1:
        raise ValueError(f"--vllm_url {url}: serves several adapters ({', '.join(names)}); start it with the "
                         "checkpoint's alone")
    return names[0]


def vllm_headers() -> dict[str, str]:
    """Return the headers of requests to the vLLM server.

    Raises:
        ValueError: if its key has characters that they cannot carry.
    """
    key = read_key(VLLM_KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}
