"""The tokenizer of a generator made from nothing: byte-level BPE, so that it reads any text, with a chat template."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from scaledown.data.world.synthetic import Difficulty, World
from scaledown.prompt import BACKGROUND, QUESTION, SYSTEM

TRAINING_CONTEXTS = 4000
PROMPT_TEXTS = ("system\n", SYSTEM, "user\n", BACKGROUND, f"{QUESTION}Who?", "assistant\n")
END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(texts: Iterable[str], vocabulary_tokens: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on ``texts``.

    Digits stay apart, so that a number is copied digit by digit rather than recalled; every text starts with a
    space, so that an answer has the same tokens as its mention in a document.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocabulary_tokens, special_tokens=[END, TURN_START, TURN_END], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=TURN_END, pad_token=END, additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE, model_max_length=4096, clean_up_tokenization_spaces=False)


def world_texts(seed: int) -> Iterator[str]:
    """Texts of the embedded world's training half, and the prompt's own words."""
    world = World(random.Random(seed), "train")
    for number in range(TRAINING_CONTEXTS):
        documents, questions = world.context(Difficulty(), num_questions=4)
        yield from (document.text for document in documents)
        for question in questions:
            yield from (question.text, question.answer)
        if number % 20 == 0:
            yield from PROMPT_TEXTS
