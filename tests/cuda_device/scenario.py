"""Trains, saves, resumes, compresses, answers and measures on a CUDA device that is not there; prints what it saw.

    CUDA_GUARD=libguard.so python -m cuda_device.scenario FOLDER DTYPE [TYPE ...]

FOLDER has a tiny generator and a tiny encoder. Lines that begin with ``SEEN`` are JSON: one for each compressor type,
one for the benchmark, and one for the stand-in itself; in float16 one for a training alone.
"""

from __future__ import annotations

import cuda_device.device  # noqa: F401 - first, before torch

# isort: split
import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import stand_in
import torch
from stand_in import Counts, DeviceTensor
from torch import Tensor
from torch.utils._pytree import tree_iter
from transformers import LlamaConfig, TrainerCallback

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.evaluation.benchmark.bench import Bench, Preset, Texts, preset
from scaledown.evaluation.benchmark.measures import answer_job, step_job
from scaledown.evaluation.benchmark.ratios import SYSTEMS
from scaledown.models.generator import Prompts
from scaledown.models.memory import Memory
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.compressing import document_reader
from scaledown.training import run
from scaledown.training.trainer import ScaleDownTrainer

TYPES = ("n_layers", "modernbert", "llm")
TRAINING = TrainingConfig(batch_size=2, gradient_accumulation_steps=2, gradient_checkpointing=True, max_steps=2,
                          save_steps=1, logging_steps=1, num_workers=0, warmup_ratio=0.0,
                          learning_rate_generator=1e-3, learning_rate_compressor=1e-3)
SEEN = "SEEN "
NEVER_SAID = 399
"""A token that the tiny generator does not say: with it for an end, answers have the length asked for."""


def name_of(tensor: Tensor) -> str:
    """Return the tensor's number format."""
    assert isinstance(tensor, DeviceTensor) or tensor.device.type == "cpu"
    return str(tensor.dtype)[6:]


def written(counts: Counts) -> dict[str, Any]:
    """Return counts as JSON has them."""
    return {"launches": counts.launches.total(), "casts": counts.casts.total(), "waits": dict(counts.waits),
            "arrivals": dict(counts.arrivals), "uploads": dict(counts.uploads), "products": sorted(counts.products),
            "attentions": sorted(counts.attentions), "late": sorted(counts.late.elements())}


class CountedStep(TrainerCallback):
    """Counts the last step of a training, from its batch to the step of the optimizer; logging comes after it."""

    def on_step_begin(self, *given: Any, **settings: Any) -> None:
        self.counts = stand_in.counted_anew()

    def on_step_end(self, *given: Any, **settings: Any) -> None:
        stand_in.counted_anew()


def trained(config: ScaleDownConfig, device: str, dtype: str, folder: Path, resume_from: Path | None = None,
            training: TrainingConfig = TRAINING, num_records: int = 4) -> Any:
    """Return the losses of a training, what its last step asked of the device, and its trainer.

    A step that was skipped has no norm of its gradient.
    """
    model = run.build_model(config, torch.device(device), 1, dtype=dtype)
    trainer = ScaleDownTrainer(model, training, list(synthetic_records(num_records, seed=5)), folder)
    counted = CountedStep()
    trainer.add_callback(counted)
    trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    losses = []
    for row in trainer.state.log_history:
        if "answer_loss" in row:
            losses.append([row.get(name) for name in ("answer_loss", "reranking_loss", "grad_norm")])
    trainer.note_progress()
    model.save_pretrained(folder / run.FINAL)
    return losses, counted.counts, trainer


def tensors_are_there(model: ScaleDownModel, trainer: ScaleDownTrainer) -> bool:
    """Return whether all weights and all of the optimizer's state are on the device."""
    # Numbers of steps stay on the CPU.
    states = [each for each in tree_iter(trainer.optimizer.state_dict()) if isinstance(each, Tensor) and each.dim()]
    assert states
    return all(isinstance(tensor, DeviceTensor) for tensor in [*model.parameters(), *model.buffers(), *states])


