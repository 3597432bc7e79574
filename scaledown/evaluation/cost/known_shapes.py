"""Shapes of well-known models, as facts from their published configs, so that costs need no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaledown.hub import load_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_DECODER = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
            "intermediate_size", "vocab_size", "tie_word_embeddings")
_DECODERS = {
    "mistralai/Mistral-7B-Instruct-v0.2": ("mistral", 4096, 32, 32, 8, 128, 14336, 32000, False),
    "mistralai/Mistral-Small-24B-Instruct-2501": ("mistral", 5120, 40, 32, 8, 128, 32768, 131072, False),
    "meta-llama/Llama-3.2-1B-Instruct": ("llama", 2048, 16, 32, 8, 64, 8192, 128256, True),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama", 4096, 32, 32, 8, 128, 14336, 128256, False),
    "Qwen/Qwen2-7B-Instruct": ("qwen2", 3584, 28, 28, 4, 128, 18944, 152064, False),
    "Qwen/Qwen2.5-7B-Instruct": ("qwen2", 3584, 28, 28, 4, 128, 18944, 152064, False),
    "Qwen/Qwen2.5-0.5B-Instruct": ("qwen2", 896, 24, 14, 2, 64, 4864, 151936, True),
}
_ENCODERS = {
    "answerdotai/ModernBERT-base": {"hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12,
                                    "intermediate_size": 1152, "vocab_size": 50368},
    "answerdotai/ModernBERT-large": {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
                                     "intermediate_size": 2624, "vocab_size": 50368},
}
KNOWN_NAMES = (*_DECODERS, *_ENCODERS)


def config_of(name: str, revision: str | None = None) -> PretrainedConfig:
    """Return the Hugging Face config that ``name`` means: a known model, a ``config.json``, a model folder or a Hub id.

    A Hub id may have a ``revision``: a commit, branch or tag.

    Raises:
        ValueError: if there is none, or it cannot be read.
    """
    from transformers import AutoConfig

    # Known shapes first: they need no network.
    if name in _DECODERS:
        family, *sizes = _DECODERS[name]
        return AutoConfig.for_model(family, **dict(zip(_DECODER, sizes, strict=True)))
    if name in _ENCODERS:
        return AutoConfig.for_model("modernbert", **_ENCODERS[name])

    if name.endswith(".json") and Path(name).is_file():
        return _from_file(Path(name))
    return load_config(name, revision)


def _from_file(path: Path) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return AutoConfig.for_model(values.pop("model_type"), **values)
    except json.JSONDecodeError as fault:
        raise ValueError(f"{path}: not valid JSON (line {fault.lineno}: {fault.msg})") from None
    except (KeyError, AttributeError, TypeError, ValueError) as fault:
        # JSON of another kind: no object, no or an unknown model_type, or sizes that a family refuses.
        raise ValueError(f"{path}: not a Hugging Face config of a known model_type ({fault})") from fault
