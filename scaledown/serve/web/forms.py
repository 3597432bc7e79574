"""The bodies of requests: OpenAI's chat completions with documents, and reranking as Cohere, Jina and TEI have it.

All of a body is text and numbers. Embeddings are never taken from a client: a serialised tensor runs code or reads
beyond its end if the library that loads it has a fault (CVE-2025-62164).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from scaledown.config import AUTO
from scaledown.models.serving.inputs.documents import check_text

ONE_QUESTION = ("must be one message of the user, with the question: this service answers single questions, without a "
                "system message (the checkpoint has its own) and earlier turns")
NOT_READ = {"user", "metadata", "store", "seed", "top_p", "service_tier", "safety_identifier", "prompt_cache_key",
            "parallel_tool_calls"}
"""Fields of OpenAI's clients that change nothing about a greedy answer."""
NOT_READ_TO_RERANK = {"user", "priority", "max_tokens_per_doc", "max_chunks_per_doc", "truncate",
                      "truncation_direction", "raw_scores"}
"""Fields of reranking clients: documents are always read whole, and scores are always the model's own."""
NEUTRAL = {"temperature": 0, "n": 1, "frequency_penalty": 0, "presence_penalty": 0, "logprobs": False,
           "response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "stop": [], "logit_bias": {}}
"""Fields that change an answer in a way that this service has not, with the value that asks for nothing."""


class StrictForm(BaseModel):
    """A body whose types are those of JSON, and whose names are known: a mistyped one would change nothing."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _text(value: str) -> str:
    # The message of check_text names no place: the field stands in front of it.
    check_text(value)
    if not value.strip():
        raise ValueError("must not be empty")
    return value


Text = Annotated[str, AfterValidator(_text)]


def _document_id(value: Any) -> Any:
    # True and False are ints, but no ids.
    if value is not None and not (isinstance(value, str | int) and not isinstance(value, bool)):
        raise ValueError("must be a string or a whole number")
    return value


def _keep_documents(value: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value not in (None, AUTO) and not (is_number and value > 0):
        raise ValueError(f'must be a whole number above 0, or "{AUTO}"')
    return value


class ServedDocument(StrictForm):
    """A document: its text, and perhaps a title and an id, by which sources name it."""

    text: str
    title: str | None = None
    id: Annotated[str | int | None, BeforeValidator(_document_id)] = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as the model takes documents."""
        return self.model_dump(exclude_none=True)


def _as_document(value: Any) -> Any:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        raise ValueError("must be a string, or an object with text and perhaps title and id")
    return value


DocumentList = list[Annotated[ServedDocument, BeforeValidator(_as_document)]]


def _question(messages: Any) -> Any:
    """Return the text of the one message."""
    if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
        raise ValueError(ONE_QUESTION)
    message = messages[0]
    if message.get("role") != "user":
        raise ValueError(ONE_QUESTION)

    # A text, or parts of which each has a type.
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError("the content of the message must be a string, or a list of parts of type text")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ValueError("only parts of type text are taken, and no embeddings or images")
        texts.append(part["text"])
    return "\n".join(texts)


class StreamOptions(StrictForm):
    """The parts of a stream beside its text."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatForm(StrictForm):
    """The body of ``POST /v1/chat/completions``.

    Attributes:
        question: the text of the one message in ``messages``.
        max_tokens: the longest answer, under its old name or its new one.
        keep_documents, keep_tokens, text_documents: as in :meth:`ScaleDownModel.answer`.
    """

    question: Annotated[Text, BeforeValidator(_question)] = Field(validation_alias="messages")
    documents: DocumentList = Field(min_length=1)
    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    keep_documents: Annotated[int | Literal["auto"] | None, BeforeValidator(_keep_documents)] = None
    keep_tokens: int | None = Field(None, ge=1)
    text_documents: int | None = Field(None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_read(cls, values: Any) -> Any:
        """Drop what changes nothing, and refuse what would ask for another answer."""
        if not isinstance(values, dict):
            return values
        for name, neutral in NEUTRAL.items():
            if values.get(name) not in (None, neutral):
                raise ValueError(f"{name} must be left out: answers are greedy, one for a question, in plain text")
        return {name: value for name, value in values.items() if name not in NOT_READ | NEUTRAL.keys()}


class RerankForm(StrictForm):
    """The body of ``POST /v1/rerank`` and its likes; ``texts`` is what text-embeddings-inference calls documents."""

    query: Text
    documents: DocumentList = Field(min_length=1, validation_alias=AliasChoices("documents", "texts"))
    model: str | None = None
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = Field(False, validation_alias=AliasChoices("return_documents", "return_text"))

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_read(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if name not in NOT_READ_TO_RERANK}
