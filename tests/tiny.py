"""Models of a few thousand weights in every layout that is supported, made from configs: no network, no files kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    ModernBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto import AutoModelForCausalLM

from scaledown.models.generator import Generator, Prompts
from scaledown.models.losses import Losses
from scaledown.prompt import SYSTEM

FAMILIES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
WIDTH = 32
OF_TORCH = ("adamw", "muon")
"""Optimizers that run on a CPU: those in 8 bits are bitsandbytes', on a GPU."""
TEXT = ["Ada Lovelace was born in London in 1815.", "Question: who wrote the first program? Background: documents",
        SYSTEM,
        "The capital of France is Paris, and that of Norway is Oslo.\n\n"]
CHATML = ("{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
          "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
NO_SYSTEM = ("{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}"
             "{{ raise_exception('no system role') }}{% elif message.role == 'user' %}"
             "[INST] {{ message.content | trim }} [/INST]{% else %}{{ message.content }}{{ eos_token }}{% endif %}"
             "{% endfor %}")


def tokenizer(chat_template: str | None = CHATML, **special: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE that reads any text, with the special tokens of chat models and, if asked, of encoders."""
    specials = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "[CLS]", "[SEP]", "[PAD]"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator(TEXT, trainer)
    names = special or {"bos_token": "<s>", "eos_token": "</s>"}
    if "cls_token" in names:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", specials.index("[CLS]")),
                                                     ("[SEP]", specials.index("[SEP]"))])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", **names,
                                   additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    made.chat_template = chat_template
    return made


def generator(family: str = "llama", layers: int = 4, **settings: Any) -> PreTrainedModel:
    """A causal LM of 32 wide layers with grouped keys, its weights spread enough for texts to differ."""
    config = FAMILIES[family](**{
        "vocab_size": len(tokenizer()), "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024,
        "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None} | settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    # Unit states of 32 numbers cannot point at one of 400 tokens with any certainty; longer ones can.
    torch.nn.init.constant_(model.base_model.norm.weight, 4.0)
    return model


def generator_folder(folder: Path, family: str = "llama", chat_template: str | None = CHATML, **settings: Any) -> str:
    """A tiny generator with its tokenizer on disk, to be named as ``generator_model``."""
    generator(family, **settings).save_pretrained(folder)
    tokenizer(chat_template).save_pretrained(folder)
    return str(folder)


def encoder_config(vocab_size: int, **settings: Any) -> ModernBertConfig:
    """ModernBERT's layout in four layers: the first and last see all, the others a window."""
    return ModernBertConfig(**{"vocab_size": vocab_size, "hidden_size": 24, "intermediate_size": 32,
                               "num_hidden_layers": 4, "num_attention_heads": 2, "local_attention": 16,
                               "max_position_embeddings": 512, "pad_token_id": 6, "bos_token_id": 4,
                               "cls_token_id": 4, "eos_token_id": 5, "sep_token_id": 5} | settings)


def encoder_folder(folder: Path) -> str:
    """A tiny ModernBERT with a tokenizer of its own on disk, to be named as ``compressor_model``."""
    own = tokenizer(None, cls_token="[CLS]", sep_token="[SEP]")
    torch.manual_seed(0)
    ModernBertModel(encoder_config(len(own))).save_pretrained(folder)
    own.save_pretrained(folder)
    return str(folder)


def cross_encoder_folder(folder: Path, num_labels: int = 1) -> str:
    """A tiny cross-encoder on disk, its head spread enough for logits outside 0 to 1, to be named as a reranker."""
    own = tokenizer(None, cls_token="[CLS]", sep_token="[SEP]")
    torch.manual_seed(0)
    model = ModernBertForSequenceClassification(encoder_config(len(own), num_labels=num_labels, initializer_range=0.5))
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return str(folder)


def move_adapter(model: nn.Module) -> None:
    """Move the adapter off its start, where it does nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)


def total(losses: Losses) -> Tensor:
    """The sum of a batch's losses, whichever it has: something to learn from where no weights matter."""
    return sum(part for part in losses if part is not None)


def first_logits(generator: Generator, prompts: Prompts) -> Tensor:
    """The logits (B, V) of the first token of each answer."""
    config = GenerationConfig(max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True,
                              pad_token_id=0)
    return generator.generate(prompts, config).logits[0]
