"""The names of the systems that the benchmark compares, and the size of their memory."""

FROM_MEMORY = ("scaledown", "naive_compressor")
SYSTEMS = (*FROM_MEMORY, "full_text", "truncated_text")
MEMORY_TOKENS = 8
"""Memory tokens of a document; truncated text has as many tokens."""
