"""Loading of a model's components: by name for a new model, or from a checkpoint's folder."""

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

from scaledown.config import CAUSAL_LM, COMPRESSORS, EMBEDDED, ENCODER, ScaleDownConfig
from scaledown.hub import SAFE_WEIGHTS, load_config, load_tokenizer, locate
from scaledown.hub.connection import current_token
from scaledown.models.compressors.embedded_encoder import embedded_encoder
from scaledown.models.engine.decoder import keep_layers, sharing_weights, text_config
from scaledown.settings import numbers_in

TOKENIZER_FOLDER = "tokenizer"
COMPRESSOR_FOLDER = "compressor"
QUANTISED_DEVICES = ("cpu", "cuda")
INNER_NAMES = {r"^(model\.)?language_model\.(model\.)?(?!lm_head)": "model.",
               r"^(model\.)?language_model\.lm_head": "lm_head"}
"""Patterns of names of the language model's weights inside multimodal models, and their names in it alone."""


def load_base(config: ScaleDownConfig, dtype: torch.dtype, quantised: dict[str, Any] | None = None) -> PreTrainedModel:
    """Load the base weights of the generator that ``config`` names.

    Args:
        config: the model's settings.
        dtype: of the weights.
        quantised: the settings from :func:`quantisation`, to hold the linear layers in 4 or 8 bits.

    Raises:
        ValueError: if the model is no causal LM, or its files cannot be read.
    """
    name, revision, trust = config.generator_model, config.generator_revision, config.trust_remote_code
    hf_config = load_config(name, revision, trust)
    family = hf_config.model_type
    if hf_config.is_encoder_decoder:
        raise ValueError(f"--generator_model {name}: a causal LM is needed, this is an encoder-decoder ({family})")

    # A family that comes with code of its own need not be known to transformers.
    text_settings = _text_settings(hf_config)
    if type(text_settings["config"]) not in MODEL_FOR_CAUSAL_LM_MAPPING and not trust:
        raise ValueError(f"--generator_model {name}: a causal LM is needed, and transformers has none of the family "
                         f"{family} (or none that works without the rest of the model)")

    return _load_complete(name, AutoModelForCausalLM.from_pretrained, locate(name, revision), revision=revision,
                          trust_remote_code=trust, dtype=dtype, token=current_token(), **text_settings, **SAFE_WEIGHTS,
                          **(quantised or {}))


def _text_settings(hf_config: PretrainedConfig) -> dict[str, Any]:
    """Return settings of ``from_pretrained`` for text: of a multimodal model, only its language model is loaded."""
    text = text_config(hf_config)
    if text is hf_config:
        return {"config": text}
    return {"config": text, "key_mapping": INNER_NAMES}


def _load_complete(name: str, load: Callable[..., Any], *arguments: Any, **settings: Any) -> PreTrainedModel:
    """Load a model and require all of its weights: transformers would draw missing ones at random.

    Raises:
        ValueError: if weights are missing, or the model cannot be read.
    """
    model, info = _load(name, load, *arguments, output_loading_info=True, **settings)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ValueError(f"{name}: {len(missing)} of its weights are missing, such as {missing[0]}")
    return model


def quantisation(config: ScaleDownConfig, dtype: torch.dtype, device: torch.device) -> dict[str, Any] | None:
    """Return settings of ``from_pretrained`` for a base in 4 or 8 bits on ``device``; None if neither is asked for.

    Args:
        config: the model's settings.
        dtype: of the arithmetic.
        device: gets the weights while they are loaded.

    Raises:
        ValueError: if bitsandbytes is not installed, or does not run on the device.
    """
    if not (config.load_in_4bit or config.load_in_8bit):
        return None

    flag = "--load_in_4bit" if config.load_in_4bit else "--load_in_8bit"
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"{flag} needs bitsandbytes: pip install bitsandbytes")
    if device.type not in QUANTISED_DEVICES:
        raise ValueError(f"{flag} works on {' and '.join(QUANTISED_DEVICES)}, not on {device.type}")

    # bitsandbytes warns before each matrix product that it rounds to float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)

    # QLoRA's 4 bits: the NF4 data type, whose block scales are quantised as well.
    bits = BitsAndBytesConfig(load_in_4bit=config.load_in_4bit, load_in_8bit=config.load_in_8bit,
                              bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    # The key "" stands for the whole model.
    return {"quantization_config": bits, "device_map": {"": device}}


def load_generator_tokenizer(config: ScaleDownConfig, checkpoint: Path | None) -> PreTrainedTokenizerBase:
    """Load the generator's tokenizer: the checkpoint's copy if there is one, so that prompts stay as in training."""
    if checkpoint is not None:
        return _tokenizer_in(checkpoint / TOKENIZER_FOLDER)
    return load_tokenizer(config.generator_model, config.generator_revision, config.trust_remote_code)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, base: PreTrainedModel, source: Path | str) -> None:
    """Refuse a tokenizer with tokens that the generator has no embedding for.

    Raises:
        ValueError: if there are any; the message names ``source``, the tokenizer's folder or Hub id.
    """
    num_embeddings = len(base.get_input_embeddings().weight)
    # vocab_size leaves out added tokens. These may lack an embedding, as a pad token does that no text contains.
    if tokenizer.vocab_size > num_embeddings:
        raise ValueError(f"{source}: its tokenizer has {tokenizer.vocab_size} tokens, but {base.name_or_path} "
                         f"embeds {num_embeddings}: it belongs to another generator")


