"""ScaleDown in LlamaIndex: a postprocessor that keeps the best nodes, and a query engine that answers from memory."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.response.schema import Response
from llama_index.core.bridge.pydantic import field_validator
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from scaledown.models.serving.inputs.user_input import check_number


class ScaleDownPostprocessor(BaseNodePostprocessor):
    """Keep the nodes that score best for the query, best first, with ScaleDown's score in place of the retriever's.

    Attributes:
        model: a ``ScaleDownModel`` that was trained with ``--enable_reranking``.
        top_n: the number of nodes to keep.
    """

    model: Any
    top_n: int = 3

    @field_validator("top_n", mode="before")
    @classmethod
    def _check_top_n(cls, value: Any) -> Any:
        # As a slice takes it, -1 would leave out the last document.
        check_number("top_n", value)
        return value

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex knows it."""
        return "ScaleDownPostprocessor"

    def _postprocess_nodes(self, nodes: list[NodeWithScore],
                           query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("ScaleDownPostprocessor scores nodes for a query: pass query_str or query_bundle")
        order, scores = self.model.rerank(query_bundle.query_str, as_documents(nodes))
        return [NodeWithScore(node=nodes[number].node, score=scores[number]) for number in order[:self.top_n]]


class ScaleDownQueryEngine(CustomQueryEngine):
    """Answer a query from the compressed nodes of a retriever; the response names the nodes that were read.

    Attributes:
        retriever: of LlamaIndex; anything with ``retrieve``.
        model: a ``ScaleDownModel``.
        options: of ``ScaleDownModel.answer_with_sources``, such as ``keep_documents``.
    """

    retriever: Any
    model: Any
    options: dict[str, Any] = {}

    def custom_query(self, query_str: str) -> Response:
        """Return the answer with its nodes, in the order in which they were read."""
        nodes = self.retriever.retrieve(query_str)
        answer = self.model.answer_with_sources(query_str, as_documents(nodes), **self.options)
        # A long node stands there once for each of its passages.
        read = [nodes[number] for number in dict.fromkeys(answer.documents)]
        return Response(answer.text, source_nodes=read)


def as_documents(nodes: list[NodeWithScore]) -> list[dict[str, Any]]:
    """Return nodes as ScaleDown reads them: their own text, with a title of their metadata if there is one."""
    return [{"id": node.node.node_id, "title": node.node.metadata.get("title"),
             "text": node.node.get_content(MetadataMode.NONE)} for node in nodes]
