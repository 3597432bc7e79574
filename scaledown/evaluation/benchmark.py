"""Speed, measured: python -m scaledown.evaluation.benchmark inference|training

ScaleDown against full text, text cut to the same budget, and the naive query-dependent compressor, all on the same
random weights, taking turns in one process: no download, on a CPU or on CUDA. Times are medians over the rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from scaledown import cli
from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.data.records import read_records
from scaledown.evaluation.benchmark_figures import plot_by_documents, plot_by_phase
from scaledown.evaluation.benchmark_systems import Bench, Preset, Texts, preset
from scaledown.evaluation.flops import DecoderShape, Flops, TokenCounts, full_flops, naive_flops, reading_flops
from scaledown.evaluation.known_shapes import config_of
from scaledown.evaluation.run_information import run_information
from scaledown.evaluation.stopwatch import Spread, in_turns, matmul_peak, peak_bytes, seconds
from scaledown.hub import load_tokenizer
from scaledown.models.n_layers import resolve_num_layers
from scaledown.training import run_folder
from scaledown.training.devices import DEVICES, dtype_for, keep_freed_memory, resolve_device
from scaledown.training.sampling import LikeLengthSampler, prompt_sizes

FROM_MEMORY = ("scaledown", "naive_compressor")
SYSTEMS = ("scaledown", "naive_compressor", "full_text", "truncated_text")
# A frozen weight's step needs the gradient of its input alone, a trained one's that of the weight too.
FROZEN_STEP, TRAINED_STEP = 2, 3
MEMORY_TOKENS = 8


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("inference", "training"))
    parser.add_argument("--preset", default="small", choices=("tiny", "small", "paper"),
                        help="small: 12 layers of width 512, 3 in the compressor, vocabulary 32,000; paper: Mistral-7B "
                        "with 8; tiny: to try the benchmark itself [small]")
    parser.add_argument("--generator_model", metavar="NAME_OR_CONFIG", help="another shape than the preset's")
    parser.add_argument("--num_layers", type=cli.positive, help="layers of the compressor [the preset's]")
    parser.add_argument("--num_documents", type=int, nargs="+", help="[1 5 10 20 50; training: 5]")
    parser.add_argument("--batch_size", type=int, default=4, help="questions at a time [4]")
    for name, default in (("query_tokens", 128), ("document_tokens", 128), ("answer_tokens", 32), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"[{default}]")
    parser.add_argument("--records", help="training: take the texts' lengths from this file of records (token counts "
                        "of the embedded tokenizer, cut at the budgets) instead of full length")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="[all]")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="[auto]")
    parser.add_argument("--output_dir", default="benchmark", help="gets the JSON and the figures [./benchmark]")
    return parser


def check(args: argparse.Namespace) -> None:
    """Raise ValueError for settings that make no sense, all of them together."""
    faults = [f"--{name} must be above 0, got {getattr(args, name)}"
              for name in ("batch_size", "query_tokens", "document_tokens", "answer_tokens", "rounds")
              if getattr(args, name) < 1]
    faults += [f"--num_documents must be above 0, got {count}" for count in args.num_documents if count < 1]
    if args.document_tokens % MEMORY_TOKENS:
        faults.append(f"--document_tokens must be a multiple of the {MEMORY_TOKENS} memory tokens, "
                      f"got {args.document_tokens}")
    if args.records and args.what == "inference":
        faults.append("--records belongs to training")
    if faults:
        raise ValueError("; ".join(faults))


def build(args: argparse.Namespace) -> Bench:
    """Random weights of the shape that was asked for."""
    shape = preset(args.preset)
    if args.generator_model:
        config = config_of(args.generator_model)
        shape = Preset(config, resolve_num_layers(None, config.num_hidden_layers))
    if args.num_layers:
        shape = Preset(shape.config, resolve_num_layers(args.num_layers, shape.config.num_hidden_layers))
    config = ScaleDownConfig(num_memory_tokens=MEMORY_TOKENS, compression_rate=args.document_tokens // MEMORY_TOKENS,
                             query_tokens=args.query_tokens, lora_dropout=0.0)
    device = resolve_device(args.device)
    return Bench(shape, config, dtype_for(device), device)


def full_length(args: argparse.Namespace, num_documents: int, vocab_size: int) -> Texts:
    """A batch whose texts all have their full length."""
    return Texts.drawn([(args.query_tokens, [args.document_tokens] * num_documents, args.answer_tokens)]
                       * args.batch_size, vocab_size)


def from_records(args: argparse.Namespace, vocab_size: int) -> list[Texts]:
    """A batch for each round, with the lengths of real records, put together as training does: like lengths."""
    tokenizer = load_tokenizer(EMBEDDED)

    def length(text: str, longest: int) -> int:
        return max(1, min(longest, len(tokenizer(text, add_special_tokens=False).input_ids)))

    records = read_records(args.records)
    order = LikeLengthSampler(prompt_sizes(records, MEMORY_TOKENS), args.batch_size, seed=0)
    records = [records[number] for number in list(order)[:args.batch_size * args.rounds]]
    lengths = [(length(record.query, args.query_tokens),
                [length(document, args.document_tokens) for document in record.documents],
                length(record.answer, args.answer_tokens)) for record in records]
    return [Texts.drawn(lengths[start:start + args.batch_size], vocab_size)
            for start in range(0, len(lengths), args.batch_size)]


def question_flops(bench: Bench, texts: Texts, system: str) -> Flops:
    """FLOPs of one mean question, as :mod:`scaledown.evaluation.flops` counts them, LoRA merged."""
    generator = DecoderShape.from_config(bench.shape.config)
    compressor = DecoderShape.from_config(bench.shape.config, bench.shape.num_layers)
    num_documents = statistics.fmean(map(len, texts.documents))
    each = [len(ids) for documents in texts.documents for ids in documents]
    tokens = TokenCounts(
        statistics.fmean(map(len, texts.queries)), statistics.fmean(each), num_documents, MEMORY_TOKENS,
        statistics.fmean(map(len, bench.prompts(texts, system in FROM_MEMORY, _kept(system)))),
        statistics.fmean(map(len, texts.answers)))
    counted = full_flops(generator, compressor if system == "scaledown" else None, tokens)
    if system == "naive_compressor":
        padded = dataclasses.replace(tokens, query_tokens=bench.config.query_tokens,
                                     document_tokens=bench.config.document_tokens)
        counted = dataclasses.replace(counted, compress=naive_flops(compressor, padded))
    return counted


def step_flops(bench: Bench, texts: Texts, system: str) -> float:
    """FLOPs of training on one mean question: each weight forward, backward, and for its own gradient if trained."""
    generator = DecoderShape.from_config(bench.shape.config)
    answer = statistics.fmean(map(len, texts.answers))
    prompt = statistics.fmean(map(len, bench.prompts(texts, system in FROM_MEMORY, _kept(system))))
    read = prompt + answer - 1
    used = read if system == "naive_compressor" else answer
    return (TRAINED_STEP * question_flops(bench, texts, system).compress
            + FROZEN_STEP * reading_flops(generator, read, used))


def _kept(system: str) -> int | None:
    return MEMORY_TOKENS if system == "truncated_text" else None


def answer_job(bench: Bench, texts: Texts, system: str, answer_tokens: int) -> Callable[[], dict[str, float]]:
    """A call that answers the batch and tells its seconds by phase."""
    compress = {"scaledown": bench.compress, "naive_compressor": bench.compress_naively}.get(system)

    @torch.no_grad()
    def job() -> dict[str, float]:
        found: dict[str, Any] = {"memory": None}
        times = {"compress": 0.0}
        if compress:
            times["compress"] = seconds(lambda: found.update(memory=compress(texts)), bench.device)
        times["prefill"] = seconds(
            lambda: found.update(state=bench.prefill(texts, found["memory"], _kept(system))), bench.device)
        times["decode"] = seconds(lambda: bench.decode(found["state"], answer_tokens), bench.device)
        times["first_token"] = times["compress"] + times["prefill"]
        times["total"] = times["first_token"] + times["decode"]
        return times

    return job


def step_job(bench: Bench, batches: Sequence[Texts], system: str,
             optimizer: torch.optim.Optimizer) -> Callable[[], dict[str, float]]:
    """A call that trains on the next batch and tells its seconds."""
    turn = iter(range(10**9))
    longest = max(len(prompt) + len(answer) for texts in batches
                  for prompt, answer in zip(bench.prompts(texts, True), texts.answers, strict=True))

    def step(texts: Texts) -> None:
        if system == "naive_compressor":
            loss = bench.naive_loss(texts, bench.compress_naively(texts), longest)
        else:
            loss = bench.loss(texts, bench.compress(texts) if system == "scaledown" else None, _kept(system))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def job() -> dict[str, float]:
        # Each job is called twice before the rounds that count, and once a batch for its memory.
        texts = batches[(next(turn) - 2) % len(batches)]
        return {"step": seconds(lambda: step(texts), bench.device)}

    return job


def measure_inference(args: argparse.Namespace, bench: Bench) -> list[dict[str, Any]]:
    """Rows: one for each system and number of documents."""
    bench.eval()
    # As a merged model runs; random adapters change no result worth keeping.
    bench.generator.language_model.merge_adapter()
    texts = {count: full_length(args, count, bench.shape.config.vocab_size) for count in args.num_documents}
    jobs = {count: {system: answer_job(bench, texts[count], system, args.answer_tokens) for system in args.systems}
            for count in args.num_documents}
    for job in jobs[args.num_documents[0]].values():
        job()
    peaks = {count: {system: peak_bytes(job, bench.device) for system, job in of_count.items()}
             for count, of_count in jobs.items()}
    # Only now: memory that is kept would hide the later peaks.
    keep_freed_memory()
    rows, machine = [], 0.0
    for count in args.num_documents:
        machine = max(machine, matmul_peak(bench.device, bench.dtype))
        with tqdm(total=args.rounds + 1, desc=f"{count} documents", unit="round") as bar:
            times = in_turns(jobs[count], args.rounds, bar.update)
        machine = max(machine, matmul_peak(bench.device, bench.dtype))
        rows += [_row(args, bench, texts[count], system, count, times[system], peaks[count][system], machine)
                 for system in args.systems]
    return rows


def _row(args: argparse.Namespace, bench: Bench, texts: Texts, system: str, num_documents: int,
         times: Mapping[str, list[float]], peak: int | None, machine: float) -> dict[str, Any]:
    flops = question_flops(bench, texts, system).to_dict()
    spreads = {phase: Spread.of(values) for phase, values in times.items()}
    shares = {phase: flops[phase] * args.batch_size / spreads[phase].median / machine
              for phase in ("compress", "prefill", "decode") if flops[phase]}
    return {"system": system, "num_documents": num_documents, "batch_size": args.batch_size,
            "ms_per_query": {phase: {key: 1e3 * value / args.batch_size
                                     for key, value in dataclasses.asdict(spread).items()}
                             for phase, spread in spreads.items()},
            "flops_per_query": flops, "share_of_matmul_peak": shares, "matmul_peak_flops": machine,
            "peak_bytes": peak,
            "new_tokens_per_second": args.batch_size * args.answer_tokens / spreads["total"].median}


def measure_training(args: argparse.Namespace, bench: Bench) -> list[dict[str, Any]]:
    """Rows: one for each system, on full-length texts or on those of ``--records``."""
    bench.train()
    optimizer = torch.optim.AdamW([each for each in bench.parameters() if each.requires_grad], lr=1e-6)
    vocab_size = bench.shape.config.vocab_size
    all_batches = {count: from_records(args, vocab_size) if args.records else [full_length(args, count, vocab_size)]
                   for count in args.num_documents}
    all_jobs = {count: {system: step_job(bench, batches, system, optimizer) for system in args.systems}
                for count, batches in all_batches.items()}
    for jobs in all_jobs.values():
        for job in jobs.values():
            job()
    all_peaks = {count: {system: max((peak_bytes(job, bench.device) or 0) for _ in all_batches[count])
                         for system, job in jobs.items()} for count, jobs in all_jobs.items()}
    keep_freed_memory()
    rows = []
    for num_documents, batches in all_batches.items():
        jobs, peaks = all_jobs[num_documents], all_peaks[num_documents]
        machine = matmul_peak(bench.device, bench.dtype)
        with tqdm(total=args.rounds + 1, desc="training steps", unit="round") as bar:
            times = in_turns(jobs, max(args.rounds, len(batches)), bar.update)
        machine = max(machine, matmul_peak(bench.device, bench.dtype))
        num_questions = statistics.fmean(len(texts.queries) for texts in batches)
        for system in args.systems:
            flops = statistics.fmean(step_flops(bench, texts, system) for texts in batches)
            mean = statistics.fmean(times[system]["step"])
            rows.append({"system": system, "num_documents": num_documents, "batch_size": args.batch_size,
                         "records": args.records, "step_ms": {
                             key: 1e3 * value for key, value in
                             dataclasses.asdict(Spread.of(times[system]["step"])).items()},
                         "examples_per_second": num_questions / mean, "flops_per_example": flops,
                         "share_of_matmul_peak": flops * num_questions / mean / machine,
                         "matmul_peak_flops": machine, "peak_bytes": peaks[system] or None})
    return rows


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What ScaleDown saves against each other system, in words, a line for each number of documents."""
    lines = []
    for ours in (row for row in rows if row["system"] == "scaledown"):
        for other in rows:
            if other["num_documents"] != ours["num_documents"] or other is ours:
                continue
            lines.append(f"{ours['num_documents']:>4} documents, against {other['system']:<17} "
                         + (_training_ratio(ours, other) if "step_ms" in ours else _inference_ratio(ours, other)))
    return lines


