"""Threads that wait give their cores to others: set before torch is imported, unless the user has set it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_layout import SCRIPTS, imported_modules, name_of

import scaledown

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def spins_of_torch(**settings: str) -> str:
    """What torch's OpenMP reads in a process that imports this package first."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS} | settings
    ended = subprocess.run([sys.executable, "-c", "import scaledown, torch"], cwd=ROOT, check=True, text=True,
                           env=environment | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True)
    [spins] = [line.split("'")[1] for line in ended.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    return spins


@pytest.mark.skipif("libgomp" not in " ".join(path.name for path in Path(torch.__file__).parent.glob("lib/*")),
                    reason="this torch has another OpenMP")
@pytest.mark.parametrize(("settings", "spins"), [({}, scaledown.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"),
                                                 ({"OMP_WAIT_POLICY": "passive"}, "0")])
def test_threads_wait_briefly_or_as_the_user_says(settings, spins):
    assert spins_of_torch(**settings) == spins


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.name != "setup.py"], ids=name_of)
def test_a_script_imports_this_package_before_any_other(path):
    others = [name for name in imported_modules(path) if name.split(".")[0] not in sys.stdlib_module_names]
    assert others[0].startswith("scaledown")
