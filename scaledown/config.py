"""Every setting and its default, in frozen dataclasses that check themselves. No torch here.

A field's ``metadata["help"]`` is the help of its command-line flag (see :mod:`scaledown.cli`), so a default
is written once: here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaledown.files import parse_json

MEMORY_INITS = ("tokens", "reply")
INPUT_ORDERS = ("query_first", "document_first")
OPTIMIZERS = ("adamw", "muon")
DEVICES = ("auto", "gpu", "cuda", "cpu", "mps", "trainium")
DTYPES = ("float32", "bfloat16")
"""What ``--dtype`` names. Not float16: its gradients vanish unless losses are scaled."""
COMPRESSOR_TYPES = ("n_layers", "modernbert", "llm")
DEFAULT_PRETRAINING_TEXTS = "HuggingFaceFW/fineweb"
DEFAULT_GENERATOR = "Qwen/Qwen2.5-0.5B-Instruct"
DEFAULT_ENCODER = "answerdotai/ModernBERT-base"
DEFAULT_LLM = "meta-llama/Llama-3.2-1B-Instruct"
EMBEDDED = "embedded"
EMBEDDED_MODERNBERT = "embedded_modernbert"
"""A checkpoint that ships: of the embedded generator, with an encoder that compresses."""
LARGEST_SEED = 2**32 - 1


def _spaced(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers))


def setting(default: Any, help: str, choices: tuple[str, ...] | None = None, *, has_flag: bool = True) -> Any:
    """Return a dataclass field that carries the help text and the choices of its flag, if it has one."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "has_flag": has_flag})


def require(faults: list[str]) -> None:
    """Raise a ValueError that names all ``faults``, where there are any."""
    if faults:
        raise ValueError("; ".join(faults))


def positive(config: Any, *names: str) -> list[str]:
    """A fault for each of these fields that is a number, but not a finite one above 0."""
    values = ((name, getattr(config, name)) for name in names)
    return [f"--{name} must be above 0 and finite, got {value}" for name, value in values
            if value is not None and not 0 < value < math.inf]


