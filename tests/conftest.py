"""Set before torch, transformers or matplotlib are imported: offline, quiet, one thread, no window."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
# Models in tests are tiny: a second thread costs more than it brings.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings  # noqa: E402

# Broken input in tests/test_fuzz.py: some hundreds of cases in every run, 5,000 when they are asked for.
for name, examples in (("ci", 60), ("fuzz", 1_000)):
    settings.register_profile(name, max_examples=examples, derandomize=True, deadline=None, database=None,
                              suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
settings.load_profile("ci")
