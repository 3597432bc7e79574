"""Where a model's parts come from: by name for a new model, or from a checkpoint's folder."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL_LMS
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED_LMS

from scaledown.config import DEFAULT_ENCODER, DEFAULT_LLM, EMBEDDED, ScaleDownConfig
from scaledown.hub import SAFE_WEIGHTS, load_config, load_tokenizer, locate
from scaledown.models.compressors.embedded_encoder import embedded_encoder
from scaledown.models.decoder import text_config

TOKENIZER_FOLDER = "tokenizer"
COMPRESSOR_FOLDER = "compressor"
QUANTISED_DEVICES = ("cpu", "cuda")
INNER_NAMES = {r"^(model\.)?language_model\.(model\.)?(?!lm_head)": "model.",
               r"^(model\.)?language_model\.lm_head": "lm_head"}
"""How multimodal models name the weights of the language model inside, and how it does by itself."""
DEFAULT_MODELS = {"modernbert": DEFAULT_ENCODER, "llm": DEFAULT_LLM}


def load_base(config: ScaleDownConfig, dtype: torch.dtype, quantised: dict[str, Any] | None = None) -> PreTrainedModel:
    """The generator's base weights, by name.

    Args:
        config: names it.
        dtype: of its weights.
        quantised: what :func:`quantisation` gave, to hold its linear maps in few bits.

    Raises:
        ValueError: for a model that is no causal LM, or files that cannot be read.
    """
    name, revision, trust = config.generator_model, config.generator_revision, config.trust_remote_code
    hf_config = load_config(name, revision, trust)
    family = hf_config.model_type
    if hf_config.is_encoder_decoder:
        raise ValueError(f"--generator_model {name}: a causal LM is needed, this is an encoder-decoder ({family})")
    of_text = _of_text(hf_config)
    if type(of_text["config"]) not in MODEL_FOR_CAUSAL_LM_MAPPING and not trust:
        raise ValueError(f"--generator_model {name}: a causal LM is needed, and transformers has none of the family "
                         f"{family} (or none that stands by itself)")
    return _whole(name, AutoModelForCausalLM.from_pretrained, locate(name, revision), revision=revision,
                  trust_remote_code=trust, dtype=dtype, **of_text, **SAFE_WEIGHTS, **(quantised or {}))


def _of_text(hf_config: PretrainedConfig) -> dict[str, Any]:
    """Return how transformers is to read a model's text: of a multimodal one only the language model inside is."""
    text = text_config(hf_config)
    return {"config": text} | ({} if text is hf_config else {"key_mapping": INNER_NAMES})


def _whole(name: str, load: Callable[..., Any], *arguments: Any, **settings: Any) -> PreTrainedModel:
    """Load a model all of whose weights are there: transformers would draw the others at random.

    Raises:
        ValueError: if some are missing, or it cannot be read.
    """
    model, found = _read(name, load, *arguments, output_loading_info=True, **settings)
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise ValueError(f"{name}: {len(missing)} of its weights are missing, such as {missing[0]}")
    return model


def quantisation(config: ScaleDownConfig, dtype: torch.dtype, device: torch.device) -> dict[str, Any] | None:
    """How transformers loads a base in 4 or 8 bits onto ``device``; None where ``config`` asks for neither.

    Raises:
        ValueError: where bitsandbytes is not installed, or does not compute on the device.
    """
    if not (config.load_in_4bit or config.load_in_8bit):
        return None
    flag = "--load_in_4bit" if config.load_in_4bit else "--load_in_8bit"
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"{flag} needs bitsandbytes: pip install bitsandbytes")
    if device.type not in QUANTISED_DEVICES:
        raise ValueError(f"{flag} works on {' and '.join(QUANTISED_DEVICES)}, not on {device.type}")
    # It would say before each product that it rounds to float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    bits = BitsAndBytesConfig(load_in_4bit=config.load_in_4bit, load_in_8bit=config.load_in_8bit,
                              bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": bits, "device_map": {"": device}}


