"""The demo's weights, made again: its generator, its compressors, and a reranking teacher."""