def answering(folder: Path, device: str, dtype: str) -> dict[str, Any]:
    """Load a checkpoint, and use what it can do."""
    model = ScaleDownModel.from_pretrained(folder, device=device, dtype=dtype)
    records = list(synthetic_records(2, seed=6))
    questions = [record.query for record in records]
    documents = [list(record.documents)[:2] for record in records]
    memory, cache = model.compress(questions, documents), MemoryCache()
    found = {"memory": memory.embeddings.flatten().float().cpu().tolist(), "memory_dtype": name_of(memory.embeddings),
             "ranking": model.rerank(questions[0], documents[0])[1],
             "prompt_embeds_dtype": name_of(model.prompt_embeds(questions, memory=memory)[0]),
             "kept": model.answer(questions, documents, max_new_tokens=2, keep_documents=1, cache=cache),
             "answers": model.answer(questions, documents, max_new_tokens=3, cache=cache)}
    pieces = dict.fromkeys(range(len(questions)), "")
    for piece in model.answer(questions, memory=memory, max_new_tokens=3, stream=True):
        pieces[piece.question] += piece.text
    found["streamed"] = list(pieces.values())

    found |= answer_counts(model, questions, memory)
    # The same of a model that only answers, from memory of its own.
    model.for_answering()
    found["folded"] = answer_counts(model, questions, model.compress(questions, documents))
    found["folded"]["answers"] = model.answer(questions, documents, max_new_tokens=3)
    return found


def answer_counts(model: ScaleDownModel, questions: list[str], memory: Memory) -> dict[str, Any]:
    """Return what an answer asks of the device, and what a token more of it does alone."""
    found, of_length = {}, {}
    for length in (2, 3):
        of_length[length] = stand_in.counted_anew()
        prompts = model.prefill(questions, memory)
        found["cache_dtypes"] = sorted({name_of(layer.keys) for layer in prompts.cache.layers})
        model.decode(prompts, length, eos_token_id=NEVER_SAID, pad_token_id=0)
    short, long = of_length.values()
    return found | {"answer": written(short), "token": written(long.without(short))}


def stored(config: ScaleDownConfig, dtype: str) -> dict[str, Any]:
    """Read documents ahead of a question, and compress them from the store and without it."""
    config = dataclasses.replace(config, input_order="document_first")
    model = run.build_model(config, torch.device("cuda"), 1, dtype=dtype)
    # The start of a document is one entry of a store.
    model.long_documents = "cut"
    record, = synthetic_records(1, seed=6)
    documents, found = list(record.documents)[:2], {}
    for name, store in (("with", model.read_documents(documents)), ("without", None)):
        memory = model.compress(record.query, documents, store=store)
        found[name] = memory.embeddings.flatten().float().cpu().tolist()
    # Keys and values of each layer, as the compressor made them.
    store, keys = model.read_documents(documents), model.processor.document_keys(documents)
    layers = store.gather(keys, document_reader(model))
    found["dtypes"] = [list(map(name_of, layer)) for layer in layers]
    return found


def refused() -> dict[str, bool]:
    """Return whether the stand-in refuses to mix devices, for mixtures that torch refuses and some that it takes."""
    there, here, number, index = torch.ones(3, device="cuda"), torch.ones(3), torch.tensor(2.0), torch.tensor([0, 2])
    mixtures: dict[str, Callable[[], Any]] = {
        "sum": lambda: there + here, "product": lambda: there @ here, "cat": lambda: torch.cat([here, there]),
        "index of the CPU by the device": lambda: here[index.cuda()], "in place": lambda: here.add_(there),
        "number": lambda: there * number, "index": lambda: there[index], "copy": lambda: here.copy_(there)}
    found = {}
    for name, mixture in mixtures.items():
        try:
            mixture()
            found[name] = False
        except RuntimeError as fault:
            found[name] = "same device" in str(fault)
    return found


def systems(dtype: torch.dtype) -> dict[str, list[tuple[str, str]]]:
    """Return the number formats of each matrix product of the benchmark, by system and job."""
    config = ScaleDownConfig(num_memory_tokens=8, compression_rate=2, query_tokens=6, lora_dropout=0.0)
    texts = Texts.drawn([(6, [16, 16], 3), (6, [16], 2)], 500)
    found = {}
    for system in SYSTEMS:
        bench = Bench(preset("tiny"), config, dtype, torch.device("cuda"))
        optimizer = torch.optim.AdamW([weight for weight in bench.parameters() if weight.requires_grad])
        jobs: dict[str, Callable[[], Any]] = {"step": step_job(bench, [texts], system, optimizer)}
        jobs["answer"] = answer_job(bench, texts, system, 2)
        for name, job in jobs.items():
            if name == "answer":
                bench.for_answering()
            counts = stand_in.counted_anew()
            job()
            found[f"{system} {name}"] = sorted(counts.products)
    return found


