"""The generator's prompt (paper, section 4) as token ids, for documents in memory and documents in text alike.

The tokenizer's chat template is rendered once, with a mark where the user's turn goes, and cut at the mark. What
comes from the user is tokenised as plain text, so it can never become a mark of the template or the vocabulary, and
every place in the prompt is known by construction: nothing is searched for in rendered text.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

SYSTEM = ("You are a helpful assistant. Your task is to extract relevant information from provided documents and to "
          "answer to questions as briefly as possible.")
BACKGROUND = "Background:\n"
BETWEEN_TEXTS = "\n"
QUESTION = "\n\nQuestion: "
USER_MARK = "0USER0TURN0"
ANSWER_MARK = "0ANSWER0TURN0"
# Templates know these by name: no thinking before the answer, and no date of today, which would make a prompt (and
# so an answer) depend on the day.
TEMPLATE_SETTINGS = {"enable_thinking": False, "date_string": "26 Jul 2024"}


_text_readers: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""For each tokenizer the copy that :func:`text_reader` made of it; None for one that reads texts itself."""


def plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts as plain text: ``"</s>"`` or ``"</think>"`` written by a user stays those characters."""
    if not texts:
        return []
    reader = text_reader(tokenizer)
    return reader(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids


def text_reader(tokenizer: Any) -> Any:
    """Return the tokenizer that reads users' texts: ``tokenizer``, or a copy to which all its marks are special.

    ``split_special_tokens`` takes special tokens apart and no others. But vocabularies hold marks that are not special,
    such as the ``<think>`` of Qwen3, and a document that writes one must not put it into the prompt.
    """
    if tokenizer not in _text_readers:
        tokens = getattr(tokenizer, "added_tokens_decoder", {}).values()
        marks = [token.content for token in tokens if not token.special and _is_framed(token.content)]
        reader = copy.deepcopy(tokenizer) if marks else None
        if reader is not None:
            reader.add_special_tokens({"extra_special_tokens": marks}, replace_extra_special_tokens=False)
        _text_readers[tokenizer] = reader

    reader = _text_readers[tokenizer]
    return tokenizer if reader is None else reader


def cut_texts(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[str]:
    """Return the texts, each cut where its first ``max_tokens`` tokens end; a character is kept whole or not at all."""
    if not texts:
        return []
    reader = text_reader(tokenizer)
    if not reader.is_fast:
        return [reader.decode(ids[:max_tokens]) if len(ids) > max_tokens else text
                for text, ids in zip(texts, plain_ids(tokenizer, texts), strict=True)]

    read = reader(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False,
                  return_offsets_mapping=True)
    cut = []
    for text, spans in zip(texts, read.offset_mapping, strict=True):
        if len(spans) > max_tokens:
            # The next token may hold the rest of the last character's bytes; it then starts where that one does.
            end = min(spans[max_tokens - 1][1], spans[max_tokens][0]) if max_tokens else 0
            text = text[:end]
        cut.append(text)
    return cut


def _is_framed(token: str) -> bool:
    """Whether a token is written as marks are, such as ``<think>``, ``[INST]`` or ``|||EMAIL|||``.

    Added words and runs of spaces are not: they are how the model reads ordinary text.
    """
    return not token.isspace() and not token[0].isalnum() and not token[-1].isalnum()


def chat_messages(question: str, documents: Sequence[str], has_system_role: bool = True) -> list[dict[str, str]]:
    """The prompt with documents in text, as messages for a server that renders a chat template itself.

    Args:
        has_system_role: False for a template that knows no system; its text then leads the user's turn.
    """
    return _turns(_user_text(question, documents), has_system_role)


def _user_text(question: str, documents: Sequence[str]) -> str:
    return f"{BACKGROUND}{BETWEEN_TEXTS.join(documents)}{QUESTION}{question.strip()}"


def _turns(user: str, has_system_role: bool) -> list[dict[str, str]]:
    if has_system_role:
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
    return [{"role": "user", "content": f"{SYSTEM}\n\n{user}"}]


class Prompt:
    """Builds prompts for one tokenizer: the template's ids around the user's.

    Attributes:
        start: ids that every prompt begins with: the template's, the system text and what leads to the documents.
        end_id: the token that ends an answer, as the chat template writes it.
        reply: ids between the user's text and the answer.

    Raises:
        ValueError: where the template leaves out what the user says, or nothing ends an answer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        before, after, end = self._plain_format() if tokenizer.chat_template is None else self._chat_format()
        self._before, self._after = before, after
        self.start = self._template_ids(before) + self._plain(BACKGROUND)
        self.reply = self._template_ids(after)
        self._between_texts = self._plain(BETWEEN_TEXTS)
        ends = [token for token in self._template_ids(end) if token in tokenizer.all_special_ids]
        self.end_id = ends[0] if ends else tokenizer.eos_token_id
        if self.end_id is None:
            raise ValueError(f"{tokenizer.name_or_path}: its tokenizer has no token that ends an answer")

    def of_memory(self, question: str, num_documents: int, memory: Sequence[int], separator: int) -> list[int]:
        """Prompt ids with the placeholders ``memory`` for each document and ``separator`` between two."""
        return self._trunk([memory] * num_documents, [separator]) + self.branch(question)

    def of_texts(self, question: str, documents: Sequence[Sequence[int]]) -> list[int]:
        """The same prompt with the documents' own token ids, a line break between two."""
        return self._trunk(documents, self._between_texts) + self.branch(question)

    def as_chat(self, question: str, documents: Sequence[str]) -> list[int]:
        """The prompt in full text, tokenised in one piece: what a chat server makes of :func:`chat_messages`.

        Some tokenizers begin a text with a space of their own; here there is one beginning, above there are several.
        If the question or a document writes a mark of the vocabulary, the user's turn is tokenised apart, as text.
        """
        user = _user_text(question, documents)
        if self._reads_marks(user):
            return self._template_ids(self._before) + self._plain(user) + self.reply
        if self._tokenizer.chat_template is None:
            return self._template_ids(f"{self._before}{user}{self._after}")
        messages = chat_messages(question, documents, self._has_system_role)
        return self._template_ids(self._render(messages, add_generation_prompt=True))

    def _reads_marks(self, text: str) -> bool:
        """Whether the tokenizer makes a mark of something that is written in ``text``."""
        return self._template_ids(text) != self._plain(text)

    def trunk(self, documents: Sequence[Sequence[int]]) -> list[int]:
        """The prompt up to its question: what all questions about the same documents share."""
        return self._trunk(documents, self._between_texts)

    def branch(self, question: str) -> list[int]:
        """The question and what follows it, up to where the answer starts."""
        # A template that trims its turns would trim the question too.
        return self._plain(QUESTION + question.strip()) + self.reply

    def _trunk(self, documents: Sequence[Sequence[int]], separator: Sequence[int]) -> list[int]:
        ids = list(self.start)
        for number, document in enumerate(documents):
            ids += separator if number else ()
            ids += document
        return ids

    def _plain(self, text: str) -> list[int]:
        return plain_ids(self._tokenizer, [text])[0]

    def _template_ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids if text else []

    def _plain_format(self) -> tuple[str, str, str]:
        """A base model's format: what comes before the user's text, after it, and after the answer."""
        first = self._tokenizer.bos_token or ""
        return f"{first}{SYSTEM}\n\n", "\n\nAnswer:\n", self._tokenizer.eos_token or ""

    def _chat_format(self) -> tuple[str, str, str]:
        for has_system_role in (True, False):
            turns = _turns(USER_MARK, has_system_role)
            try:
                before, mark, after = self._render(turns, add_generation_prompt=True).partition(USER_MARK)
                answered = self._render([*turns, {"role": "assistant", "content": ANSWER_MARK}])
            except TemplateError:
                continue
            if SYSTEM in before and mark:
                self._has_system_role = has_system_role
                return before, after, answered.partition(ANSWER_MARK)[2]
        raise ValueError(f"{self._tokenizer.name_or_path}: its chat template does not say what the user says")

    def _render(self, turns: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
        return self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt, **TEMPLATE_SETTINGS)
