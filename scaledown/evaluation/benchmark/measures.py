"""The measurements of the benchmark: jobs that take turns, their FLOPs, and a row of figures for each."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.data.records import read_records
from scaledown.evaluation.benchmark.bench import Bench, Texts
from scaledown.evaluation.benchmark.ratios import FROM_MEMORY, MEMORY_TOKENS
from scaledown.evaluation.cost.flops import (
    Flops,
    TokenCounts,
    full_flops,
    naive_flops,
    plain_training_flops,
    training_flops,
)
from scaledown.evaluation.cost.shapes import decoder_shape
from scaledown.evaluation.evaluator.timing import Spread, in_turns, matmul_peak, peak_bytes, seconds
from scaledown.hub import load_tokenizer
from scaledown.progress import Bar
from scaledown.training.batches import LikeLengthSampler, prompt_sizes
from scaledown.training.devices import keep_freed_memory

# Passes through a weight in a training step: forward, the gradient of its input and, if trained, that of the weight.
FROZEN_STEP, TRAINED_STEP = 2, 3


def full_length(args: argparse.Namespace, num_documents: int, vocab_size: int) -> Texts:
    """Return a batch whose texts all have their full length."""
    lengths = args.query_tokens, [args.document_tokens] * num_documents, args.answer_tokens
    return Texts.drawn([lengths] * args.batch_size, vocab_size)


def from_records(args: argparse.Namespace, vocab_size: int) -> list[Texts]:
    """Return a batch for each round with the lengths of real records, batched by like lengths as in training."""
    tokenizer = load_tokenizer(EMBEDDED)

    def length(text: str, longest: int) -> int:
        return max(1, min(longest, len(tokenizer(text, add_special_tokens=False).input_ids)))

    records = read_records(args.train_data)
    sizes = prompt_sizes(records, ScaleDownConfig(num_memory_tokens=MEMORY_TOKENS))
    order = LikeLengthSampler(sizes, args.batch_size, seed=0)
    lengths = []
    for number in list(order)[:args.batch_size * args.rounds]:
        record = records[number]
        document_lengths = [length(document, args.document_tokens) for document in record.documents]
        lengths.append((length(record.query, args.query_tokens), document_lengths,
                        length(record.answer, args.answer_tokens)))

    # The sampler puts records of like lengths one after the other, so consecutive ones make a batch.
    return [Texts.drawn(lengths[start:start + args.batch_size], vocab_size)
            for start in range(0, len(lengths), args.batch_size)]


def question_flops(bench: Bench, texts: Texts, system: str, answer_tokens: int | None = None) -> Flops:
    """Return the FLOPs of one mean question, as :mod:`scaledown.evaluation.cost.flops` counts them, LoRA merged.

    Args:
        bench: the model.
        texts: a batch of questions.
        system: one of ``SYSTEMS``.
        answer_tokens: the answer's length [as in ``texts``].
    """
    generator, compressor = decoder_shape(bench.generator.base), decoder_shape(bench.compressor.body)
    prompts = bench.prompts(texts, system in FROM_MEMORY, _document_tokens(system))
    tokens = TokenCounts(
        query_tokens=statistics.fmean(map(len, texts.queries)),
        document_tokens=statistics.fmean(map(len, itertools.chain.from_iterable(texts.documents))),
        num_documents=statistics.fmean(map(len, texts.documents)),
        memory_tokens=MEMORY_TOKENS,
        prompt_tokens=statistics.fmean(map(len, prompts)),
        new_tokens=answer_tokens or statistics.fmean(map(len, texts.answers)))

    flops = full_flops(generator, compressor if system == "scaledown" else None, tokens)
    if system == "naive_compressor":
        # It pads every text to its budget, and computes the padding as well.
        padded = dataclasses.replace(tokens, query_tokens=bench.config.query_tokens,
                                     document_tokens=bench.config.document_tokens)
        flops = dataclasses.replace(flops, compress=naive_flops(compressor, padded))
    return flops


def step_flops(bench: Bench, texts: Texts, system: str) -> float:
    """Return the FLOPs of training on one mean question: forward, backward, and the gradients of trained weights."""
    generator = decoder_shape(bench.generator.base)
    prompts = bench.prompts(texts, system in FROM_MEMORY, _document_tokens(system))
    answer = statistics.fmean(map(len, texts.answers))
    read = statistics.fmean(map(len, prompts)) + answer - 1  # the answer's last token is only predicted

    if system == "naive_compressor":
        forward = plain_training_flops(generator, read)
    else:
        forward = training_flops(generator, read, answer)
    # The compressor is trained; the generator is frozen, and LoRA's own weights are too few to count.
    return TRAINED_STEP * question_flops(bench, texts, system).compress + FROZEN_STEP * forward


def _document_tokens(system: str) -> int | None:
    """Return the tokens of each document in a text prompt; None for all of them."""
    return MEMORY_TOKENS if system == "truncated_text" else None


def answer_job(bench: Bench, texts: Texts, system: str, answer_tokens: int) -> Callable[[], dict[str, float]]:
    """Return a call that answers the batch and returns its seconds by phase.

    The first token is prefill and one step of decoding, which reads the prompt's last token. The whole answer starts
    over, since prompts that were read serve one answer only.
    """
    compress = {"scaledown": bench.compress, "naive_compressor": bench.compress_naively}.get(system)

    @torch.no_grad()
    def answer() -> dict[str, float]:
        # What one phase leaves for the next, beside the timing, which returns seconds alone.
        state: dict[str, Any] = {"memory": None}
        times = {"compress": 0.0}
        if compress:
            times["compress"] = seconds(lambda: state.update(memory=compress(texts)), bench.device)

        def prefill() -> None:
            state["prompts"] = bench.prefill(texts, state["memory"], _document_tokens(system))

        def decode(num_tokens: int) -> None:
            bench.decode(state["prompts"], num_tokens)

        times["first_token"] = (times["compress"] + seconds(prefill, bench.device)
                                + seconds(lambda: decode(1), bench.device))

        # Once more for the whole answer; the memory is the same.
        times["prefill"] = seconds(prefill, bench.device)
        times["decode"] = seconds(lambda: decode(answer_tokens), bench.device)
        times["total"] = times["compress"] + times["prefill"] + times["decode"]
        return times

    return answer


def step_job(bench: Bench, batches: Sequence[Texts], system: str,
             optimizer: torch.optim.Optimizer) -> Callable[[], dict[str, float]]:
    """Return a call that trains on the next batch and returns its seconds."""
    turns = itertools.count()
    longest = 0  # the naive loss pads to it
    for texts in batches:
        for prompt, answer in zip(bench.prompts(texts, True), texts.answers, strict=True):
            longest = max(longest, len(prompt) + len(answer))

    def step(texts: Texts) -> None:
        if system == "naive_compressor":
            loss = bench.naive_loss(texts, bench.compress_naively(texts), longest)
        else:
            memory = bench.compress(texts) if system == "scaledown" else None
            loss = bench.loss(texts, memory, _document_tokens(system))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def timed_step() -> dict[str, float]:
        # Two calls warm up, and one for each batch measures memory: so the rounds that count begin at batch 0.
        texts = batches[(next(turns) - 2) % len(batches)]
        return {"step": seconds(lambda: step(texts), bench.device)}

    return timed_step


def measure_inference(args: argparse.Namespace, bench: Bench) -> list[dict[str, Any]]:
    """Measure answering: one row of figures for each system and number of documents."""
    # As a model that serves; the weights here are random, so nothing is lost by it.
    bench.for_answering()

    texts = {count: full_length(args, count, bench.shape.config.vocab_size) for count in args.num_documents}
    jobs: dict[float, dict[str, Callable[[], dict[str, float]]]] = {}
    for count in args.num_documents:
        jobs[count] = {system: answer_job(bench, texts[count], system, args.answer_tokens) for system in args.systems}

    # A first call of each system sets up what must not count as its memory.
    for answer in jobs[args.num_documents[0]].values():
        answer()
    peaks = {}
    for count, count_jobs in jobs.items():
        for system, answer in count_jobs.items():
            peaks[count, system] = peak_bytes(answer, bench.device)

    # Only after the peaks, which freed memory that the process keeps would hide.
    keep_freed_memory()

    times, machine = _times_and_peak(jobs, args.rounds, bench)
    return [_row(args, bench, texts[count], system, count, times[count, system], peaks[count, system], machine)
            for count, system in times]


def _times_and_peak(jobs: Mapping[float, Mapping[str, Callable[[], dict[str, float]]]], num_rounds: int,
                    bench: Bench) -> tuple[dict[tuple[float, str], dict[str, list[float]]], float]:
    """Return the seconds of each number of documents and system, by phase, and the machine's peak.

    All of them take turns, the numbers of documents too: a machine that slows down must not bend a line over these.
    """
    together = {}
    for count, count_jobs in jobs.items():
        for system, job in count_jobs.items():
            together[count, system] = job

    # Before and after, since a machine heats up or is shared; the best is the peak.
    machine = matmul_peak(bench.device, bench.dtype)
    with Bar(total=num_rounds + 1, desc="rounds over all systems and numbers of documents", unit="round") as bar:
        times = in_turns(together, num_rounds, bar.update)
    return times, max(machine, matmul_peak(bench.device, bench.dtype))


def _row(args: argparse.Namespace, bench: Bench, texts: Texts, system: str, num_documents: int,
         times: Mapping[str, list[float]], peak: int | None, machine: float) -> dict[str, Any]:
    flops = {**question_flops(bench, texts, system).to_dict(),
             "first_token": question_flops(bench, texts, system, answer_tokens=1).total}

    # Seconds are those of the batch; FLOPs and milliseconds in the row are those of one question.
    spreads = {phase: Spread.of(values) for phase, values in times.items()}
    shares = {phase: flops[phase] * args.batch_size / spreads[phase].median / machine
              for phase in ("compress", "prefill", "decode") if flops[phase]}
    return {"system": system, "num_documents": num_documents, "batch_size": args.batch_size,
            "ms_per_query": {phase: _milliseconds(spread, args.batch_size) for phase, spread in spreads.items()},
            "flops_per_query": flops, "share_of_matmul_peak": shares, "matmul_peak_flops": machine,
            "peak_bytes": peak,
            "new_tokens_per_second": args.batch_size * args.answer_tokens / spreads["total"].median}


def _milliseconds(spread: Spread, num_queries: int = 1) -> dict[str, float]:
    return {name: 1e3 * value / num_queries for name, value in dataclasses.asdict(spread).items()}


def measure_training(args: argparse.Namespace, bench: Bench) -> list[dict[str, Any]]:
    """Measure training steps: one row of figures for each system, on full-length texts or those of ``--train_data``."""
    bench.train()
    trained = [parameter for parameter in bench.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)

    vocab_size = bench.shape.config.vocab_size
    batches: dict[float, list[Texts]] = {}
    if args.train_data:
        texts = from_records(args, vocab_size)
        batches[_mean_documents(texts)] = texts
    else:
        batches = {count: [full_length(args, count, vocab_size)] for count in args.num_documents}

    jobs: dict[float, dict[str, Callable[[], dict[str, float]]]] = {}
    for count in batches:
        jobs[count] = {system: step_job(bench, batches[count], system, optimizer) for system in args.systems}

    # A first step of each sets up what must not count as its memory, such as the optimizer's state.
    for count_jobs in jobs.values():
        for step in count_jobs.values():
            step()
    peaks = {}
    for count, count_jobs in jobs.items():
        for system, step in count_jobs.items():
            peaks[count, system] = max(peak_bytes(step, bench.device) or 0 for _ in batches[count])

    # Only after the peaks, which freed memory that the process keeps would hide.
    keep_freed_memory()

    # There are not more batches than rounds, so each has its turn.
    times, machine = _times_and_peak(jobs, args.rounds, bench)
    return [_training_row(args, bench, batches[count], system, count, times[count, system]["step"],
                          peaks[count, system], machine) for count, system in times]


def _mean_documents(batches: Sequence[Texts]) -> float:
    """Return the mean number of documents of a question, to one decimal place."""
    questions = itertools.chain.from_iterable(texts.documents for texts in batches)
    return round(statistics.fmean(map(len, questions)), 1)


def _training_row(args: argparse.Namespace, bench: Bench, batches: Sequence[Texts], system: str, num_documents: float,
                  step_seconds: list[float], peak: int, machine: float) -> dict[str, Any]:
    # Batches of records differ in length, so rates are of the means over all batches.
    num_questions = statistics.fmean(len(texts.queries) for texts in batches)
    flops = statistics.fmean(step_flops(bench, texts, system) for texts in batches)
    mean = statistics.fmean(step_seconds)

    return {"system": system, "num_documents": num_documents, "batch_size": args.batch_size,
            "records": args.train_data, "step_ms": _milliseconds(Spread.of(step_seconds)),
            "examples_per_second": num_questions / mean, "flops_per_example": flops,
            "share_of_matmul_peak": flops * num_questions / mean / machine,
            "matmul_peak_flops": machine, "peak_bytes": peak or None}