@dataclass(frozen=True)
class ScaleDownConfig:
    """The model: a generator, a compressor and how they meet (paper, section 3). Saved as ``config.json``.

    ``compression_rate`` is document tokens over memory tokens: with 8 memory tokens, rate 16 reads documents
    of 128 tokens.
    """

    generator_model: str = setting(DEFAULT_GENERATOR, "the generator: a Hub id, a local folder, or 'embedded'")
    generator_revision: str | None = setting(None, "commit, branch or tag of the generator on the Hub")
    compressor_type: str = setting("n_layers", "the compressor's kind", COMPRESSOR_TYPES)
    num_layers: int | None = setting(
        None, "layers of the generator that the n_layers compressor copies [8, or a third where it has fewer than 24]")
    compressor_model: str | None = setting(
        None, f"the encoder of a modernbert compressor [{DEFAULT_ENCODER}], or the causal LM of an llm one "
        f"[{DEFAULT_LLM}]: a Hub id, a local folder, or 'embedded' (an encoder: one made of the generator's first "
        "layers), the default beside the embedded generator")
    compressor_revision: str | None = setting(None, "commit, branch or tag of the compressor's model on the Hub")
    num_memory_tokens: int = setting(8, "embeddings that stand for one document")
    train_memory_tokens: tuple[int, ...] | None = setting(
        None, "train these numbers of memory tokens together, such as 1 2 4 8: the first embeddings of a document are "
        "then a summary by themselves, and any of the numbers can be asked for later [--num_memory_tokens alone]")
    compression_rate: int = setting(16, "document tokens / memory tokens")
    query_tokens: int = setting(128, "longest query that the compressor reads, in tokens, beside the document's own")
    input_order: str = setting(
        "query_first", "what the compressor reads first: query_first shares the query among the documents; with "
        "document_first a document's reading can be stored and serve any query (n_layers, llm)", INPUT_ORDERS)
    enable_reranking: bool = setting(False, "also score each document, in the same pass")
    keep_threshold: float | None = setting(
        None, 'score from which keep_documents="auto" keeps a document; scaledown.evaluation.calibration finds it',
        has_flag=False)
    memory_norm: bool = setting(
        False, "scale the memory embeddings to the generator's own with an RMS norm (the paper has none)")
    memory_init: str | None = setting(
        None, "how memory rows start: drawn like token embeddings, or (compressors made of the generator) as the "
        "tokens after which it would answer, with nothing changed behind the layers [reply with the embedded "
        "generator's own layers, else tokens]", MEMORY_INITS)
    mlp_width: int = setting(8096, "hidden width of the MLP behind a modernbert or llm compressor (paper, section 3)")
    lora_rank: int = setting(16, "rank of the generator's LoRA adapter (paper, table 7)")
    lora_alpha: int = setting(32, "scale of the generator's LoRA adapter")
    lora_dropout: float = setting(0.1, "dropout inside the LoRA adapter")
    load_in_4bit: bool = setting(False, "hold the generator's frozen weights in 4 bits (needs bitsandbytes)")
    load_in_8bit: bool = setting(False, "hold the generator's frozen weights in 8 bits (needs bitsandbytes)")
    trust_remote_code: bool = setting(False, "run model code that comes with a Hub model: only for authors you trust")

    def __post_init__(self) -> None:
        faults = positive(self, "num_layers", "num_memory_tokens", "compression_rate", "query_tokens", "mlp_width",
                          "lora_rank", "lora_alpha")
        if self.compressor_type not in COMPRESSOR_TYPES:
            faults.append(f"--compressor_type must be one of {', '.join(COMPRESSOR_TYPES)}, "
                          f"got {self.compressor_type!r}")
        if self.memory_init not in (None, *MEMORY_INITS):
            faults.append(f"--memory_init must be one of {', '.join(MEMORY_INITS)}, got {self.memory_init!r}")
        if self.input_order not in INPUT_ORDERS:
            faults.append(f"--input_order must be one of {', '.join(INPUT_ORDERS)}, got {self.input_order!r}")
        if self.memory_init == "reply" and not self.reads_as_generator:
            faults.append("--memory_init reply belongs to compressors made of the generator: --compressor_type "
                          "n_layers, modernbert with --compressor_model embedded, llm with the generator itself, not "
                          f"{self.compressor_type} with {self.compressor_model or 'its default'}")
        if self.train_memory_tokens is not None and not (
                min(self.train_memory_tokens, default=0) > 0
                and max(self.train_memory_tokens) == self.num_memory_tokens):
            faults.append(f"--train_memory_tokens {_spaced(self.train_memory_tokens)}: expected numbers above 0, the "
                          f"largest being --num_memory_tokens, {self.num_memory_tokens}")
        if not 0 <= self.lora_dropout < 1:
            faults.append(f"--lora_dropout must be at least 0 and below 1, got {self.lora_dropout}")
        if self.load_in_4bit and self.load_in_8bit:
            faults.append("--load_in_4bit and --load_in_8bit contradict each other: give one of them")
        if self.num_layers is not None and self.compressor_type != "n_layers":
            faults.append(f"--num_layers belongs to --compressor_type n_layers, not {self.compressor_type}")
        if self.compressor_model is not None and self.compressor_type == "n_layers":
            faults.append("--compressor_model belongs to --compressor_type modernbert or llm: n_layers copies the "
                          "generator")
        require(faults)

    @property
    def reads_as_generator(self) -> bool:
        """Whether the compressor is made of the generator's own layers, and so reads the same tokens."""
        if self.compressor_type == "llm":
            # Its default is the embedded generator itself, or beside another one a model of the Hub.
            return (self.compressor_model or EMBEDDED) == self.generator_model
        # The embedded encoder is made of whatever generator it stands beside.
        return self.compressor_type == "n_layers" or (self.compressor_model or self.generator_model) == EMBEDDED

    @property
    def document_tokens(self) -> int:
        """Longest document that is read, in tokens; what is longer is cut (with a warning)."""
        return self.num_memory_tokens * self.compression_rate

    @property
    def memory_token_choices(self) -> tuple[int, ...]:
        """Numbers of memory tokens that the model is trained for, in rising order."""
        return tuple(sorted(set(self.train_memory_tokens or (self.num_memory_tokens,))))

    def checked_memory_tokens(self, num_memory_tokens: int | None) -> int:
        """``num_memory_tokens``, or the most there are where it is None.

        Raises:
            ValueError: for a number that the model is not trained for.
        """
        if num_memory_tokens is None:
            return self.num_memory_tokens
        if num_memory_tokens not in self.memory_token_choices:
            raise ValueError(f"--num_memory_tokens {num_memory_tokens}: this model is trained for "
                             f"{_spaced(self.memory_token_choices)}; others are trained with --train_memory_tokens")
        return num_memory_tokens

    def save(self, folder: Path | str) -> None:
        """Write ``config.json`` into ``folder``."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        (Path(folder) / "config.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> ScaleDownConfig:
        """Read ``config.json`` from ``folder``.

        Raises:
            ValueError: where it is missing, is not JSON, or has unknown or impossible settings.
        """
        path = Path(folder) / "config.json"
        try:
            values = parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{folder}: no config.json; expected a folder that save_pretrained wrote") from None
        except json.JSONDecodeError as fault:
            raise ValueError(f"{path}: not valid JSON (line {fault.lineno}: {fault.msg})") from None
        except (OSError, UnicodeDecodeError) as fault:
            raise ValueError(f"{path}: cannot be read ({fault})") from None
        if not isinstance(values, dict) or "model_type" in values:
            raise ValueError(f"{folder}: a Hugging Face model or something else, but no ScaleDown checkpoint "
                             "(which has settings such as compressor_type in its config.json)")
        return from_dict(cls, values, source=str(path))


@dataclass(frozen=True)
class TrainingConfig:
    """How a run trains (defaults: the paper's table 7). Saved with each run."""

    batch_size: int = setting(128, "questions a step, over all processes and accumulation steps")
    num_epochs: float = setting(1.0, "passes over the training records")
    max_steps: int | None = setting(None, "stop after so many steps, whatever --num_epochs says")
    learning_rate_generator: float = setting(1e-4, "peak learning rate of LoRA and the generator's special rows")
    learning_rate_compressor: float | None = setting(
        None, "peak learning rate of the compressor [5e-5 for n_layers, 1e-4 for the others]")
    optimizer: str = setting("adamw", "AdamW for all, or Muon for the compressor's matrices and AdamW for the rest",
                             OPTIMIZERS)
    weight_decay: float = setting(0.1, "the optimizer's weight decay")
    warmup_ratio: float = setting(0.05, "share of the steps in which the learning rate rises")
    compressor_warmup_steps: int = setting(
        0, "so many steps at first the compressor learns alone, to speak the generator's language before both move")
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm")
    reranking_loss_weight: float = setting(0.05, "lambda: weight of the reranking loss (paper, equation 3)")
    readout_loss_weight: float = setting(
        0.0, "weight, at first, of also reading the answer straight off the memory of each document that states it, "
        "and of the others that they do not: it shows a compressor what to look for long before the generator's "
        "answers do, and falls to 0 by the end")
    readout_steps: int = setting(
        0, "so many steps at first the compressor learns from that loss alone, at its full weight: the generator is "
        "not run, which makes a step cheaper")
    gradient_accumulation_steps: int = setting(1, "micro-batches a step; the batch size is their sum")
    num_workers: int | None = setting(None, "processes that prepare batches ahead [2 on a GPU, 0 on a CPU]")
    compile: bool = setting(False, "compile the step for batches of one shape; takes a minute or more at the start")
    shard: bool = setting(False, "share weights, gradients and optimizer state out among the processes (FSDP2)")
    gradient_checkpointing: bool = setting(False, "compute activations twice to save memory")
    answer_tokens: int = setting(128, "longest answer that is learnt, in tokens")
    logging_steps: int = setting(10, "steps between two lines of the log")
    save_steps: int = setting(500, "steps between two checkpoints")
    seed: int = setting(42, "seed of everything random")

    def __post_init__(self) -> None:
        faults = positive(self, "batch_size", "num_epochs", "max_steps", "learning_rate_generator",
                          "learning_rate_compressor", "max_grad_norm", "gradient_accumulation_steps", "answer_tokens",
                          "logging_steps", "save_steps")
        faults += [f"--{name} must be at least 0 and finite, got {value}"
                   for name in ("num_workers", "weight_decay", "compressor_warmup_steps", "readout_steps",
                                "reranking_loss_weight", "readout_loss_weight")
                   if (value := getattr(self, name)) is not None and not 0 <= value < math.inf]
        if self.readout_steps > 0 and not self.readout_loss_weight:
            faults.append(f"--readout_steps {self.readout_steps} learns from the readout loss alone: give it a weight "
                          "with --readout_loss_weight, such as 1.0")
        if not 0 <= self.seed <= LARGEST_SEED:
            faults.append(f"--seed must be between 0 and {LARGEST_SEED}, got {self.seed}")
        if self.optimizer not in OPTIMIZERS:
            faults.append(f"--optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if not 0 <= self.warmup_ratio < 1:
            faults.append(f"--warmup_ratio must be at least 0 and below 1, got {self.warmup_ratio}")
        if self.gradient_accumulation_steps > 0 and self.batch_size % self.gradient_accumulation_steps:
            faults.append(f"--batch_size {self.batch_size} cannot be cut into --gradient_accumulation_steps "
                          f"{self.gradient_accumulation_steps} equal parts")
        require(faults)


@dataclass(frozen=True)
class PretrainingConfig:
    """Pretraining before training: how a compressor that is not the generator's own learns to speak to it.

    Half of it gives a text back from its memory, half goes on after one (paper, section 3.2).
    """

    pretrain_steps: int | None = setting(None, "steps of pretraining before the training [none]")
    pretrain_data: str | None = setting(
        None, "texts to pretrain on: a text file (paragraphs between blank lines), records (their documents), a "
        f"parquet file or a Hub dataset with a column 'text' [{DEFAULT_PRETRAINING_TEXTS}, streamed]")

    def __post_init__(self) -> None:
        faults = positive(self, "pretrain_steps")
        if self.pretrain_data is not None and self.pretrain_steps is None:
            faults.append(f"--pretrain_data {self.pretrain_data}: say for how long with --pretrain_steps")
        require(faults)


@dataclass(frozen=True)
class EvaluationConfig:
    """How a run is measured."""

    eval_examples: int = setting(500, "evaluation questions, the first of the evaluation half")
    eval_batch_size: int = setting(8, "questions answered together")
    max_new_tokens: int = setting(64, "longest answer, in tokens")
    timed_queries: int = setting(30, "questions timed one by one for the latency figures")
    bootstrap_resamples: int = setting(1000, "resamples behind each 95% interval")

    def __post_init__(self) -> None:
        require(positive(self, *(field.name for field in dataclasses.fields(self))))


def from_dict(cls: type, values: dict[str, Any], source: str = "config") -> Any:
    """Build config ``cls`` from ``values``; a key it does not know is an error that names ``source``.

    Raises:
        ValueError: for unknown keys, values of another type, or values that the config itself refuses.
    """
    hints = typing.get_type_hints(cls)
    wrong = [f"{name} is {value!r}, expected {getattr(hints[name], '__name__', hints[name])}"
             for name, value in values.items() if name in hints and not _has_type(value, hints[name])]
    if wrong:
        raise ValueError(f"{source}: {'; '.join(wrong)}")
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{source}: unknown keys {unknown} (did a newer version write it?); {cls.__name__} "
                         f"has {sorted(known)}")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a value from JSON, where 1.0 may be 1 and a tuple is a list, fits an annotation."""
    for kind in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
        if typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)[0]
            if isinstance(value, list | tuple) and all(_has_type(each, inner) for each in value):
                return True
        elif type(value) is kind or (kind is float and type(value) is int):
            return True
    return False
