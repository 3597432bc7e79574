"""What is installed: every requirement has a range that was tested, and requirements.lock a version inside it.

The package's metadata name the same ranges.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
COLAB = {"torch": "2.11.0", "numpy": "2.0.2", "scipy": "1.16.3", "matplotlib": "3.10.0", "PyYAML": "6.0.3",
         "tqdm": "4.67.3", "safetensors": "0.8.0"}
"""Versions of Colab's runtimes (2026-07 and 2026-08) that need not be replaced; the notebook keeps some by force."""
LEFT_TO_THE_MACHINE = {"torch", "triton", "pip"}


def read(name: str) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-r ")]


REQUIREMENTS = [*read("requirements.txt"), *read("requirements-dev.txt")]
LOCKED = {canonicalize_name(each.name): each for each in read("requirements.lock")}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_a_requirement_has_both_ends_and_the_lock_is_between_them(requirement):
    assert {each.operator for each in requirement.specifier} == {">=", "<"}
    name = canonicalize_name(requirement.name)
    if name not in LEFT_TO_THE_MACHINE:
        [locked] = LOCKED[name].specifier
        assert locked.operator == "==" and requirement.specifier.contains(locked.version)


def test_the_lock_holds_nothing_of_one_build_of_torch():
    builds = {name for name in LOCKED if name in LEFT_TO_THE_MACHINE or re.match("nvidia-|cuda-", name)}
    assert not builds and not [name for name, each in LOCKED.items() if each.url or "+" in str(each.specifier)]


def test_the_extras_are_what_the_tests_need_and_one_that_they_do_without():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert extras.keys() == {"servers", "service", "demo", "quantised", "dev"}
    assert set(map(str, read("requirements-dev.txt"))) == {
        str(Requirement(each)) for each in (*extras["servers"], *extras["service"], *extras["demo"], *extras["dev"])}
    assert "-r requirements.txt" in (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()


def test_no_requirement_is_named_twice():
    names = [canonicalize_name(each.name) for each in REQUIREMENTS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", COLAB)
def test_colabs_own_versions_are_within_the_ranges(name):
    [requirement] = [each for each in REQUIREMENTS if each.name == name]
    assert requirement.specifier.contains(COLAB[name])


def test_colabs_kernel_is_none_of_what_is_needed_to_run():
    assert not {each.name for each in read("requirements.txt")} & {"ipykernel", "ipython", "torchvision", "torchaudio"}
