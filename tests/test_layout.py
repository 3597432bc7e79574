"""Holds the shape of the tree: imports run one way, and some things are done nowhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "scaledown").rglob("*.py"))
MODELS = sorted((ROOT / "scaledown" / "models").rglob("*.py"))
SCRIPTS = sorted(ROOT.glob("*.py"))
BASE = {"config", "hub", "cli", "precision", "prompt", "json_text", "settings"}
MAY_IMPORT = {
    "settings": set(),
    "json_text": set(),
    "progress": set(),
    "config": {"json_text", "settings"},
    "hub": {"config"},
    "cli": {"config", "progress"},
    "precision": set(),
    "prompt": set(),
    "data": BASE,
    "models": BASE,
    "training": BASE | {"data", "models"},
    "evaluation": BASE | {"data", "models", "training"},
}
# Names that the package itself hands on, and the room they live in.
HANDED_ON = {"ScaleDownConfig": "config", "ScaleDownModel": "models"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "scaledown").parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the full name of all that a file imports, wherever in it: ``from a.b import c`` gives ``a.b.c``."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imported_rooms(path: Path) -> set[str]:
    names = [name.split(".")[1] for name in imported_modules(path) if name.startswith("scaledown.")]
    return {HANDED_ON.get(name, name) for name in names}


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_imports_run_one_way(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in MAY_IMPORT, f"{name_of(path)}: a room that the layout does not know"
    wrong = imported_rooms(path) - MAY_IMPORT[room] - {room}
    assert not wrong, f"{name_of(path)} imports {sorted(wrong)}; {room} may import {sorted(MAY_IMPORT[room])}"


def modules_needed(path: Path) -> set[str]:
    """Return the modules of this package that a file needs when it is imported, not only for its annotations."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    known = {module_of(each) for each in PACKAGE}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scaledown"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known) or {node.module}
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_the_engine_is_built_from_below():
    """Packing knows nobody, attention knows packing, and so on up to the model: no module needs one that needs it."""
    needs = {module_of(path): modules_needed(path) for path in MODELS}
    order = []
    while needs:
        ready = sorted(name for name, needed in needs.items() if not needed & needs.keys())
        assert ready, f"these need one another: {sorted(needs)}"
        order += ready
        needs = {name: needed for name, needed in needs.items() if name not in ready}
    places = [order.index(f"scaledown.models.{name}") for name in (
        "packing", "attention", "last_layer", "decoder", "compressors.causal", "model")]
    assert places == sorted(places)


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_files_and_functions_of_the_engine_stay_small(path):
    """Counted without docstrings, comments and blank lines."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    # A docstring is a line of code that is a text and nothing else.
    told = {number for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            for number in range(node.lineno, node.end_lineno + 1)}
    is_code = {number for number, line in enumerate(text.splitlines(), 1)
               if number not in told and line.strip() and not line.strip().startswith("#")}
    assert len(is_code) <= 250
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    sizes = {node.name: len(is_code & set(range(node.lineno, node.end_lineno + 1))) for node in functions}
    assert all(size <= 40 for size in sizes.values()), sizes


@pytest.mark.parametrize("path", [*PACKAGE, *SCRIPTS], ids=name_of)
def test_nothing_imports_a_script_or_a_test(path):
    scripts = {script.stem for script in SCRIPTS} | {"tests"}
    assert not {name.split(".")[0] for name in imported_modules(path)} & scripts


@pytest.mark.parametrize("name", ["config.py", "cli.py", "hub.py", "evaluation/metrics.py"])
def test_what_needs_no_torch_does_not_import_it(name):
    assert "torch" not in {module.split(".")[0] for module in imported_modules(ROOT / "scaledown" / name)}


def test_configs_and_names_load_without_the_heavy_libraries():
    code = ("import sys, scaledown, scaledown.cli, scaledown.config, scaledown.hub; "
            "print(*({'torch', 'transformers', 'datasets', 'huggingface_hub'} & set(sys.modules)))")
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


def test_train_tells_a_wrong_setting_before_it_loads_torch():
    code = "import sys, train; print(train.main(['--num_memory_tokens', '0']), 'torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["2", "False"]
    assert "num_memory_tokens" in ended.stderr


def attributes(path: Path) -> set[str]:
    """Return every ``module.name`` that a file's code mentions."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {f"{node.value.id}.{node.attr}" for node in nodes
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}


@pytest.mark.parametrize("path", [*PACKAGE, *SCRIPTS], ids=name_of)
def test_no_pickles_and_no_edits_of_the_import_path(path):
    picklers = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not {name.split(".")[0] for name in imported_modules(path)} & picklers
    assert not attributes(path) & {"sys.path", "torch.load", "torch.save"}


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_scripts_do_nothing_when_imported(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "a script says what it is for"
    calls = [node for node in body if isinstance(node, (ast.For, ast.While, ast.With))
             or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))]
    assert not calls, f"{name_of(path)}, line {calls[0].lineno}: work at import"


@pytest.mark.parametrize("path", [*PACKAGE, *SCRIPTS, *sorted((ROOT / "tests").rglob("*.py"))], ids=name_of)
def test_no_process_is_a_fork_of_one_that_has_threads(path):
    """A fork has its parent's locks without the threads that hold them, and one that is killed may keep a shared one.

    torch's DataLoader forks, too: its workers draw no bars and are not killed.
    """
    forking = {"os.fork", "multiprocessing.Process", "multiprocessing.Pool", "accelerate.debug_launcher"}
    assert not (attributes(path) | set(imported_modules(path))) & forking


def code_files() -> list[Path]:
    tools = [ROOT / name for name in ("setup_env.sh", "Makefile", "requirements.txt", "requirements-trainium.txt",
                                      "requirements.lock", "pyproject.toml", ".ci/run", ".ci/lock", ".ci/newest",
                                      "ScaleDown_Colab.ipynb")]
    return [*PACKAGE, *SCRIPTS, *sorted((ROOT / "tests").rglob("*.py")), *filter(Path.is_file, tools)]


@pytest.mark.parametrize("path", code_files(), ids=name_of)
def test_no_code_names_a_folder_of_one_machine(path):
    machine_path = re.compile(r"(?<![\w.~}])/(?:root|home|Users|opt|mnt|work)" + r"/\w")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert not machine_path.search(line), f"{name_of(path)}, line {number}: {line.strip()}"
