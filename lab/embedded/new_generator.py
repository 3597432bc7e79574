"""A generator before its training: its tokenizer, and its first weights."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lab.embedded.recipe import PretrainConfig
from scaledown.data.world.synthetic import Difficulty, World
from scaledown.prompt import BACKGROUND, QUESTION, SYSTEM

LONGEST_PROMPT = 4096
EMBEDDING_SCALE = 38.4
"""A token's first logit for itself, at any width: with tied embeddings it is their spread times the width."""

TRAINING_CONTEXTS = 4000
CONTEXTS_A_PROMPT = 20
"""The prompt's own words are added once for this number of contexts."""
PROMPT_TEXTS = ("system\n", SYSTEM, "user\n", BACKGROUND, f"{QUESTION}Who?", "assistant\n")
END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(texts: Iterable[str], vocabulary_tokens: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, which reads any text, on ``texts``.

    Digits stay apart, so that a number is copied digit by digit rather than recalled; every text starts with a
    space, so that an answer has the same tokens as its mention in a document.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()

    # All 256 bytes are entries, also those that no text has.
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocabulary_tokens, special_tokens=[END, TURN_START, TURN_END], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=TURN_END, pad_token=END, additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE, model_max_length=LONGEST_PROMPT, clean_up_tokenization_spaces=False)


def world_texts(seed: int) -> Iterator[str]:
    """Yield texts of the made-up world's training half, and the prompt's own words."""
    world = World(random.Random(seed), "train")
    for number in range(TRAINING_CONTEXTS):
        documents, questions = world.context(Difficulty(), num_questions=4)
        yield from (document.text for document in documents)
        for question in questions:
            yield from (question.text, question.answer)
        if number % CONTEXTS_A_PROMPT == 0:
            yield from PROMPT_TEXTS


def build_generator(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Return a Llama of the given size with random weights and tied embeddings."""
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads, max_position_embeddings=LONGEST_PROMPT, tie_word_embeddings=True,
        vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id))
    _initialise(model)
    return model


def _initialise(model: LlamaForCausalLM) -> None:
    """Start as a shallow model: layers initially add 0 to the residual stream.

    With the usual start nine layers take twenty times longer to learn to copy from a document (lab/LOG.md).
    """
    for name, weight in model.named_parameters():
        # The last map of attention, and of the feed-forward part.
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(weight)
        elif "embed" in name:
            torch.nn.init.normal_(weight, std=EMBEDDING_SCALE / weight.shape[1])
        elif weight.ndim == 2:
            # Outputs are about as large as inputs.
            torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
