"""Git ignores all that the commands write: under their default names, and under those that the guides tell to type."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import guides
import pytest
from guides import GUIDES, ROOT

OUTPUT_FLAG = re.compile(r"--(output_\w+|\w+_out|work_dir|store)")
SAVED = re.compile(r"""\.save(?:_pretrained)?\(["']([^"']+)["']""")
LOG = "LOG.md"
"""Its commands are those of their day."""


def as_path(flag: str, name: str) -> str:
    """Return what git is asked about: the slash says that it is a folder, which need not exist."""
    return f"{name.rstrip('/')}/" if flag.endswith(("_dir", "store")) else name


def outputs(words: Sequence[str]) -> Iterator[str]:
    """Yield the files and folders that a command's flags name as its outputs."""
    for flag, name in zip(words, words[1:], strict=False):
        if OUTPUT_FLAG.fullmatch(flag):
            yield as_path(flag, name)


def outputs_of_guides() -> Iterator[str]:
    steps = list(guides.notebook_steps())
    for path in GUIDES:
        if path.name != LOG:
            steps += [*guides.steps(path), *guides.inline_steps(path)]
    for step in steps:
        if step.is_python:
            yield from (as_path("_dir", name) for name in SAVED.findall(step.text))
        else:
            yield from outputs(guides.words(step.text))


def default_outputs() -> Iterator[str]:
    for parser in guides.parsers():
        for action in parser._actions:
            for flag in action.option_strings:
                # An absolute path is the project's own: the demo's weights.
                if OUTPUT_FLAG.fullmatch(flag) and action.default and not Path(action.default).is_absolute():
                    yield as_path(flag, action.default.removeprefix("./"))


def not_ignored(names: list[str]) -> list[str]:
    """Return those of these paths in the project's folder that git would list as new files."""
    asked = subprocess.run(["git", "check-ignore", "--no-index", "--stdin"], cwd=ROOT, input="\n".join(names),
                           capture_output=True, text=True, check=False)
    if asked.returncode not in (0, 1):
        pytest.skip("needs git and a clone of the project")
    return sorted(set(names) - set(asked.stdout.splitlines()))


def test_git_ignores_every_output_of_the_guides_and_every_default():
    names = [*outputs_of_guides(), *default_outputs()]
    assert {"squad_run/", "smollm2_llm/", "scored.json", "checkpoints/"} <= set(names)
    # In capitals: a place that the reader chooses.
    assert not not_ignored([name for name in names if "{" not in name and not name.isupper()])


def test_git_ignores_nothing_of_the_project():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("needs git and a clone of the project")
    files = tracked.splitlines()
    assert set(not_ignored(files)) == set(files)


def test_a_name_that_git_does_not_know_is_found():
    words = guides.words("python train.py --train_data data.json --output_dir no_such_name --output_file a.json")
    assert not_ignored(list(outputs(words))) == ["no_such_name/"]
