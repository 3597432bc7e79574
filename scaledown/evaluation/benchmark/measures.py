"""What the benchmark measures: jobs that take turns, their FLOPs, and a row of figures for each."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from scaledown.config import EMBEDDED
from scaledown.data.records import read_records
from scaledown.evaluation.benchmark.bench import Bench, Texts
from scaledown.evaluation.cost.flops import (
    Flops,
    TokenCounts,
    full_flops,
    naive_flops,
    plain_training_flops,
    training_flops,
)
from scaledown.evaluation.cost.shapes import decoder_shape
from scaledown.evaluation.timing import Spread, in_turns, matmul_peak, peak_bytes, seconds
from scaledown.hub import load_tokenizer
from scaledown.training.batches import LikeLengthSampler, prompt_sizes
from scaledown.training.devices import keep_freed_memory

FROM_MEMORY = ("scaledown", "naive_compressor")
SYSTEMS = ("scaledown", "naive_compressor", "full_text", "truncated_text")
# A frozen weight's step needs the gradient of its input alone, a trained one's that of the weight too.
FROZEN_STEP, TRAINED_STEP = 2, 3
MEMORY_TOKENS = 8


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


def question_flops(bench: Bench, texts: Texts, system: str, answer_tokens: int | None = None) -> Flops:
    """Return the FLOPs of one mean question, as :mod:`scaledown.evaluation.cost.flops` counts them, LoRA merged.

    Args:
        answer_tokens: the answer's length [as in ``texts``].
    """
    generator, compressor = decoder_shape(bench.generator.base), decoder_shape(bench.compressor.body)
    num_documents = statistics.fmean(map(len, texts.documents))
    each = [len(ids) for documents in texts.documents for ids in documents]
    tokens = TokenCounts(
        statistics.fmean(map(len, texts.queries)), statistics.fmean(each), num_documents, MEMORY_TOKENS,
        statistics.fmean(map(len, bench.prompts(texts, system in FROM_MEMORY, _kept(system)))),
        answer_tokens or statistics.fmean(map(len, texts.answers)))
    counted = full_flops(generator, compressor if system == "scaledown" else None, tokens)
    if system == "naive_compressor":
        padded = dataclasses.replace(tokens, query_tokens=bench.config.query_tokens,
                                     document_tokens=bench.config.document_tokens)
        counted = dataclasses.replace(counted, compress=naive_flops(compressor, padded))
    return counted


def step_flops(bench: Bench, texts: Texts, system: str) -> float:
    """FLOPs of training on one mean question: each weight forward, backward, and for its own gradient if trained."""
    generator = decoder_shape(bench.generator.base)
    answer = statistics.fmean(map(len, texts.answers))
    prompt = statistics.fmean(map(len, bench.prompts(texts, system in FROM_MEMORY, _kept(system))))
    read = prompt + answer - 1
    is_plain = system == "naive_compressor"
    forward = plain_training_flops(generator, read) if is_plain else training_flops(generator, read, answer)
    return TRAINED_STEP * question_flops(bench, texts, system).compress + FROZEN_STEP * forward


def _kept(system: str) -> int | None:
    return MEMORY_TOKENS if system == "truncated_text" else None


def answer_job(bench: Bench, texts: Texts, system: str, answer_tokens: int) -> Callable[[], dict[str, float]]:
    """Return a call that answers the batch and tells its seconds by phase.

    The first token is prefill and one step of decoding, which reads the prompt's last token. The whole answer is begun
    anew: prompts that were read once serve one answer.
    """
    compress = {"scaledown": bench.compress, "naive_compressor": bench.compress_naively}.get(system)

    @torch.no_grad()
    def job() -> dict[str, float]:
        found: dict[str, Any] = {"memory": None}
        times = {"compress": 0.0}
        if compress:
            times["compress"] = seconds(lambda: found.update(memory=compress(texts)), bench.device)

        def prefill() -> None:
            found["prompts"] = bench.prefill(texts, found["memory"], _kept(system))

        def decode(num_tokens: int) -> None:
            bench.decode(found["prompts"], num_tokens)

        times["first_token"] = (times["compress"] + seconds(prefill, bench.device)
                                + seconds(lambda: decode(1), bench.device))
        times["prefill"] = seconds(prefill, bench.device)
        times["decode"] = seconds(lambda: decode(answer_tokens), bench.device)
        times["total"] = times["compress"] + times["prefill"] + times["decode"]
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
    flops = {**question_flops(bench, texts, system).to_dict(),
             "first_token": question_flops(bench, texts, system, answer_tokens=1).total}
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
