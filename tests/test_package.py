"""The package that pip builds: it holds all of scaledown/ and nothing else, and works from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import scaledown

ROOT = Path(__file__).resolve().parents[1]
ANSWER = """
from scaledown import ScaleDownModel
model = ScaleDownModel.from_pretrained("embedded")
print(model.answer(["Where is Fenoni Works based?"], [["Fenoni Works sells clocks. The firm is based in Kelhaven."]]))
"""


def tracked(folder: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", folder], cwd=ROOT,
                            capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs git and a clone of the project")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: setuptools leaves folders beside its setup.py."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheels")
    for name in tracked("."):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, capture_output=True)
    [path] = out.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel):
    inside = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert wheel.name == f"scaledown-{scaledown.__version__}-py3-none-any.whl"
    assert sorted(inside) == sorted(tracked("scaledown"))


@pytest.mark.slow
def test_the_citation_is_of_this_version_and_of_the_papers_method():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert citation["version"] == scaledown.__version__
    paper, = citation["references"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert paper["title"] in readme and paper["journal"] in readme
    assert all(author["family-names"] in readme for author in paper["authors"])


def test_the_wheel_names_what_is_to_be_installed(wheel):
    archive = zipfile.ZipFile(wheel)
    [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    lines = archive.read(metadata).decode().splitlines()
    assert "Requires-Python: >=3.11" in lines and "License-Expression: Apache-2.0" in lines
    needed = [line for line in lines if line.startswith("Requires-Dist: ")]
    assert any(line.startswith("Requires-Dist: torch<3,>=") for line in needed)
    assert any("faiss-cpu" in line and 'extra == "servers"' in line for line in needed)


@pytest.mark.slow
def test_the_demo_answers_from_another_folder(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    ended = subprocess.run([sys.executable, "-c", ANSWER], cwd=tmp_path, capture_output=True, text=True, check=False,
                           env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")})
    assert ended.stdout.strip() == "['Kelhaven']", ended.stderr
