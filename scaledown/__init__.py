"""ScaleDown: query-dependent soft compression of documents for RAG (an open OSCAR, arXiv:2504.07109)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from scaledown.config import ScaleDownConfig

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel

__all__ = ["ScaleDownConfig", "ScaleDownModel"]
__version__ = "0.1.0"

SPINS = "3000"
"""How often a thread of torch's builds for Linux looks for its next work before it sleeps: briefly.

GNU OpenMP's own 300,000 are milliseconds. If other processes want the cores, threads then spin all their time away,
while the one that they wait for has no core (lab/LOG.md). It is read once, when torch is imported.
"""
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def __getattr__(name: str) -> Any:
    """Load the model on first use, so that code which only reads configs or data does without torch."""
    if name != "ScaleDownModel":
        raise AttributeError(f"module 'scaledown' has no attribute {name!r}")
    from scaledown.models.model import ScaleDownModel

    return ScaleDownModel
