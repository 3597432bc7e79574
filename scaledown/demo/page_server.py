"""The page in a process of its own: the model is loaded, asked once to warm up, and served until a signal ends it."""

from __future__ import annotations

import argparse
import os
import signal
import socket

# Before Gradio is imported, which would report its start to its makers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

# isort: split
import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from scaledown import cli
from scaledown.demo.page import answered, build_page, css, keep_choices, theme
from scaledown.demo.page_gate import PageGate
from scaledown.demo.samples import samples_for
from scaledown.models.model import ScaleDownModel
from scaledown.serve.telling_server import TellingServer
from scaledown.training.devices import resolve_device

GRACE_SECONDS = 3
"""After a signal, answers that are at hand have so long; the page's own connections would stay open for ever."""


def serve_page(args: argparse.Namespace, place: socket.socket) -> None:
    """Load the model, and serve its page until SIGTERM or SIGINT.

    Args:
        args: the command's flags.
        place: the socket to listen on.

    Raises:
        ValueError: if the model has no compressor, or another program listens there by now.
    """
    cli.tell(f"loading {args.checkpoint} ...")
    model = ScaleDownModel.from_pretrained(args.checkpoint, device=resolve_device(args.device), dtype=args.dtype)
    app = page_app(model, args.checkpoint)
    warm_up(model)

    # uvicorn ends what runs, and then raises the signal again: by then all is done, so SIGTERM is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False,
                            timeout_graceful_shutdown=GRACE_SECONDS)
    TellingServer(config, args.checkpoint).run(sockets=[place])


def page_app(model: ScaleDownModel, name: str) -> ASGIApp:
    """Return the application that serves the page of a model.

    Raises:
        ValueError: if the model has no compressor.
    """
    if model.config.reads_text:
        raise ValueError("--checkpoint: this model reads text (--compressor_type none), and the page shows memory; "
                         "give a checkpoint with a compressor")
    # No pages of documentation; no footer, history of questions or file of Gradio's, whose routes the gate closes.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gr.mount_gradio_app(app, build_page(model, name), "/", footer_links=[], run_history=False, show_error=False,
                              ssr_mode=False, mcp_server=False, enable_monitoring=False, pwa=False, theme=theme(),
                              css=css(model))
    return PageGate(app)


def warm_up(model: ScaleDownModel) -> None:
    """Answer a sample, so that the first question's times are not those of a first call."""
    sample = samples_for(model.config.generator_model)[0]
    for _ in answered(model, sample.question, sample.box, keep_choices(model)[0]):
        pass
