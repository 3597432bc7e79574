"""What is installed: every requirement has a range that was tested, and requirements.lock a version inside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LEFT_TO_THE_MACHINE = {"torch", "triton", "pip"}


def read(name: str) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


REQUIREMENTS = read("requirements.txt")
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
