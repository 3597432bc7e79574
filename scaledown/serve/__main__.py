"""Answer questions and rank documents over HTTP.

Answers have the form of OpenAI's chat completions, with documents beside the question; requests of several clients are
computed together. The generator of the checkpoint answers, or a vLLM server that serves it merged
(scaledown.models.merge). A key for all clients is read from the environment, SCALEDOWN_API_KEY. SIGTERM lets what runs
end.

    python -m scaledown.serve --checkpoint embedded
    python -m scaledown.serve --checkpoint smollm2 --read_ahead document_store --host 0.0.0.0 --port 80
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scaledown import cli, hub
from scaledown.serve.limits import Limits
from scaledown.serve.start_checks import (
    KEY,
    VLLM_KEY,
    bound_socket,
    check_store,
    flag_faults,
    is_loopback,
    read_key,
    vllm_model,
)
from scaledown.settings import require


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.serve", "[--checkpoint NAME] [--vllm_url URL] [--read_ahead STORE] "
                                                        "[--FLAG VALUE ...]")
    cli.add_checkpoint(parser)
    parser.add_argument("--vllm_url", metavar="URL", group="data",
                        help="a vLLM server answers, such as http://localhost:8001/v1; its key is read from "
                             f"{VLLM_KEY} [the checkpoint's own generator does]")
    parser.add_argument("--read_ahead", metavar="STORE", group="data",
                        help="documents that scaledown.serving.read_ahead has read; others are added")
    # Loopback unless someone says otherwise: whoever reaches the service can use it.
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", group="network",
                        help="address to listen on [127.0.0.1: this machine alone]")
    parser.add_argument("--port", type=int, default=8000, metavar="N", group="network",
                        help="port to listen on, 0 for any that is free [8000]")
    parser.add_argument("--batch_size", type=int, default=16, metavar="N", group="machine",
                        help="requests computed together, at most [16]")
    parser.add_argument("--batch_wait_ms", type=float, default=5.0, metavar="X", group="machine",
                        help="a request waits so long for others, in milliseconds [5]")
    cli.add_device(parser)
    cli.add_dtype(parser)
    _add_limits(parser)
    return parser


def _add_limits(parser: cli.Parser) -> None:
    parser.add_argument("--max_requests", type=int, default=Limits.max_requests, metavar="N", group="limits",
                        help=f"requests at a time, waiting ones included; others are answered 429 "
                             f"[{Limits.max_requests}]")
    parser.add_argument("--max_body_mib", type=float, default=Limits.max_body_mib, metavar="X", group="limits",
                        help=f"size of a request in MiB [{Limits.max_body_mib:g}]")
    parser.add_argument("--max_documents", type=int, default=Limits.max_documents, metavar="N", group="limits",
                        help=f"documents of a request [{Limits.max_documents}]")
    parser.add_argument("--max_input_tokens", type=int, default=Limits.max_input_tokens, metavar="N", group="limits",
                        help=f"tokens of a request's question and documents [{Limits.max_input_tokens}]")
    parser.add_argument("--max_new_tokens", type=int, default=Limits.max_new_tokens, metavar="N", group="limits",
                        help=f"longest answer that a request may ask for, in tokens [{Limits.max_new_tokens}]")


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it."""
    args = build_parser().parse_args(argv)
    require(flag_faults(args))
    hub.check_checkpoint(args.checkpoint)
    if args.read_ahead is not None:
        check_store(args.checkpoint, args.read_ahead)
    key = read_key()

    # Whatever cannot work is told before the model is loaded, which takes long.
    with bound_socket(args.host, args.port) as place:
        model_of_vllm = None if args.vllm_url is None else vllm_model(args.vllm_url)
        if not key and not is_loopback(args.host):
            print(f"warning: --host {args.host}: other machines may reach this service, and it asks for no key; set "
                  f"{KEY} in the environment", file=sys.stderr)

        from scaledown.serve.running import run
        run(args, place, key, model_of_vllm)
    return 0


if __name__ == "__main__":
    sys.exit(main())