def load_generator_tokenizer(config: ScaleDownConfig, checkpoint: Path | None) -> PreTrainedTokenizerBase:
    """The generator's tokenizer: the checkpoint's copy, so that prompts stay what they were in training."""
    if checkpoint is not None:
        return _read(str(checkpoint), AutoTokenizer.from_pretrained, checkpoint / TOKENIZER_FOLDER)
    return load_tokenizer(config.generator_model, config.generator_revision, config.trust_remote_code)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, base: PreTrainedModel, source: Path | str) -> None:
    """Refuse a tokenizer that can give tokens which the generator has no embedding for.

    Raises:
        ValueError: naming ``source``, where the tokenizer comes from.
    """
    num_rows = len(base.get_input_embeddings().weight)
    # Tokens added to a vocabulary may have no row: a pad token that no text ever becomes, for one.
    if tokenizer.vocab_size > num_rows:
        raise ValueError(f"{source}: its tokenizer has {tokenizer.vocab_size} tokens, but {base.name_or_path} "
                         f"embeds {num_rows}: it belongs to another generator")


def compressor_model_name(config: ScaleDownConfig) -> str:
    """The model that the compressor is made from: beside the embedded generator one without a hub, by default."""
    if config.compressor_model is not None:
        return config.compressor_model
    return EMBEDDED if config.generator_model == EMBEDDED else DEFAULT_MODELS[config.compressor_type]


def load_compressor_model(config: ScaleDownConfig, body: nn.Module,
                          checkpoint: Path | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """The encoder or the causal LM (without its head) that the compressor reads with, and its tokenizer.

    Args:
        body: the generator without its head; the embedded encoder starts from a copy of its layers.
        checkpoint: a folder whose weights will be loaded over these: then no weights are looked for here.

    Returns:
        the tokenizer is None where it is the generator's.

    Raises:
        ValueError: for a model of the wrong kind, or files that cannot be read.
    """
    name = compressor_model_name(config)
    trust = {"trust_remote_code": config.trust_remote_code}
    is_embedded_encoder = name == EMBEDDED and config.compressor_type == "modernbert"
    if checkpoint is not None:
        folder = checkpoint / COMPRESSOR_FOLDER
        model = AutoModel.from_config(_read(str(folder), AutoConfig.from_pretrained, folder, **trust), **trust)
        tokenizer = None if is_embedded_encoder else _read(str(folder), AutoTokenizer.from_pretrained, folder, **trust)
        return model, tokenizer
    if is_embedded_encoder:
        return embedded_encoder(body), None
    revision = config.compressor_revision
    hf_config = load_config(name, revision, config.trust_remote_code)
    # An encoder may lack what is not read of it, such as a pooler.
    load, of_text = (_whole, _of_text(hf_config)) if config.compressor_type == "llm" else (_read, {})
    _check_kind(config.compressor_type, name, of_text.get("config", hf_config))
    model = load(name, AutoModel.from_pretrained, locate(name, revision), revision=revision, dtype=torch.float32,
                 **of_text, **trust, **SAFE_WEIGHTS)
    return model, load_tokenizer(name, revision, config.trust_remote_code)


def _check_kind(compressor_type: str, name: str, hf_config: PretrainedConfig) -> None:
    family = hf_config.model_type
    if compressor_type == "llm" and family not in CAUSAL_LMS:
        raise ValueError(f"--compressor_model {name}: a causal LM is needed, this is a {family} model (an encoder: "
                         "--compressor_type modernbert)")
    if compressor_type == "modernbert" and family in CAUSAL_LMS and family not in MASKED_LMS:
        raise ValueError(f"--compressor_model {name}: an encoder is needed, this is a causal LM ({family}); "
                         "--compressor_type llm reads with one")
    if hf_config.is_encoder_decoder:
        raise ValueError(f"--compressor_model {name}: an encoder is needed, this is an encoder-decoder")


def _read(name: str, load: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    try:
        return load(*arguments, **settings)
    except (OSError, RuntimeError, SafetensorError) as fault:
        raise ValueError(f"{name}: cannot be loaded ({fault})") from fault
