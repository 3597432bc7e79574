"""The limits of the service: all that a client can make large."""

from __future__ import annotations

from dataclasses import dataclass

USUAL_NEW_TOKENS = 64
"""The longest answer of a request that does not say, in tokens: that of ``ScaleDownModel.answer``."""
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """The most that the service takes; each field is a flag of its command.

    Attributes:
        max_requests: read, waiting or computed at a time; one more is answered 429.
        max_body_mib: of a request's body, in MiB; a larger one is answered 413.
        max_documents: of a request; more are answered 422.
        max_input_tokens: of a request's question and documents, in the generator's tokens; more are answered 422.
        max_new_tokens: the longest answer that a request may ask for; more is answered 422.
    """

    max_requests: int = 64
    max_body_mib: float = 4.0
    max_documents: int = 100
    max_input_tokens: int = 50_000
    max_new_tokens: int = 512

    @property
    def max_body_bytes(self) -> int:
        """The longest body in bytes."""
        return int(self.max_body_mib * MEBIBYTE)

    @property
    def usual_new_tokens(self) -> int:
        """The longest answer of a request that does not say, in tokens."""
        return min(USUAL_NEW_TOKENS, self.max_new_tokens)
