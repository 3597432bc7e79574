"""Retrieval of passages: BM25, SPLADE, dense vectors, or a TREC run of any other engine."""

from scaledown.data.retrieval.bm25 import BM25
from scaledown.data.retrieval.config import RETRIEVERS, RetrievalConfig
from scaledown.data.retrieval.searcher import Hit, Searcher

__all__ = ["BM25", "RETRIEVERS", "Hit", "RetrievalConfig", "Searcher"]
