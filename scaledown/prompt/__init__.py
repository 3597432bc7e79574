"""The generator's prompt (paper, section 4) as token ids, with each document as memory or as text.

The tokenizer's chat template is rendered once, with a placeholder for the user's turn, and split there. The user's text
is tokenised as plain text, so it can never become a control token, and every position in the prompt is known by
construction: nothing is searched for in rendered text.

    SYSTEM | instruction BACKGROUND documents QUESTION question | answer

A model's settings can replace SYSTEM and give an instruction.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from scaledown.prompt.plain_text import plain_ids

SYSTEM = ("You are a helpful assistant. Your task is to extract relevant information from provided documents and to "
          "answer to questions as briefly as possible.")
BACKGROUND = "Background:\n"
BETWEEN_TEXTS = "\n"
QUESTION = "\n\nQuestion: "
USER_MARK = "0USER0TURN0"
ANSWER_MARK = "0ANSWER0TURN0"
TEMPLATE_SETTINGS = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""Variables that some templates read: no thinking before the answer, and a fixed date instead of today's, which would
make prompts, and so answers, depend on the day."""

logger = logging.getLogger(__name__)


def titled(title: str, text: str) -> str:
    """Return a document as models read it, with its title, if it has one, in front: ``Title. text``.

    So do BERGEN's documents (Rau et al., arXiv:2407.01102).
    """
    words = title.split()
    heading = f"{' '.join(words)}." if words else ""
    return f"{heading} {text}" if heading and text else heading or text


def chat_messages(question: str, documents: Sequence[str], has_system_role: bool = True) -> list[dict[str, str]]:
    """Return the prompt with documents as text, in messages for a server that renders a chat template itself.

    Args:
        question: the user's.
        documents: their texts.
        has_system_role: False for a template without a system role; the user's turn then begins with its text.
    """
    return _turns(SYSTEM, _user_text(BACKGROUND, question, documents), has_system_role)


def _user_text(lead: str, question: str, documents: Sequence[str]) -> str:
    return f"{lead}{BETWEEN_TEXTS.join(documents)}{QUESTION}{question.strip()}"


def _turns(system: str, user: str, has_system_role: bool) -> list[dict[str, str]]:
    """Return the turns before the answer; an empty system text has none."""
    if not system:
        return [{"role": "user", "content": user}]
    if has_system_role:
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return [{"role": "user", "content": f"{system}\n\n{user}"}]


