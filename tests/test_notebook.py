"""The notebook runs from top to bottom as a new user would run it; outputs that are stored are those of a whole run."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import nbclient
import nbformat
import pytest
import store_notebook
from IPython.core.inputtransformer2 import TransformerManager
from store_notebook import NOTEBOOK, ROOT

from scaledown.hub import packaged

NO_TREE = "the project is not here: set REPOSITORY"
REAL_TEXT = "## Real text"
MOST_BYTES = 1_000_000
OF_ONE_MACHINE = re.compile(r"/(?:home|root|Users|tmp|opt|mnt|work|usr)/|\.venv|\b\d\d:\d\d:\d\d\b|\bit/s")
COLAB = """
ipykernel==6.17.1
ipython==7.34.0
ipython-sql==0.5.0
numpy==2.1.3
torch==2.11.0+cu128
torchao==0.10.0
torchvision==0.26.0+cu128
transformers==5.15.0
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALEDOWN_NOTEBOOK_SHORT", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / ".ipython"))
    (tmp_path / "desk").mkdir()
    return tmp_path / "desk"


def code_cells() -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]


def outputs_of(cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    return list(itertools.chain.from_iterable(cell.get("outputs", ()) for cell in cells))


def texts(cells: list[nbformat.NotebookNode]) -> str:
    return "".join(output.get("text", "") for output in outputs_of(cells))


def pictures(cells: list[nbformat.NotebookNode]) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs_of(cells))


def test_the_stored_outputs_are_of_one_whole_run():
    cells = code_cells()
    if not any(cell.outputs for cell in cells):
        pytest.skip("no outputs are stored: python tests/store_notebook.py runs the notebook and stores them")
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs_of(cells) if output.output_type == "error"]
    assert pictures(cells) == 4 and "after training  exact match" in texts(cells)


def test_the_stored_outputs_are_small_and_name_no_machine_and_no_time():
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert not OF_ONE_MACHINE.findall(texts(code_cells()))


def test_outputs_are_tidied(tmp_path):
    text = (f"one\r\ntraining:  10%|#   | 1/9\rtraining: 100%|####| 9/9 [00:09, 1.0it/s]\r\n\x1b[1mbold\x1b[0m in "
            f"{tmp_path}/run after 12.5 s\r\nearlier\rlater\r\n")
    assert store_notebook.tidy_text(text, tmp_path) == "one\nbold in run after ...\nlater\n"


def test_without_the_project_and_its_address_it_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, set_up = (TransformerManager().transform_cell(cell.source) for cell in code_cells()[:2])
    names: dict[str, object] = {}
    exec(settings, names)
    with pytest.raises(AssertionError, match=NO_TREE):
        exec(set_up, names)


def test_the_badge_opens_the_repository_that_is_cloned():
    [repository] = re.findall(r'REPOSITORY = "https://github.com/([^"]+)"', code_cells()[0].source)
    first = nbformat.read(NOTEBOOK, as_version=4).cells[0].source
    assert f"(https://colab.research.google.com/github/{repository}/blob/main/{NOTEBOOK.name})" in first


def test_colab_keeps_what_its_kernel_and_its_other_packages_need():
    [pattern] = re.findall(r'grep -E "([^"]+)"', code_cells()[1].source)
    kept = [line for line in COLAB.split() if re.match(pattern, line)]
    assert kept == ["ipykernel==6.17.1", "ipython==7.34.0", "numpy==2.1.3", "torch==2.11.0+cu128",
                    "torchvision==0.26.0+cu128"]


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(desk):
    store_notebook.lay_out(desk)
    # A test fetches no package; where smollm2 is, its cells run, too.
    has_real_text = packaged.folder_of("smollm2").is_dir()
    ran = store_notebook.run(desk, until=None if has_real_text else REAL_TEXT)
    cells = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert pictures(cells) == 4
    assert "passages that were kept" in texts(cells)
    assert not has_real_text or "Ferdinand de Lesseps" in texts(cells)
    assert "questions, documents, memory tokens, width: (10, 5, 8, 128)" in texts(cells)
    assert "from the best one alone: Grime" in texts(cells)  # The right answer to "On which river does Pelmouth lie?".
    assert (desk / "training_with_eval" / "report.html").is_file()


@pytest.mark.slow
def test_opened_alone_it_clones_the_project(desk, tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone of the project")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings, set_up = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    settings.source = re.sub(r'REPOSITORY = "[^"]+"', f'REPOSITORY = "file://{ROOT}"', settings.source)
    where = nbformat.v4.new_code_cell("print(pathlib.Path.cwd())")
    notebook.cells = [settings, set_up, where]
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(desk)}}).execute()
    assert texts([where]).strip() == str(desk / "ScaleDown") and (desk / "ScaleDown" / "train.py").is_file()
