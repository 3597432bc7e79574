"""ScaleDown: query-dependent soft compression of documents for RAG (an open OSCAR, arXiv:2504.07109)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scaledown.config import ScaleDownConfig

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel

__all__ = ["ScaleDownConfig", "ScaleDownModel"]


def __getattr__(name: str) -> Any:
    """Load the model on first use, so that code which only reads configs or data does without torch."""
    if name != "ScaleDownModel":
        raise AttributeError(f"module 'scaledown' has no attribute {name!r}")
    from scaledown.models.model import ScaleDownModel

    return ScaleDownModel
