"""Every command of the project, in the order in which a reader of the guides meets them."""

from __future__ import annotations

import os

COMMANDS: dict[str, tuple[str, ...]] = {
    "check the installation": ("test_training.py",),
    "fetch models": ("scaledown.hub",),
    "prepare data": ("prepare_small_real_dataset.py", "example_dataset_generation.py", "scaledown.data.prepare_dataset",
                     "scaledown.data.reranking"),
    "train": ("train_with_evaluation.py", "train.py"),
    "evaluate": ("scaledown.evaluation.answering", "scaledown.evaluation.ranking", "scaledown.evaluation.calibration",
                 "scaledown.evaluation.pipelines", "scaledown.evaluation.robustness", "scaledown.evaluation.needle",
                 "scaledown.evaluation.cost", "scaledown.evaluation.benchmark"),
    "use and serve": ("example_usage.py", "scaledown.demo", "scaledown.serve", "scaledown.serving.read_ahead",
                      "scaledown.models.merge"),
    "make what ships again": ("lab.embedded", "lab.embedded.compressors", "lab.embedded.reranker", "lab.smollm2",
                              "lab.benchmark_retrieval", "lab.benchmark_read_ahead", "lab.benchmark_store",
                              "lab.benchmark_service", "lab.recall"),
    "try a machine": ("lab.gpu_check",),
}
"""Scripts and modules by what they are for."""


def is_script(name: str) -> bool:
    """Return whether a command is a script beside the package, not a module."""
    return name.endswith(".py")


def typed(name: str) -> str:
    """Return what is typed to start a command."""
    return f"python {name}" if is_script(name) else f"python -m {name}"


def summary(name: str, root: str) -> str | None:
    """Return the first line of a command's docstring, read without running it; None if it is not below ``root``."""
    # Only now: this module is imported before Ctrl-C is quiet.
    import ast

    place = os.path.join(root, *([name] if is_script(name) else name.split(".")))
    for path in (place, f"{place}.py", os.path.join(place, "__main__.py")):
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                docstring = ast.get_docstring(ast.parse(file.read())) or ""
            return docstring.split("\n")[0]
    return None