class Prompt:
    """The prompts for one tokenizer and one pair of system text and instruction: the template's ids around the user's.

        start | document, separator, document ... | question | reply
        ----------------- trunk ----------------- | ---- branch ----

    Args:
        tokenizer: the generator's.
        system: the system's turn; if the template has none, the user's begins with it [``SYSTEM``; "" for no text].
        instruction: a text at the start of the user's turn, before the documents [none].

    Attributes:
        start: ids that every prompt begins with: the template's, the system text and the lead to the documents.
        end_id: the token that ends an answer, as the chat template writes it.
        reply: ids between the user's text and the answer.

    Raises:
        ValueError: if the template leaves out the user's text, or no token ends an answer.
    """

    def __init__(self, tokenizer: Any, system: str | None = None, instruction: str | None = None) -> None:
        self._tokenizer = tokenizer
        # Stripped as by the templates that trim their turns.
        self._system = SYSTEM if system is None else system.strip()
        self._lead = BACKGROUND
        if instruction and instruction.strip():
            self._lead = f"{instruction.strip()}\n\n{BACKGROUND}"

        before, after, end = self._plain_format() if tokenizer.chat_template is None else self._chat_format()
        self._before, self._after = before, after

        # The template's parts are tokenised with its control tokens, all other parts as plain text.
        self.start = self._template_ids(before) + self._plain(self._lead)
        self.reply = self._template_ids(after)
        self._between_texts = self._plain(BETWEEN_TEXTS)

        # After an answer a template may also write a line break, which models do not wait for.
        special_ends = [token for token in self._template_ids(end) if token in tokenizer.all_special_ids]
        self.end_id = special_ends[0] if special_ends else tokenizer.eos_token_id
        if self.end_id is None:
            raise ValueError(f"{tokenizer.name_or_path}: its tokenizer has no token that ends an answer")

    def of_documents(self, question: str, documents: Sequence[Sequence[int]], are_texts: Sequence[bool],
                     separator: int) -> list[int]:
        """Return prompt ids with each document as memory or as text, in their order.

        Args:
            documents: of each, the placeholders of its memory or the ids of its text.
            are_texts: which of the two.
            separator: the placeholder of what stands between two documents, unless both are texts: then a line break.
        """
        ids = list(self.start)
        for number, (document, is_text) in enumerate(zip(documents, are_texts, strict=True)):
            if number > 0:
                ids += self._between_texts if is_text and are_texts[number - 1] else [separator]
            ids += document
        return ids + self.branch(question)

    def of_texts(self, question: str, documents: Sequence[Sequence[int]]) -> list[int]:
        """Return the prompt with the token ids of all documents, and a line break between two."""
        return self.trunk(documents) + self.branch(question)

    def as_chat(self, question: str, documents: Sequence[str]) -> list[int]:
        """Return the prompt in full text, tokenised as a whole: the ids that a server makes of :func:`chat_messages`.

        Some tokenizers add a space to the beginning of a text: here to one beginning, in :meth:`of_texts` to several.
        If the question or a document contains a control token, the user's turn is tokenised apart, as plain text.
        """
        user = _user_text(self._lead, question, documents)
        if self._has_control_tokens(user):
            return self._template_ids(self._before) + self._plain(user) + self.reply

        # Rendered again rather than put together: templates may change the user's turn, for example by trimming it.
        if self._tokenizer.chat_template is None:
            return self._template_ids(f"{self._before}{user}{self._after}")
        messages = _turns(self._system, user, self._has_system_role)
        return self._template_ids(self._render(messages, add_generation_prompt=True))

    def _has_control_tokens(self, text: str) -> bool:
        """Return whether the tokenizer makes a control token of some characters of ``text``."""
        return self._template_ids(text) != self._plain(text)

    def trunk(self, documents: Sequence[Sequence[int]]) -> list[int]:
        """Return the ids up to the question, which all questions about the same documents share."""
        ids = list(self.start)
        for number, document in enumerate(documents):
            if number > 0:
                ids += self._between_texts
            ids += document
        return ids

    def branch(self, question: str) -> list[int]:
        """Return the ids of the question and all that follows it, up to the answer."""
        # Stripped as by the templates that trim their turns, so that all prompts agree.
        return self._plain(QUESTION + question.strip()) + self.reply

    def _plain(self, text: str) -> list[int]:
        """Return the ids of a text, without control tokens whatever it says."""
        return plain_ids(self._tokenizer, [text])[0]

    def _template_ids(self, text: str) -> list[int]:
        """Return the ids of a part of the template, control tokens included."""
        return self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids if text else []

    def _plain_format(self) -> tuple[str, str, str]:
        """Return a base model's text before the user's text, after it, and after the answer."""
        bos = self._tokenizer.bos_token or ""
        eos = self._tokenizer.eos_token or ""
        system = f"{self._system}\n\n" if self._system else ""
        return f"{bos}{system}", "\n\nAnswer:\n", eos

    def _chat_format(self) -> tuple[str, str, str]:
        """Return the chat template's text before the user's text, after it, and after the answer."""
        # Without a system role, templates raise an error (Gemma's does) or leave the system text out.
        for has_system_role in (True, False):
            turns = _turns(self._system, USER_MARK, has_system_role)
            try:
                question = self._render(turns, add_generation_prompt=True)
                answered = self._render([*turns, {"role": "assistant", "content": ANSWER_MARK}])
            except TemplateError:
                continue

            # A usable template repeats both texts unchanged.
            before, user, after = question.partition(USER_MARK)
            if self._system in before and user:
                self._has_system_role = has_system_role
                if not has_system_role and self._system != SYSTEM:
                    logger.warning("the chat template of %s has no system role: the system prompt begins the user's "
                                   "turn", self._tokenizer.name_or_path)
                return before, after, answered.partition(ANSWER_MARK)[2]
        raise ValueError(f"{self._tokenizer.name_or_path}: its chat template does not say what the user says")

    def _render(self, turns: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
        return self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt, **TEMPLATE_SETTINGS)
