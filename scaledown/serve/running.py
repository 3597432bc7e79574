"""The service as a process: a model, its application, and uvicorn on a bound socket until a signal comes."""

from __future__ import annotations

import argparse
import signal
import socket

import uvicorn

from scaledown import ScaleDownModel, cli
from scaledown.models.serving.compressing import reader_for
from scaledown.models.serving.disk.disk_store import DiskStore
from scaledown.serve.app import build_app
from scaledown.serve.limits import Limits
from scaledown.serve.service import Batching, Service
from scaledown.serve.telling_server import TellingServer
from scaledown.serve.work.vllm import VllmServer
from scaledown.training.devices import resolve_device

GRACE_SECONDS = 60
"""After SIGTERM, what is at hand is ended for so long."""


def run(args: argparse.Namespace, place: socket.socket, key: str, model_of_vllm: str | None) -> None:
    """Load the model, and serve it until SIGTERM or SIGINT.

    Args:
        args: the command's flags.
        place: the socket to listen on.
        key: that clients must send; "" for none.
        model_of_vllm: the name of the merged generator on the vLLM server, if one answers.

    Raises:
        ValueError: if the store is another checkpoint's, or another program listens there by now.
    """
    cli.tell(f"loading {args.checkpoint} ...")
    store = None if args.read_ahead is None else DiskStore(args.read_ahead)
    vllm = None if model_of_vllm is None else VllmServer(args.vllm_url, model_of_vllm)
    model = ScaleDownModel.from_pretrained(args.checkpoint, device=resolve_device(args.device), dtype=args.dtype)
    if not (model.config.load_in_4bit or model.config.load_in_8bit):
        model.for_answering()
    if store is not None:
        # Here and not with the first request, whose client could do nothing about it.
        store.check(reader_for(model, store))

    limits = Limits(args.max_requests, args.max_body_mib, args.max_documents, args.max_input_tokens,
                    args.max_new_tokens)
    batching = Batching(args.batch_size, args.batch_wait_ms / 1000)
    app = build_app(Service(model, args.checkpoint, limits, batching, store, vllm), key)

    # uvicorn ends what runs, and then raises the signal again: by then all is done, so SIGTERM is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False,
                            timeout_graceful_shutdown=GRACE_SECONDS)
    TellingServer(config, args.checkpoint).run(sockets=[place])
