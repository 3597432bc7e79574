"""Time and memory at Mistral-7B's shape, with random weights: an answer from memory and from full text, a step."""

from __future__ import annotations

from typing import Any

import torch

from lab.gpu_check.hardware import cudnn_attention
from lab.gpu_check.report import Check, gibibytes, peak_memory
from scaledown.config import ScaleDownConfig
from scaledown.evaluation.benchmark.bench import Bench, Texts, preset

DOCUMENTS, TRAINED_DOCUMENTS = 10, 5
"""Documents of a question that is answered, and of one that is trained on."""
ANSWER_TOKENS = 32
CACHE_TOKENS = 512
"""Of a static cache: more than a prompt with its answer has."""
BATCH_SIZES, REHEARSED_BATCH_SIZES = (1, 32, 128), (1, 2)
"""Questions that are answered at one time; the last number with the folded model alone."""


def answering(check: Check) -> None:
    """Time compression, prefill and decoding beside full text, as trained and folded, for several batch sizes."""
    bench = _bench(check).eval()
    _say_weights(check, bench, "weights, as trained")
    batch_sizes = REHEARSED_BATCH_SIZES if check.is_rehearsal else BATCH_SIZES
    for batch_size in batch_sizes[:-1]:
        for with_cudnn in (True, False):
            name = f"as trained, cuDNN's attention {'allowed' if with_cudnn else 'off'}"
            _answer(check, bench, name, with_cudnn, batch_size)

    bench.for_answering()
    _say_weights(check, bench, "weights, for answering")
    for batch_size in batch_sizes:
        if check.has_time():
            _answer(check, bench, "for answering", False, batch_size)

    # Last, since compiling takes long.
    for batch_size in batch_sizes[:-1]:
        if check.has_time():
            _answer_by_graph(check, bench, batch_size)


def training_step(check: Check) -> None:
    """Time training steps and their peak memory, with and without checkpointing, and with a fused optimizer."""
    bench = _bench(check).train()
    trained = [weight for weight in bench.parameters() if weight.requires_grad]
    is_on_gpu = check.device.type == "cuda"

    for is_fused in (False, True) if is_on_gpu else (False,):
        optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=is_fused)
        for batch_size in (2,) if check.is_rehearsal else (2, 8):
            _step(check, bench, optimizer, batch_size, f"fused AdamW {is_fused}, all activations kept")

    bench.compressor.gradient_checkpointing_enable()
    bench.generator.gradient_checkpointing_enable()
    for batch_size in (2,) if check.is_rehearsal else (8, 32):
        _step(check, bench, optimizer, batch_size, "activations computed twice")


def _bench(check: Check) -> Bench:
    config = ScaleDownConfig(num_memory_tokens=8, compression_rate=16, query_tokens=128, lora_dropout=0.0)
    return Bench(preset("tiny" if check.is_rehearsal else "paper"), config, check.dtype, check.device)


def _texts(check: Check, bench: Bench, batch_size: int, num_documents: int) -> Texts:
    length = 16 if check.is_rehearsal else 128
    return Texts.drawn([(length, [length] * num_documents, ANSWER_TOKENS)] * batch_size,
                       bench.shape.config.vocab_size)


@torch.no_grad()
def _answer(check: Check, bench: Bench, name: str, with_cudnn: bool, batch_size: int) -> None:
    texts = _texts(check, bench, batch_size, DOCUMENTS)
    state: dict[str, Any] = {}

    def compress() -> None:
        state["memory"] = bench.compress(texts)

    def prefill(memory: Any) -> None:
        state["prompts"] = bench.prefill(texts, memory)

    def decode(memory: Any) -> float:
        # A prompt that was read serves one answer, so the reading is taken off again.
        def whole() -> None:
            prefill(memory)
            bench.decode(state["prompts"], ANSWER_TOKENS)

        return check.milliseconds(whole) - check.milliseconds(lambda: prefill(memory))

    with cudnn_attention(with_cudnn):
        compressing = check.milliseconds(compress)
        reading, decoding = check.milliseconds(lambda: prefill(state["memory"])), decode(state["memory"])
        text_reading, text_decoding = check.milliseconds(lambda: prefill(None)), decode(None)

    first, text_first = compressing + reading, text_reading
    whole, text_whole = first + decoding, text_first + text_decoding
    check.add("speed", f"{name}, batch {batch_size}",
              f"compress {compressing:.1f}, prefill {reading:.1f}, decode {decoding:.1f} ms; full text prefill "
              f"{text_reading:.1f}, decode {text_decoding:.1f} ms; first token {text_first / first:.2f}x, whole answer "
              f"{text_whole / whole:.2f}x, ms a question {whole / batch_size:.1f} against "
              f"{text_whole / batch_size:.1f}")


@torch.no_grad()
def _answer_by_graph(check: Check, bench: Bench, batch_size: int) -> None:
    """Time answers with a static cache, whose step transformers compiles on a GPU, into one CUDA graph."""
    texts = _texts(check, bench, batch_size, DOCUMENTS)
    memory = bench.compress(texts)

    def whole() -> None:
        # generate reads the prompts itself, into its own cache.
        prompts = bench.generator.prompts(bench.prompts(texts, True), memory)
        bench.decode(prompts, ANSWER_TOKENS, cache_implementation="static", max_cache_len=CACHE_TOKENS)

    compiling = check.milliseconds(whole, warm_up=0, rounds=1)
    check.add("speed", f"for answering, static cache, batch {batch_size}",
              f"prefill and decode {check.milliseconds(whole):.1f} ms, the first time {compiling / 1e3:.1f} s")


def _step(check: Check, bench: Bench, optimizer: torch.optim.Optimizer, batch_size: int, name: str) -> None:
    if not check.has_time():
        return
    texts = _texts(check, bench, batch_size, TRAINED_DOCUMENTS)

    def step() -> None:
        bench.loss(texts, bench.compress(texts)).backward()
        optimizer.step()
        optimizer.zero_grad()

    # The first step also makes the optimizer's state, and is not counted.
    step()
    if check.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(check.device)
    took = check.milliseconds(step, warm_up=0)
    peak = peak_memory(check.device)
    memory = "" if peak is None else f", at most {gibibytes(peak)}"
    check.add("memory", f"{name}, {batch_size} questions of {TRAINED_DOCUMENTS} documents",
              f"{took:.0f} ms, {1e3 * batch_size / took:.1f} questions a second{memory}")


def _say_weights(check: Check, bench: Bench, name: str) -> None:
    held = {weight.data_ptr(): weight.nbytes for weight in bench.parameters()}
    check.add("speed", name, gibibytes(sum(held.values())))
