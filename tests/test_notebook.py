"""The notebook runs from top to bottom as a new user would run it, and lies in the repository without outputs."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "ScaleDown_Colab.ipynb"
NOT_NEEDED = {".git", ".venv", "docs", "tests"}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with the project in it, where whatever the notebook writes is thrown away."""
    for path in ROOT.iterdir():
        if path.name not in NOT_NEEDED and not path.name.startswith(("training_with_eval", "synthetic_train_data")):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def test_outputs_are_stripped():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(desk, monkeypatch):
    monkeypatch.setenv("SCALEDOWN_NOTEBOOK_SHORT", "1")
    monkeypatch.setenv("IPYTHONDIR", str(desk / ".ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(desk)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    text = "".join(output.get("text", "") for output in outputs)
    assert len(pictures) == 4
    assert "questions, documents, memory tokens, width: (10, 5, 8, 128)" in text
    assert "from the best one alone: Grime" in text  # The right answer to "On which river does Pelmouth lie?".
    assert (desk / "training_with_eval" / "report.html").is_file()
