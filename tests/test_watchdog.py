"""A test that hangs ends its process and is named, wherever it hangs, in one process and under -n."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECONDS, LONGEST_SECONDS = 1, 100
IN_A_TEST = """
def test_that_hangs():
    time.sleep(300)
"""
BEHIND_A_FAILURE = """
@pytest.fixture
def slow_to_leave():
    yield
    time.sleep(300)

def test_that_hangs(slow_to_leave):
    assert False
"""


@pytest.mark.parametrize("num_workers", ["0", "1"])
@pytest.mark.parametrize(("code", "hanging"), [(IN_A_TEST, "test_that_hangs"), (BEHIND_A_FAILURE, "slow_to_leave")],
                         ids=["in a test", "behind a failure"])
def test_a_hanging_test_ends_and_is_named(code, hanging, num_workers, tmp_path):
    (tmp_path / "test_it.py").write_text("import time\nimport pytest\n" + code)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", ".", "-p", "conftest",
               "-p", "no:cacheprovider", "-n", num_workers, "-o", f"faulthandler_timeout={SECONDS}", "test_it.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False,
                           env=os.environ | {"PYTHONPATH": str(ROOT / "tests")})
    assert ended.returncode == 1
    assert "Timeout (0:00:01)!" in ended.stderr and f"in {hanging}" in ended.stderr
    crashes = ended.stdout.count("\nworker 'gw0' crashed while running 'test_it.py::test_that_hangs'")
    # Not merely "gw1": the folder may have the name of the worker that runs this very test.
    assert crashes == int(num_workers) and "worker 'gw1'" not in ended.stdout, "it is not begun again"
    assert "replacing crashed worker" not in ended.stdout
