"""Every setting and its default, in frozen dataclasses that check themselves. No torch here.

A field's ``metadata["help"]`` is the help of its command-line flag (see :mod:`scaledown.cli`), so a default
is written once: here.
"""

from scaledown.config.model_config import (
    AUTO,
    CAUSAL_LM,
    COMPRESSOR_TYPES,
    COMPRESSORS,
    DEFAULT_ENCODER,
    DEFAULT_GENERATOR,
    DEFAULT_LLM,
    EMBEDDED,
    EMBEDDED_MODERNBERT,
    ENCODER,
    GENERATOR,
    INPUT_ORDERS,
    MEMORY_INITS,
    MINILM,
    NO_COMPRESSOR,
    NOTHING,
    OF_A_COMPRESSOR,
    SMOLLM2,
    CompressorType,
    ScaleDownConfig,
    belongs_to_a_compressor,
)
from scaledown.config.run_config import (
    CUT,
    DEFAULT_PRETRAINING_TEXTS,
    DEVICES,
    DTYPES,
    LARGEST_SEED,
    LONG_DOCUMENTS,
    OPTIMIZERS,
    PRESET_NAMES,
    SPLIT,
    EvaluationConfig,
    PretrainingConfig,
    RunConfig,
    TrainingConfig,
)

__all__ = [
    "AUTO", "CAUSAL_LM", "COMPRESSORS", "COMPRESSOR_TYPES", "CUT", "DEFAULT_ENCODER", "DEFAULT_GENERATOR",
    "DEFAULT_LLM", "DEFAULT_PRETRAINING_TEXTS", "DEVICES", "DTYPES", "EMBEDDED", "EMBEDDED_MODERNBERT", "ENCODER",
    "GENERATOR", "INPUT_ORDERS", "LARGEST_SEED", "LONG_DOCUMENTS", "MEMORY_INITS", "MINILM", "NOTHING",
    "NO_COMPRESSOR", "OF_A_COMPRESSOR", "OPTIMIZERS", "PRESET_NAMES", "SMOLLM2", "SPLIT", "CompressorType",
    "EvaluationConfig", "PretrainingConfig", "RunConfig", "ScaleDownConfig", "TrainingConfig",
    "belongs_to_a_compressor",
]
