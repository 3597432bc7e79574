"""Holds the shape of the tree: imports run one way, folders stay small, and some things are done nowhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "scaledown").rglob("*.py"))
MODELS = sorted((ROOT / "scaledown" / "models").rglob("*.py"))
LAB = sorted((ROOT / "lab").rglob("*.py"))
SCRIPTS = sorted(ROOT.glob("*.py"))
ADAPTERS = sorted((ROOT / "integrations").glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BASE = {"config", "settings", "hub", "cli", "files", "processes", "progress", "prompt"}
MAY_IMPORT = {
    "files": set(),
    "progress": set(),
    "prompt": {"progress"},
    "settings": set(),
    "config": {"files", "settings"},
    "hub": {"cli", "config"},
    "cli": {"config", "progress", "settings"},
    "__main__": {"cli"},
    "processes": {"cli"},
    "data": BASE,
    "models": BASE,
    "training": BASE | {"data", "models"},
    "serving": BASE | {"data", "models", "training"},
    "serve": BASE | {"data", "models", "training", "serving"},
    "evaluation": BASE | {"data", "models", "training"},
    "demo": BASE | {"data", "models", "training", "serve", "evaluation"},
}
# Names that the package itself hands on, and the room they live in.
HANDED_ON = {"ScaleDownConfig": "config", "ScaleDownModel": "models"}
MOST_ENTRIES = 13
MOST_ROOMS = 15
ROOMS = "scaledown"
"""The package itself has more entries: each kind of command has a room, also the page and the service."""
NO_ENTRIES = {"__init__.py", "__main__.py", "__pycache__"}
"""A folder itself, as a package and as a command."""
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 250, 40
"""Of the engine's code, without docstrings, comments and blank lines."""
SEVERAL_FOLDERS = {"__init__.py", "__main__.py", "conftest.py"}
"""Files that may stand in several folders of the tests."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


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


def imports_of(packages: set[str], paths: Iterable[Path]) -> list[str]:
    """Return a line for each import of one of ``packages`` in the files."""
    found = []
    for path in paths:
        names = [name for name in imported_modules(path) if name.split(".")[0] in packages]
        found += [f"{name_of(path)} imports {name}" for name in names]
    return found


def imported_rooms(path: Path) -> set[str]:
    names = [name.split(".")[1] for name in imported_modules(path) if name.startswith("scaledown.")]
    return {HANDED_ON.get(name, name) for name in names}


def modules_needed(path: Path) -> set[str]:
    """Return the modules of this project that a file needs when it runs, not only for its annotations."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    known = {module_of(each) for each in (*PACKAGE, *LAB)}
    needed = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            needed |= (names & known) or ({node.module} & known)
    return needed


def circle_in(needs: Mapping[str, set[str]]) -> list[str]:
    """Return names that need one another, or need some that do; none where all can stand in an order."""
    left = {name: needed & needs.keys() for name, needed in needs.items()}
    while ready := [name for name, needed in left.items() if not needed & left.keys()]:
        left = {name: needed for name, needed in left.items() if name not in ready}
    return sorted(left)


