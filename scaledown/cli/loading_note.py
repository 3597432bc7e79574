"""A sign of life on a terminal: a line that says what is being loaded, since torch takes seconds."""

from __future__ import annotations

import contextlib
import importlib.abc
import inspect
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

TORCH = "torch"
IMPORT_SYSTEM = "<frozen importlib._bootstrap>"
"""The file name of the frames in which Python imports a module; those of ``importlib.util`` have another one."""


def tell(text: str) -> None:
    """Print ``text`` on standard error if that is a terminal; of several processes, in the first one."""
    if sys.stderr is not None and sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def on_import() -> Iterator[None]:
    """Tell in the ``with`` block that torch is about to be imported, wherever that is done.

    At this one place, so that no command can forget it.
    """
    note = _Note()
    sys.meta_path.insert(0, note)
    try:
        yield
    finally:
        sys.meta_path.remove(note)


class _Note(importlib.abc.MetaPathFinder):
    """A finder that finds nothing: Python asks it first for each module that is not loaded yet."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        """Tell that torch is loading; the usual finders then find it."""
        if name != TORCH:
            return
        # Libraries also ask whether torch is there, by importlib.util.find_spec, without importing it.
        frame = inspect.currentframe()
        callers = [frame.f_back, frame.f_back.f_back] if frame and frame.f_back else []
        if all(caller is not None and caller.f_code.co_filename == IMPORT_SYSTEM for caller in callers):
            tell("loading torch and transformers ...")
