"""Every command of the project, in the order in which a reader of the guides meets them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "check the installation": ("test_training.py",),
    "prepare data": ("prepare_small_real_dataset.py", "example_dataset_generation.py", "scaledown.data.prepare_dataset",
                     "scaledown.data.reranking"),
    "train": ("train_with_evaluation.py", "train.py"),
    "evaluate": ("scaledown.evaluation.answering", "scaledown.evaluation.ranking", "scaledown.evaluation.calibration",
                 "scaledown.evaluation.pipelines", "scaledown.evaluation.robustness", "scaledown.evaluation.cost",
                 "scaledown.evaluation.benchmark"),
    "use and serve": ("example_usage.py", "scaledown.models.merge"),
    "make the demo again": ("lab.embedded", "lab.embedded.compressors", "lab.embedded.reranker",
                            "lab.benchmark_retrieval"),
}
"""Scripts and modules by what they are for."""
def all_names() -> Iterator[str]:
    """Yield the name of each command."""
    for names in COMMANDS.values():
        yield from names


def is_script(name: str) -> bool:
    """Return whether a command is a script beside the package, not a module."""
    return name.endswith(".py")


def typed(name: str) -> str:
    """Return what is typed to start a command."""
    return f"python {name}" if is_script(name) else f"python -m {name}"


def summary(name: str, root: Path) -> str | None:
    """Return the first line of a command's docstring, read without running it; None if it is not below ``root``."""
    if is_script(name):
        places = [root / name]
    else:
        place = root.joinpath(*name.split("."))
        places = [place / "__main__.py", place.with_suffix(".py")]
    for path in places:
        if path.is_file():
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            return docstring.split("\n")[0]
    return None
