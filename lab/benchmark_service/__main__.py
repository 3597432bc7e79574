"""Load the HTTP service, and check every reply.

Many requests are sent at once. Two services take turns in blocks, one that computes requests together and one that
computes them one at a time, so that their ratio holds on a busy machine. Some requests are broken, and some clients
hang up. Every answer is compared with what the model says when it is called directly. Then the service is killed and
started anew.

    python -m lab.benchmark_service
    python -m lab.benchmark_service --num_requests 200 --num_clients 4 --batch_size 4
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaledown import cli, hub
from scaledown.data.records import Record
from scaledown.files import make_folder, write_json
from scaledown.settings import not_negative, positive, require

if TYPE_CHECKING:
    from lab.benchmark_service.clients import Expected, Outcome
    from lab.benchmark_service.service_process import ServiceProcess

TOGETHER, ONE_AT_A_TIME = "together", "one at a time"
BLOCK_REQUESTS = 200
"""Requests that one service gets before it is the other's turn."""
RESULTS_FILE = "service.json"
SHOWN_FAULTS = 10


def build_parser() -> cli.Parser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.benchmark_service", "[--checkpoint NAME] [--FLAG VALUE ...]")
    cli.add_checkpoint(parser)
    parser.add_argument("--num_requests", type=int, default=2000, metavar="N",
                        help="requests to each service [2000]")
    parser.add_argument("--num_clients", type=int, default=16, metavar="N", help="clients at once [16]")
    parser.add_argument("--batch_size", type=int, default=16, metavar="N",
                        help="requests computed together, at most [16]")
    # The mixture.
    parser.add_argument("--broken_share", type=float, default=0.05, metavar="X",
                        help="share of requests with a broken body [0.05]")
    parser.add_argument("--cut_off_share", type=float, default=0.05, metavar="X",
                        help="share of requests whose client hangs up [0.05]")
    parser.add_argument("--answer_tokens", type=int, default=16, metavar="N",
                        help="longest answer of a request, in tokens [16]")
    parser.add_argument("--output_dir", default="benchmark_service", metavar="FOLDER",
                        help=f"gets {RESULTS_FILE} [benchmark_service]")
    cli.add_seed(parser, "seed of the questions and of the mixture")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the load test, print what came of it, write it."""
    args = build_parser().parse_args(argv)
    faults = positive(args, "num_requests", "num_clients", "batch_size", "answer_tokens")
    faults += not_negative(args, "broken_share", "cut_off_share")
    if args.broken_share + args.cut_off_share >= 1:
        faults.append("--broken_share and --cut_off_share must leave some good requests: their sum must be below 1")
    require(faults)
    hub.check_checkpoint(args.checkpoint)
    folder = Path(args.output_dir)
    make_folder(folder)

    # Only now, so that --help and mistakes need not wait for torch.
    import torch

    from lab.benchmark_service.service_process import ServiceProcess
    from scaledown.data.storage.run_information import run_information
    from scaledown.data.world.synthetic import synthetic_records

    records = list(synthetic_records(args.num_requests // 5 + 1, seed=args.seed))
    expected = answers_of(args.checkpoint, records, args.answer_tokens)
    flags = ["--checkpoint", args.checkpoint, "--device", "cpu", "--max_requests", str(2 * args.num_clients)]
    services = {TOGETHER: ServiceProcess([*flags, "--batch_size", str(args.batch_size)]),
                ONE_AT_A_TIME: ServiceProcess([*flags, "--batch_size", "1", "--batch_wait_ms", "0"])}
    try:
        rows = asyncio.run(measure(args, services, records, expected))
        restart = seconds_to_start_anew(services, flags, records[0])
        code = services[TOGETHER].end()
    finally:
        for service in services.values():
            service.kill()

    print(table(rows))
    print(f"killed and started anew: an answer after {restart:.1f} s; SIGTERM: exit code {code}")
    tell_faults(rows)
    write_json(folder / RESULTS_FILE, {"run": run_information(args.seed, torch.device("cpu"), sys.argv, vars(args)),
                                       "restart_seconds": restart, "services": rows})
    print(f"results: {folder / RESULTS_FILE}")
    return 0


def answers_of(checkpoint: str, records: Sequence[Record], answer_tokens: int) -> Expected:
    """Return what the model says when it is called directly, as the service holds it."""
    from lab.benchmark_service.clients import Expected
    from scaledown import ScaleDownModel

    model = ScaleDownModel.from_pretrained(checkpoint, device="cpu").for_answering()
    questions, documents = [record.query for record in records], [list(record.documents) for record in records]
    answers = model.answer(questions, documents, max_new_tokens=answer_tokens)
    best = [order[0] for order, _ in model.rerank(questions, documents)]
    return Expected(answers, best)


async def measure(args: argparse.Namespace, services: Mapping[str, ServiceProcess], records: Sequence[Record],
                  expected: Expected) -> dict[str, dict[str, Any]]:
    """Return the figures of each service; they take turns, each with the same requests."""
    from lab.benchmark_service.clients import Outcome, send_all
    from lab.benchmark_service.sent_requests import drawn_requests
    from scaledown.progress import Bar

    requests = drawn_requests(records, args.num_requests, args.broken_share, args.cut_off_share, args.answer_tokens,
                              args.seed)
    outcomes = {name: Outcome() for name in services}
    memory: dict[str, list[float]] = {name: [] for name in services}
    starts = range(0, len(requests), BLOCK_REQUESTS)
    with Bar(total=len(starts) * len(services), desc="blocks of requests", unit="block") as bar:
        for start, (name, service) in itertools.product(starts, services.items()):
            block = requests[start:start + BLOCK_REQUESTS]
            outcomes[name].add(await send_all(service.url, block, args.num_clients, expected))
            memory[name].append(service.memory_mib())
            bar.update(1)
    return {name: figures(outcomes[name], memory[name], service) for name, service in services.items()}


def figures(outcome: Outcome, memory: Sequence[float], service: ServiceProcess) -> dict[str, Any]:
    """Return the figures of one service."""
    import numpy as np

    p50, p99 = np.percentile(outcome.seconds, [50, 99])
    # Of the process since it took requests; other work on the machine takes none of these.
    cpu_seconds = service.cpu_seconds() - service.cpu_seconds_at_start
    return {"good_requests_per_second": len(outcome.seconds) / outcome.elapsed, "p50_ms": 1e3 * p50,
            "p99_ms": 1e3 * p99, "cpu_ms": 1e3 * cpu_seconds / len(outcome.seconds), "memory_mib": list(memory),
            "start_seconds": service.start_seconds, "counts": outcome.counts, "lost": outcome.lost,
            "others": outcome.others, "wrong": outcome.wrong}


def seconds_to_start_anew(services: dict[str, ServiceProcess], flags: Sequence[str], record: Record) -> float:
    """Kill the first service, start it on the same port, and return the seconds until it has answered."""
    import httpx2

    from lab.benchmark_service.service_process import ServiceProcess

    port, started = services[TOGETHER].port, time.perf_counter()
    services[TOGETHER].kill()
    services[TOGETHER] = ServiceProcess(flags, port)
    body = {"messages": [{"role": "user", "content": record.query}], "documents": list(record.documents)}
    httpx2.post(f"{services[TOGETHER].url}/v1/chat/completions", json=body).raise_for_status()
    return time.perf_counter() - started


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as a table, each service's throughput beside that of one at a time."""
    from scaledown.evaluation.figures.text_tables import console_table

    alone = rows[ONE_AT_A_TIME]["good_requests_per_second"]
    lines = []
    for name, row in rows.items():
        rate = row["good_requests_per_second"]
        # The first block warms up: torch takes its memory there.
        first, last = row["memory_mib"][0], row["memory_mib"][-1]
        lines.append([name, f"{rate:.1f}", f"{rate / alone:.2f}x", f"{row['p50_ms']:.0f}", f"{row['p99_ms']:.0f}",
                      f"{row['cpu_ms']:.0f}", f"{first:.0f}", f"{last:.0f}", str(sum(row["counts"].values())),
                      str(len(row["lost"])), str(len(row["others"])), str(len(row["wrong"]))])
    return console_table(["requests are computed", "good a second", "ratio", "p50, ms", "p99, ms", "CPU ms of one",
                          "MiB, first block", "MiB, last", "sent", "lost", "another's", "wrong"], lines)


def tell_faults(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the first faults of each service."""
    for name, row in rows.items():
        found = [*row["lost"], *row["others"], *row["wrong"]]
        for fault in found[:SHOWN_FAULTS]:
            print(f"  {name}: {fault}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