def launches(num_layers: int) -> dict[str, int]:
    """Return the operations of each phase of an answer in bfloat16, as trained and folded, from memory and from text.

    Generator and compressor have ``num_layers`` each; nothing is padded.
    """
    config = LlamaConfig(vocab_size=500, hidden_size=64, intermediate_size=176, num_hidden_layers=num_layers,
                         num_attention_heads=8, num_key_value_heads=2)
    settings = ScaleDownConfig(num_memory_tokens=8, compression_rate=2, query_tokens=6, lora_dropout=0.0)
    bench = Bench(Preset(config, num_layers), settings, torch.bfloat16, torch.device("cuda")).eval()
    texts, found = Texts.drawn([(6, [16, 16], 3)] * 2, 500), {}

    def counted(work: Callable[[], Any]) -> tuple[int, Any]:
        counts = stand_in.counted_anew()
        result = work()
        return counts.launches.total(), result

    def read(memory: Tensor | None) -> Prompts:
        # Full text is read by the generator as it was, without its adapter; folded, it cannot be switched off.
        with torch.autocast("cuda", torch.bfloat16, enabled=not bench.only_answers):
            ids = bench.prompts(texts, memory is not None)
            prompts = bench.generator.prompts(ids, memory, bench.only_answers or memory is not None)
            bench.generator.prefill(prompts)
        return prompts

    for state in ("as trained", "for answering"):
        if state == "for answering":
            bench.for_answering()
        found[f"{state}, compress"], memory = counted(functools.partial(bench.compress, texts))
        for source, given in (("memory", memory), ("text", None)):
            found[f"{state}, {source}, prefill"], prompts = counted(functools.partial(read, given))
            two, _ = counted(functools.partial(bench.decode, prompts, 2))
            prompts = read(given)
            three, _ = counted(functools.partial(bench.decode, prompts, 3))
            found[f"{state}, {source}, token"] = three - two
    return found


def compressor(kind: str, dtype: str, folder: Path) -> dict[str, Any]:
    """Return what all of the scenario saw for one type, beside the same on the CPU in float32."""
    config = ScaleDownConfig(
        generator_model=str(folder / "generator"), compressor_type=kind, num_memory_tokens=2, compression_rate=16,
        enable_reranking=True, lora_dropout=0.0, input_order="document_first" if kind == "llm" else "query_first",
        compressor_model={"modernbert": str(folder / "encoder"), "llm": str(folder / "generator")}.get(kind))
    place = folder / f"{kind}_{dtype}"
    expected, _, _ = trained(config, "cpu", "float32", place / "cpu")
    # Ruled out by the first model on the device.
    torch.backends.cuda.enable_cudnn_sdp(True)
    losses, counts, trainer = trained(config, "cuda", dtype, place / "cuda")
    has_cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    found = {"losses": losses, "expected": expected, "step": written(counts), "num_gpus": trainer.args.n_gpu,
             "is_there": tensors_are_there(trainer.scaledown, trainer), "has_cudnn": has_cudnn,
             "optimizer_kernels": counts.launches["_fused_adamw_"]}
    found["resumed"], _, trainer = trained(config, "cuda", dtype, place / "resumed", place / "cuda" / "checkpoint-1")
    found["is_there"] &= tensors_are_there(trainer.scaledown, trainer)
    found["cuda"] = answering(place / "cuda" / run.FINAL, "cuda", dtype)
    found["cpu"] = answering(place / "cuda" / run.FINAL, "cpu", "float32")
    if kind != "modernbert":
        found["store"] = stored(config, dtype)
    return found


def scaled(folder: Path) -> dict[str, Any]:
    """Train in float16 on the same two records in each step, and go on from the middle; beside it the CPU's."""
    config = ScaleDownConfig(generator_model=str(folder / "generator"), num_memory_tokens=2, compression_rate=16,
                             enable_reranking=True, lora_dropout=0.0)
    training = dataclasses.replace(TRAINING, max_steps=8, save_steps=4)
    place, given = folder / "scaled", {"training": training, "num_records": 2}
    expected, _, _ = trained(config, "cpu", "float32", place / "cpu", **given)
    losses, counts, trainer = trained(config, "cuda", "auto", place / "cuda", **given)
    resumed, _, again = trained(config, "cuda", "auto", place / "again", place / "cuda" / "checkpoint-4", **given)
    scales = [each.accelerator.scaler.get_scale() for each in (trainer, again)]
    return {"losses": losses, "expected": expected, "step": written(counts), "resumed": resumed, "scales": scales,
            "is_there": tensors_are_there(trainer.scaledown, trainer)}


def main() -> None:
    """Run everything in one number format."""
    folder, dtype = Path(sys.argv[1]), sys.argv[2]
    if dtype == "float16":
        tell("scaled", scaled(folder))
        return

    tell("refused", refused())
    if dtype == "bfloat16":
        tell("systems", systems(torch.bfloat16))
        with torch.no_grad():
            tell("launches", {str(number): launches(number) for number in (2, 3)})
    for kind in sys.argv[3:] or TYPES:
        tell(kind, compressor(kind, dtype, folder))


def tell(name: str, found: Any) -> None:
    """Print one entry, as a line of JSON."""
    print(f"{SEEN}{json.dumps({name: found})}", flush=True)


if __name__ == "__main__":
    main()
