"""The settings of a run: its files and its machine, training, pretraining and evaluation."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from dataclasses import dataclass

from scaledown.settings import not_among_choices, not_negative, positive, require, setting

OPTIMIZERS = ("adamw", "muon", "adamw_8bit", "paged_adamw_8bit")
PRESET_NAMES = ("demo", "laptop", "colab_t4", "gpu_24gb", "gpu_48gb", "paper")
DEVICES = ("auto", "gpu", "cuda", "cpu", "mps", "trainium")
DTYPES = ("float32", "bfloat16", "float16")
"""What ``--dtype`` names. float16 trains on CUDA alone, with losses that are scaled: else its gradients vanish."""
LONG_DOCUMENTS = SPLIT, CUT = "split", "cut"
"""What becomes of a document beyond ``document_tokens``: passages of it are read, or its start alone."""
DEFAULT_PRETRAINING_TEXTS = "HuggingFaceFW/fineweb"
LARGEST_SEED = 2**32 - 1
REPORTS = ("tensorboard", "wandb", "trackio", "none")
"""The programs to which the Trainer reports, by the names of their packages."""


@dataclass(frozen=True)
class RunConfig:
    """The files of a training run, its start, and the machine that it runs on."""

    train_data: str | None = setting(
        None, "training records, JSON or JSONL", group="data")
    eval_data: str | None = setting(None, "evaluation records [X_eval.json beside X.json]", group="data")
    output_dir: str = setting("./checkpoints", "folder of the run's results and checkpoints", group="data")
    long_documents: str | None = setting(
        None, "documents beyond num_memory_tokens x compression_rate tokens are split into passages or cut there "
        "[split; in training cut]", LONG_DOCUMENTS, group="data", is_advanced=True)
    resume: bool = setting(False, "go on from the last checkpoint in --output_dir", group="data")
    overwrite: bool = setting(False, "replace the run in --output_dir", group="data")
    init_compressor: str | None = setting(
        None, "start from this checkpoint: a folder, a Hub id, or one that ships", group="model", is_advanced=True)
    preset: str | None = setting(
        None, "settings for any machine (demo), a laptop, a T4, a GPU of 24, 48, 80 GB (paper); flags win",
        PRESET_NAMES, group="training")
    learning_rate: float | None = setting(
        None, "peak learning rate [1e-4; of an n_layers compressor 5e-5]",
        group="training")
    eval_steps: int = setting(500, "steps between two evaluation losses", group="training")
    device: str = setting("auto", "device to run on [the fastest there is]", DEVICES, group="machine")
    dtype: str = setting(
        "auto", "number format of the arithmetic [the shortest that the device is fast in: bfloat16, or on older GPUs "
        "float16; else float32]", ("auto", *DTYPES), group="machine", is_advanced=True)

    def __post_init__(self) -> None:
        faults = positive(self, "eval_steps", "learning_rate") + not_among_choices(self)
        if self.resume and self.overwrite:
            faults.append("--resume goes on with the run in --output_dir and --overwrite removes it: give one of them")
        require(faults)


@dataclass(frozen=True)
class TrainingConfig:
    """The training's settings; their defaults are the paper's (table 7)."""

    batch_size: int = setting(128, "questions of a step, over all processes and micro-batches")
    num_epochs: float = setting(1.0, "passes over the training records")
    max_steps: int | None = setting(None, "stop after this number of steps")
    learning_rate_generator: float = setting(
        1e-4, "peak learning rate of the generator's LoRA adapter and special tokens", is_advanced=True)
    learning_rate_compressor: float | None = setting(
        None, "peak learning rate of the compressor [5e-5 for n_layers, 1e-4 for the others; ten times "
        "that for --compressor_lora_rank]", is_advanced=True)
    optimizer: str = setting(
        "adamw", "AdamW, also with its state in 8 bits (needs bitsandbytes), or Muon for the compressor's matrices and "
        "AdamW for the rest", OPTIMIZERS, is_advanced=True)
    weight_decay: float = setting(0.1, "the optimizer's weight decay", is_advanced=True)
    warmup_ratio: float = setting(0.05, "share of the steps in which the learning rate rises", is_advanced=True)
    compressor_warmup_steps: int = setting(
        0, "initial steps in which only the compressor is trained and the generator stays frozen", is_advanced=True)
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm", is_advanced=True)
    reranking_loss_weight: float = setting(
        0.05, "weight of the reranking loss, lambda (paper, equation 3)", is_advanced=True)
    readout_loss_weight: float = setting(
        0.0, "initial weight of the readout loss (the answer is read directly from the memory of each document that "
        "states it), which falls to 0, or stays with --soft_tokens. It helps compressors that learn slowly from "
        "answers alone", is_advanced=True)
    readout_steps: int = setting(
        0, "initial steps with the readout loss alone, at its full weight; the generator is not run, so they are cheap",
        is_advanced=True)
    train_text_documents: tuple[int, ...] | None = setting(
        None, "numbers such as 0 1 2: each step draws one, and that number of each question's documents, which the "
        "generator reads as text beside the memory of the others [0]", is_advanced=True)
    query_dropout: float = setting(
        0.0, "share of the questions whose documents are compressed without the query, so that memory made by "
        "compress(None, documents) serves any question; such as 0.2", is_advanced=True)
    gradient_accumulation_steps: int = setting(
        1, "micro-batches of a step: more need less memory and give the same result", group="machine",
        is_advanced=True)
    num_workers: int | None = setting(
        None, "processes that prepare batches [2 on a GPU, 0 on a CPU]", group="machine", is_advanced=True)
    compile: bool = setting(
        False, "compile the step for batches of one shape; takes a minute or more at the start", group="machine",
        is_advanced=True)
    shard: bool = setting(
        False, "shard weights, gradients and optimizer state over the processes (FSDP2)", group="machine",
        is_advanced=True)
    gradient_checkpointing: bool = setting(
        False, "compute activations twice to save memory", group="machine", is_advanced=True)
    answer_tokens: int = setting(128, "longest answer to train on, in tokens", is_advanced=True)
    logging_steps: int = setting(10, "steps between two lines of the log", is_advanced=True)
    report_to: str = setting(
        "tensorboard", "program that gets the curves of the log; wandb and trackio are installed with pip", REPORTS,
        is_advanced=True)
    save_steps: int = setting(500, "steps between two checkpoints")
    seed: int = setting(42, "seed of everything random")

    def __post_init__(self) -> None:
        faults = positive(self, "batch_size", "num_epochs", "max_steps", "learning_rate_generator",
                          "learning_rate_compressor", "max_grad_norm", "gradient_accumulation_steps", "answer_tokens",
                          "logging_steps", "save_steps")
        faults += not_negative(self, "num_workers", "weight_decay", "compressor_warmup_steps", "readout_steps",
                               "reranking_loss_weight", "readout_loss_weight")
        faults += not_among_choices(self)

        # Ranges of their own.
        if not 0 <= self.seed <= LARGEST_SEED:
            faults.append(f"--seed must be between 0 and {LARGEST_SEED}, got {self.seed}")
        if not 0 <= self.warmup_ratio < 1:
            faults.append(f"--warmup_ratio must be at least 0 and below 1, got {self.warmup_ratio}")

        numbers = self.train_text_documents
        if numbers is not None and min(numbers, default=-1) < 0:
            faults.append(f"--train_text_documents {' '.join(map(str, numbers))}: expected numbers of at least 0")

        if not 0 <= self.query_dropout <= 1:
            faults.append(f"--query_dropout must be a share from 0 to 1, got {self.query_dropout}")

        # Settings that need, exclude or divide another.
        if self.query_dropout == 1 and self.readout_loss_weight:
            faults.append("--query_dropout 1 leaves nothing to read out, since that depends on the query: lower it, or "
                          "give --readout_loss_weight 0")
        if self.readout_steps > 0 and not self.readout_loss_weight:
            faults.append(f"--readout_steps {self.readout_steps} learns from the readout loss alone: give it a weight "
                          "with --readout_loss_weight, such as 1.0")
        if self.gradient_accumulation_steps > 0 and self.batch_size % self.gradient_accumulation_steps:
            faults.append(f"--batch_size {self.batch_size} cannot be cut into --gradient_accumulation_steps "
                          f"{self.gradient_accumulation_steps} equal parts")
        if self.report_to in REPORTS and not _can_report_to(self.report_to):
            faults.append(f"--report_to {self.report_to} needs {self.report_to}: pip install {self.report_to}")
        require(faults)


@dataclass(frozen=True)
class PretrainingConfig:
    """Pretraining, for a compressor that is not made of the generator's layers and cannot speak to it yet.

    It repeats texts from their memory, or continues them (paper, section 3.2; see ``training/pretraining.py``).
    """

    pretrain_steps: int | None = setting(None, "steps of pretraining before the training [none]")
    pretrain_data: str | None = setting(
        None, "texts to pretrain on: a text file (paragraphs between blank lines), records (their documents), a "
        "parquet file with a column 'text', a folder of such files, or a Hub dataset "
        f"[{DEFAULT_PRETRAINING_TEXTS}, streamed]", group="data", is_advanced=True)

    def __post_init__(self) -> None:
        faults = positive(self, "pretrain_steps")
        if self.pretrain_data is not None and self.pretrain_steps is None:
            faults.append(f"--pretrain_data {self.pretrain_data}: say for how long with --pretrain_steps")
        require(faults)


@dataclass(frozen=True)
class EvaluationConfig:
    """The evaluation's settings."""

    eval_examples: int = setting(500, "evaluation questions, the first ones")
    eval_batch_size: int = setting(8, "questions answered together", is_advanced=True)
    max_new_tokens: int = setting(64, "longest answer, in tokens")
    timed_queries: int = setting(30, "questions timed one by one, for the latency figures", is_advanced=True)
    bootstrap_resamples: int = setting(1000, "resamples behind each 95% interval", is_advanced=True)

    def __post_init__(self) -> None:
        require(positive(self, *(field.name for field in dataclasses.fields(self))))


def _can_report_to(program: str) -> bool:
    if program == "none":
        return True
    # Not find_spec, for which the folder wandb/ that a run leaves would be a package.
    try:
        importlib.metadata.version(program)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
