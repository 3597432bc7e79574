"""Show in a browser what memory keeps, and what answers cost.

A page with a question, documents and the answer from memory as it is written, beside full text and no documents:
tokens, FLOPs and time of each, the documents' scores, and what the memory of each resembles. It is for this machine
alone unless --host says otherwise, and loads nothing from elsewhere.

    python -m scaledown.demo --checkpoint embedded
    python -m scaledown.demo --checkpoint smollm2 --port 8080
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scaledown import cli, hub
from scaledown.serve.start_checks import bound_socket, is_loopback, missing_packages, port_faults
from scaledown.settings import require

PACKAGES = ("gradio", "fastapi", "uvicorn")
USUAL_PORT = 7860
"""Gradio's."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.demo", "[--checkpoint NAME] [--FLAG VALUE ...]")
    cli.add_checkpoint(parser)
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", group="network",
                        help="address to listen on [127.0.0.1: this machine alone]")
    parser.add_argument("--port", type=int, default=USUAL_PORT, metavar="N", group="network",
                        help=f"port to listen on, 0 for any that is free [{USUAL_PORT}]")
    cli.add_device(parser)
    cli.add_dtype(parser)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until a signal ends it."""
    args = build_parser().parse_args(argv)
    require(port_faults(args) + missing_packages(PACKAGES, "the page", "demo"))
    hub.check_checkpoint(args.checkpoint)

    # Whatever cannot work is told before the model is loaded, which takes long.
    with bound_socket(args.host, args.port) as place:
        if not is_loopback(args.host):
            print(f"warning: --host {args.host}: other machines may reach this page, which asks for no password",
                  file=sys.stderr)

        from scaledown.demo.page_server import serve_page
        serve_page(args, place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
