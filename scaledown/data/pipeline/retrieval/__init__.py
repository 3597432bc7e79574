"""Finding passages: BM25, SPLADE, dense vectors, BM25 and these together, or a TREC run of any other engine."""

from scaledown.data.pipeline.retrieval.bm25 import BM25
from scaledown.data.pipeline.retrieval.searcher import RETRIEVERS, Hit, RetrievalConfig, Searcher

__all__ = ["BM25", "RETRIEVERS", "Hit", "RetrievalConfig", "Searcher"]