def _inference_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    def ratio(phase: str) -> float:
        return other["ms_per_query"][phase]["median"] / ours["ms_per_query"][phase]["median"]

    def flops(row: Mapping[str, Any], *phases: str) -> float:
        return sum(row["flops_per_query"][phase] for phase in phases)

    first, whole = ("compress", "prefill"), ("compress", "prefill", "decode")
    compress = f"compression {ratio('compress'):.2f}x, " if other["ms_per_query"]["compress"]["median"] else ""
    return (f"{compress}first token {ratio('first_token'):.2f}x (FLOPs promise "
            f"{flops(other, *first) / flops(ours, *first):.2f}x), whole answer {ratio('total'):.2f}x "
            f"({flops(other, *whole) / flops(ours, *whole):.2f}x)" + _memory_ratio(ours, other))


def _training_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return (f"{ours['examples_per_second'] / other['examples_per_second']:.2f}x the examples a second"
            + _memory_ratio(ours, other))


def _memory_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if not ours["peak_bytes"] or not other["peak_bytes"]:
        return ""
    return f", peak memory {ours['peak_bytes'] / other['peak_bytes']:.2f} of its"


def growth(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far ScaleDown's time and FLOPs are from a straight line over the number of documents."""
    own = [row for row in rows if row["system"] == "scaledown" and "ms_per_query" in row]
    counts = np.array([row["num_documents"] for row in own], dtype=float)
    if len(set(counts)) < 3:
        return []
    series = {"time": [row["ms_per_query"]["total"]["median"] for row in own],
              "FLOPs": [row["flops_per_query"]["total"] for row in own]}
    if all(row["peak_bytes"] for row in own):
        series["peak memory"] = [row["peak_bytes"] for row in own]
    found = []
    for name, values in series.items():
        line = np.polyval(np.polyfit(counts, values, 1, w=1 / np.array(values)), counts)
        found.append(f"{name} within {100 * np.abs(np.array(values) / line - 1).max():.0f}%")
    return [f"from {counts.min():.0f} to {counts.max():.0f} documents ScaleDown follows a straight line: "
            + ", ".join(found)]


def _shares(found: Mapping[str, float] | float) -> str:
    if isinstance(found, float):
        return f"{found:.2f}"
    return ", ".join(f"{phase} {share:.2f}" for phase, share in found.items())


def write(folder: Path, args: argparse.Namespace, rows: list[dict[str, Any]], bench: Bench) -> None:
    """The JSON and the figures."""
    report = {"run": run_information(0, bench.device, sys.argv, vars(args)), "ratios": [*ratios(rows), *growth(rows)],
              "rows": rows}
    path = folder / f"benchmark_{args.what}.json"
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
    if args.what == "inference":
        where = f"{args.preset} preset, batch {args.batch_size}, on {bench.device.type}"
        plot_by_documents(folder / "cost_by_documents.png", rows, where)
        plot_by_phase(folder / "time_by_phase.png", rows, where)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the ratios, write the figures."""
    args = build_parser().parse_args(argv)
    args.num_documents = args.num_documents or ([5] if args.what == "training" else [1, 5, 10, 20, 50])
    check(args)
    bench = build(args)
    run_folder.make(Path(args.output_dir))
    print(f"{args.what} benchmark: {bench.shape.config.num_hidden_layers} layers of width "
          f"{bench.shape.config.hidden_size}, {bench.shape.num_layers} in the compressor, {bench.dtype} on "
          f"{bench.device}, {args.rounds} rounds of {', '.join(args.systems)}")
    rows = (measure_inference if args.what == "inference" else measure_training)(args, bench)
    write(Path(args.output_dir), args, rows, bench)
    print("\n".join([*ratios(rows), *growth(rows)]))
    for row in rows:
        print(f"{row['num_documents']:>4} documents, {row['system']:<17} share of the matrix-multiply peak: "
              f"{_shares(row['share_of_matmul_peak'])}")
    print(f"results: {args.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