def compressor_model_name(config: ScaleDownConfig) -> str:
    """Return the name of the model that the compressor is made from."""
    if config.compressor_model is not None:
        return config.compressor_model
    # The demo generator works without a network, so its compressor must, too.
    if config.generator_model == EMBEDDED:
        return EMBEDDED
    return COMPRESSORS[config.compressor_type].default_model


def load_compressor_model(config: ScaleDownConfig, body: nn.Module,
                          checkpoint: Path | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Load the encoder or the causal LM (without its head) that the compressor reads with, and its tokenizer.

    Args:
        config: the model's settings.
        body: the generator without its head; the embedded encoder starts from a copy of its layers.
        checkpoint: a folder whose weights will be loaded into the model later: then its weights are left as drawn,
            unless the checkpoint holds only LoRA, a change of them.

    Returns:
        the model, and its tokenizer or None if that is the generator's.

    Raises:
        ValueError: if the model is of the wrong kind, or its files cannot be read.
    """
    name = compressor_model_name(config)
    trust = {"trust_remote_code": config.trust_remote_code}
    is_embedded_encoder = name == EMBEDDED and config.reads_with == ENCODER
    has_lora = config.compressor_lora_rank is not None

    # The generator's own weights stay frozen beside LoRA, so both can use them: no second copy is held.
    if has_lora and name == config.generator_model and config.reads_with == CAUSAL_LM:
        model = sharing_weights(body)
        if config.layers:
            keep_layers(model, numbers_in(config.layers))
        return model, None

    # A checkpoint of whole weights has everything that is needed: the model's own files are not looked for.
    if checkpoint is not None and not has_lora:
        folder = checkpoint / COMPRESSOR_FOLDER
        model = AutoModel.from_config(_load(str(folder), AutoConfig.from_pretrained, folder, **trust), **trust)
        if is_embedded_encoder:
            return model, None
        return model, _tokenizer_in(folder, **trust)

    if is_embedded_encoder:
        return embedded_encoder(body), None

    revision = config.compressor_revision
    hf_config = load_config(name, revision, config.trust_remote_code)
    if config.reads_with == CAUSAL_LM:
        load, text_settings = _load_complete, _text_settings(hf_config)
    else:
        # An encoder may lack weights that are not used here, such as a pooler's.
        load, text_settings = _load, {}
    _check_kind(config.reads_with, name, text_settings.get("config", hf_config))

    # Whatever type the files have: what is trained is held in float32.
    model = load(name, AutoModel.from_pretrained, locate(name, revision), revision=revision, dtype=torch.float32,
                 **text_settings, **trust, **SAFE_WEIGHTS)
    if config.layers:
        keep_layers(model, numbers_in(config.layers))
    return model, load_tokenizer(name, revision, config.trust_remote_code)


def _tokenizer_in(folder: Path, **settings: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer that a checkpoint holds in ``folder``; a ValueError names it if a file is damaged."""
    try:
        return AutoTokenizer.from_pretrained(folder, **settings)
    # For a damaged file, each library raises errors of other kinds; tokenizers raises plain Exception.
    except Exception as fault:
        raise ValueError(f"{folder}: its tokenizer cannot be read ({type(fault).__name__}: {fault})") from fault


def _check_kind(reads_with: str, name: str, hf_config: PretrainedConfig) -> None:
    """Refuse a causal LM as an encoder, an encoder as a causal LM, and an encoder-decoder as either.

    A family that transformers has as both, such as BERT, passes as either.
    """
    family = hf_config.model_type
    if reads_with == CAUSAL_LM and family not in CAUSAL_LMS:
        raise ValueError(f"--compressor_model {name}: a causal LM is needed, this is a {family} model (an encoder: "
                         "--compressor_type modernbert)")
    if reads_with == ENCODER and family in CAUSAL_LMS and family not in MASKED_LMS:
        raise ValueError(f"--compressor_model {name}: an encoder is needed, this is a causal LM ({family}); "
                         "--compressor_type llm reads with one")
    if hf_config.is_encoder_decoder:
        raise ValueError(f"--compressor_model {name}: an encoder is needed, this is an encoder-decoder")


def _load(name: str, load: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    """Return ``load(*arguments, **settings)``; its errors become a ValueError that names ``name``."""
    try:
        return load(*arguments, **settings)
    except (OSError, RuntimeError, SafetensorError) as fault:
        raise ValueError(f"{name}: cannot be loaded ({fault})") from fault
