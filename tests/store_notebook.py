"""Run the notebook from top to bottom, and store it with what its cells show.

    python tests/store_notebook.py [NOTEBOOK]     trains the demo as the notebook does; about 20 minutes

What is stored is the same on any machine: progress bars, times and the folders of this machine are left out.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "ScaleDown_Colab.ipynb"
NOT_NEEDED = {".git", ".venv", "docs", "tests"}
LONGEST_CELL_SECONDS = 2 * 3600
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PROGRESS = re.compile(r"\d+%\||\d(?:it|s)/(?:s|it)\b|_per_second|_runtime")
_TIME = re.compile(r"\b(?:\d\d:\d\d(?::\d\d)?|\d+(?:\.\d+)? ?(?:s|seconds|minutes|min|ms))\b")


def lay_out(desk: Path) -> None:
    """Link the project into the folder ``desk``, where whatever the notebook writes is apart from it."""
    for path in ROOT.iterdir():
        if path.name not in NOT_NEEDED and not path.name.startswith(("training_with_eval", "synthetic_train_data")):
            (desk / path.name).symlink_to(path)


def run(desk: Path, until: str | None = None) -> NotebookNode:
    """Return the notebook with the outputs of its cells, run in the folder ``desk``: all, or those before a heading."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    if until is not None:
        headings = [number for number, cell in enumerate(notebook.cells) if cell.source.startswith(until)]
        notebook.cells = notebook.cells[:headings[0]]
    settings = {"metadata": {"path": str(desk)}}
    nbclient.NotebookClient(notebook, timeout=LONGEST_CELL_SECONDS, resources=settings).execute()
    return notebook


def tidy(notebook: NotebookNode, desk: Path) -> None:
    """Leave out of the outputs what another machine or another day would show otherwise."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = tidy_outputs(cell.outputs, desk)


def tidy_outputs(outputs: list[NotebookNode], desk: Path) -> list[NotebookNode]:
    """Return the outputs of one cell: its pictures and tables, and what it printed as one text, without warnings."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type != "stream":
            kept.append(output)
        elif output.name == "stdout":
            # The kernel sends a text in pieces, as it comes.
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
            else:
                kept.append(output)

    for output in kept:
        if output.output_type == "stream":
            output.text = tidy_text(output.text, desk)
    return [output for output in kept if output.get("text", True)]


def tidy_text(text: str, desk: Path) -> str:
    """Return what a terminal shows of ``text`` in the end, without progress bars, times and this machine's folders."""
    lines = []
    for line in _ANSI.sub("", text).replace("\r\n", "\n").split("\n"):
        # A carriage return goes back to the start of the line: what follows it is written over the rest.
        line = line.rstrip("\r").rpartition("\r")[2]
        if not _PROGRESS.search(line):
            line = line.replace(f"{desk}/", "").replace(str(desk), ".").replace(str(Path.home()), "~")
            lines.append(_TIME.sub("...", line))
    return re.sub(r"\n{2,}", "\n", "\n".join(lines)).lstrip("\n")


def main() -> int:
    """Run and store it."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else NOTEBOOK
    desk = Path(tempfile.mkdtemp(prefix="notebook-"))
    os.environ["IPYTHONDIR"] = str(desk / ".ipython")
    print(f"running {NOTEBOOK.name} in {desk}: about 20 minutes", flush=True)
    try:
        lay_out(desk)
        notebook = run(desk)
        tidy(notebook, desk)
        nbformat.write(notebook, target)
    finally:
        shutil.rmtree(desk, ignore_errors=True)
    print(f"done: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
