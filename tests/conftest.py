"""Set before torch, transformers or matplotlib are imported: offline, quiet, one thread, no window."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
# Models in tests are tiny: a second thread costs more than it brings.
os.environ.setdefault("OMP_NUM_THREADS", "1")
