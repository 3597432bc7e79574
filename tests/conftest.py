"""Set before torch, transformers or matplotlib is imported: offline, quiet, one thread, no window; and a watchdog."""

from __future__ import annotations

import faulthandler
import gc
import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
# Models in tests are tiny: a second thread costs more than it brings.
os.environ.setdefault("OMP_NUM_THREADS", "1")


class Watchdog:
    """Sets pytest's watchdog again where a test fails: pytest then stops it, and what comes behind may hang, too."""

    def __init__(self, config: pytest.Config) -> None:
        self._seconds = float(config.getini("faulthandler_timeout") or 0)
        # What tests write to stderr is captured; this is still the terminal's.
        self._stderr = os.dup(2)

    @pytest.hookimpl(trylast=True)
    def pytest_exception_interact(self, node: pytest.Item | pytest.Collector) -> None:
        if self._seconds and isinstance(node, pytest.Item):
            faulthandler.dump_traceback_later(self._seconds, file=self._stderr, exit=True)

    def pytest_unconfigure(self) -> None:
        os.close(self._stderr)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Watchdog(config))


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over what the imports made: a million objects that stay."""
    gc.freeze()
