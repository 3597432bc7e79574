"""ScaleDown in LangChain: a document compressor that keeps the best documents, and a chat model that reads documents.

What LangChain calls a compressor hands on texts. Memory tokens cannot pass from one model to another, so the chat model
compresses the documents itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import field_validator

from scaledown.models.serving.inputs.user_input import check_number


class ScaleDownCompressor(BaseDocumentCompressor):
    """Keep the documents that score best for the query, best first, with the score in their metadata.

    Attributes:
        model: a ``ScaleDownModel`` that was trained with ``--enable_reranking``.
        top_n: the number of documents to keep.
    """

    model: Any
    top_n: int = 3

    @field_validator("top_n", mode="before")
    @classmethod
    def _check_top_n(cls, value: Any) -> Any:
        # As a slice takes it, -1 would leave out the last document.
        check_number("top_n", value)
        return value

    def compress_documents(self, documents: Sequence[Document], query: str,
                           callbacks: Callbacks | None = None) -> Sequence[Document]:
        """Return the best documents; those that were given do not change."""
        order, scores = self.model.rerank(query, list(documents))
        kept = []
        for number in order[:self.top_n]:
            document = documents[number]
            kept.append(document.model_copy(update={
                "metadata": {**document.metadata, "relevance_score": scores[number]}}))
        return kept


class ScaleDownChat(BaseChatModel):
    """Answer the last message from ``documents``, given by ``invoke(question, documents=...)`` or ``bind``.

    The other messages are not read: a ScaleDown model answers one question. Other keywords go to
    ``ScaleDownModel.answer_with_sources``; the ids of what was read are in ``response_metadata``.

    Attributes:
        model: a ``ScaleDownModel``.
    """

    model: Any

    @property
    def _llm_type(self) -> str:
        return "scaledown"

    def _generate(self, messages: list[BaseMessage], stop: list[str] | None = None,
                  run_manager: CallbackManagerForLLMRun | None = None, documents: Sequence[Any] = (),
                  **options: Any) -> ChatResult:
        answer = self.model.answer_with_sources(str(messages[-1].text), list(documents), **options)
        text = answer.text
        for mark in stop or ():
            text = text.split(mark)[0]
        message = AIMessage(content=text, response_metadata={"document_ids": list(answer.document_ids or ())})
        return ChatResult(generations=[ChatGeneration(message=message)])