def attributes(path: Path) -> set[str]:
    """Return every ``module.name`` that a file's code mentions."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {f"{node.value.id}.{node.attr}" for node in nodes
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}


def test_imports_run_one_way():
    assert {room_of(path) for path in PACKAGE} - {"__init__"} == MAY_IMPORT.keys(), "rooms that the layout should know"
    wrong = []
    for path in PACKAGE:
        room = room_of(path)
        if room != "__init__":
            foreign = imported_rooms(path) - MAY_IMPORT[room] - {room}
            wrong += [f"{name_of(path)} imports {other}" for other in sorted(foreign)]
    assert not wrong, wrong


def test_the_package_imports_no_lab_script_or_test():
    foreign = {script.stem for script in SCRIPTS} | {path.stem for path in TESTS} | {"tests", "lab", "integrations"}
    wrong = imports_of(foreign, (*PACKAGE, *SCRIPTS)) + imports_of(foreign - {"lab"}, LAB)
    assert not wrong, wrong


def test_no_module_needs_one_that_needs_it():
    circle = circle_in({module_of(path): modules_needed(path) for path in (*PACKAGE, *LAB)})
    assert not circle, circle


def test_no_folder_needs_one_beside_it_that_needs_it():
    """In each folder its files and folders can be put in an order in which each needs only those before it."""
    circles = {}
    for folder in ("scaledown", "scaledown.models", "scaledown.data", "scaledown.data.pipeline", "scaledown.data.qa",
                   "scaledown.training", "scaledown.evaluation", "scaledown.demo", "lab"):
        needs: dict[str, set[str]] = {}
        for path in (*PACKAGE, *LAB):
            if module_of(path).startswith(f"{folder}."):
                entry = entry_in(folder, module_of(path))
                needed = {entry_in(folder, name) for name in modules_needed(path) if name.startswith(f"{folder}.")}
                needs[entry] = needs.get(entry, set()) | (needed - {entry})
        circles[folder] = circle_in(needs)
    assert not any(circles.values()), circles


def entry_in(folder: str, module: str) -> str:
    return module.removeprefix(f"{folder}.").split(".")[0]


def test_no_folder_has_more_entries_than_an_eye_takes_in():
    large = {}
    for folder in {path.parent for path in (*PACKAGE, *LAB)}:
        entries = [path.name for path in folder.iterdir() if path.name not in NO_ENTRIES]
        if len(entries) > (MOST_ROOMS if name_of(folder) == ROOMS else MOST_ENTRIES):
            large[name_of(folder)] = len(entries)
    assert not large, large


def test_the_engine_is_built_from_below():
    """Packing knows nobody, attention knows packing, and so on up to the model."""
    needs = {module_of(path): modules_needed(path) for path in MODELS}
    order = []
    while needs:
        ready = sorted(name for name, needed in needs.items() if not needed & needs.keys())
        assert ready, f"these need one another: {sorted(needs)}"
        order += ready
        needs = {name: needed for name, needed in needs.items() if name not in ready}
    places = [order.index(f"scaledown.models.{name}") for name in (
        "engine.packing", "engine.attention", "engine.last_layer", "engine.decoder", "compressors.causal", "model")]
    assert places == sorted(places)


def test_files_and_functions_of_the_engine_stay_small():
    large = []
    for path in MODELS:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        is_code = lines_of_code(text, tree)
        sizes = {node.name: len(is_code & set(range(node.lineno, node.end_lineno + 1))) for node in ast.walk(tree)
                 if isinstance(node, ast.FunctionDef)}
        if len(is_code) > MOST_LINES_OF_A_FILE:
            large.append(f"{name_of(path)}: {len(is_code)} lines")
        large += [f"{name_of(path)}, {name}: {size} lines" for name, size in sizes.items()
                  if size > MOST_LINES_OF_A_FUNCTION]
    assert not large, large


def lines_of_code(text: str, tree: ast.AST) -> set[int]:
    """Return the numbers of the lines that are neither docstrings, comments nor blank."""
    # A docstring is a line of code that is a text and nothing else.
    told = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            told.update(range(node.lineno, node.end_lineno + 1))
    return {number for number, line in enumerate(text.splitlines(), 1)
            if number not in told and line.strip() and not line.strip().startswith("#")}


def test_what_needs_no_torch_does_not_import_it():
    names = ["__main__.py", "settings.py", "files.py", "evaluation/metrics.py"]
    for folder in ("cli", "config", "prompt"):
        names += [f"{folder}/{path.name}" for path in (ROOT / "scaledown" / folder).glob("*.py")]
    wrong = imports_of({"torch"}, [ROOT / "scaledown" / name for name in names])
    assert not wrong, wrong


def test_configs_and_names_load_without_the_heavy_libraries():
    code = ("import sys, scaledown, scaledown.cli, scaledown.config, scaledown.hub, scaledown.processes; "
            "print(*({'torch', 'transformers', 'datasets', 'huggingface_hub'} & set(sys.modules)))")
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


def test_train_tells_a_wrong_setting_before_it_loads_torch():
    code = "import sys, train; print(train.main(['--num_memory_tokens', '0']), 'torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["2", "False"]
    assert "num_memory_tokens" in ended.stderr


def test_no_pickles_and_no_edits_of_the_import_path():
    picklers = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    wrong = {}
    for path in (*PACKAGE, *LAB, *SCRIPTS):
        packages = {name.split(".")[0] for name in imported_modules(path)}
        edits = attributes(path) & {"sys.path", "torch.load", "torch.save"}
        wrong[name_of(path)] = (packages & picklers) | edits
    # vLLM takes a tensor as torch saves it and in no other form; it is only written there, never read.
    wrong["scaledown/serve/work/vllm.py"] -= {"torch.save"}
    assert not any(wrong.values()), {name: found for name, found in wrong.items() if found}


def test_no_file_of_the_tree_is_a_pickle():
    """Nor an archive of one, as torch.save writes it: weights are safetensors."""
    starts = (b"PK\x03\x04", *(bytes([0x80, protocol]) for protocol in range(2, 6)))
    suffixes = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz"}
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    if not files:
        pytest.skip("not a git checkout")
    wrong = [name_of(path) for path in files if path.is_file() and (
        path.suffix in suffixes or path.read_bytes()[:4].startswith(starts))]
    assert not wrong, wrong


def test_scripts_say_what_they_are_for_and_do_nothing_when_imported():
    wrong = []
    for path in SCRIPTS:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        wrong += [f"{name_of(path)}: no docstring"] * (not ast.get_docstring(tree))
        wrong += [f"{name_of(path)}, line {node.lineno}: work at import" for node in tree.body
                  if isinstance(node, (ast.For, ast.While, ast.With))
                  or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))]
    assert not wrong, wrong


def test_no_process_is_a_fork_of_one_that_has_threads():
    """A fork has its parent's locks without the threads that hold them, and one that is killed may keep a shared one.

    torch's DataLoader forks, too: its workers draw no bars and are not killed.
    """
    forking = {"os.fork", "multiprocessing.Process", "multiprocessing.Pool", "accelerate.debug_launcher"}
    wrong = {name_of(path): (attributes(path) | set(imported_modules(path))) & forking
             for path in (*PACKAGE, *LAB, *SCRIPTS, *TESTS)}
    assert not any(wrong.values()), {name: found for name, found in wrong.items() if found}


def test_no_code_names_a_folder_of_one_machine():
    machine_path = re.compile(r"(?<![\w.~}])/(?:root|home|Users|opt|mnt|work)" + r"/\w")
    wrong = []
    for path in code_files():
        lines = path.read_text(encoding="utf-8").splitlines()
        wrong += [f"{name_of(path)}, line {number}: {line.strip()}" for number, line in enumerate(lines, 1)
                  if machine_path.search(line)]
    assert not wrong, wrong


def code_files() -> Iterable[Path]:
    tools = [ROOT / name for name in ("setup_env.sh", "Makefile", "requirements.txt", "requirements-trainium.txt",
                                      "requirements.lock", "pyproject.toml", ".ci/run", ".ci/lock", ".ci/newest",
                                      ".ci/audit", "ScaleDown_Colab.ipynb")]
    return [*PACKAGE, *LAB, *ADAPTERS, *SCRIPTS, *TESTS, *filter(Path.is_file, tools)]


def test_no_two_files_of_the_tests_have_one_name():
    """All their folders are on the import path."""
    counted = Counter(path.name for path in TESTS if path.name not in SEVERAL_FOLDERS)
    assert not {name for name, number in counted.items() if number > 1}
