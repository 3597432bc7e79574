"""The commands that README, guides and notebook tell a reader to type, each with the parser that must take it."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOK = ROOT / "ScaleDown_Colab.ipynb"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETUP = ("bash", "setup_env.sh")


class Command(NamedTuple):
    """One command as it stands in a file; ``text`` is in one line, without its comment."""

    file: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of the command proper, behind ``bash setup_env.sh`` and settings of the environment."""
        words = shlex.split(self.text)
        if tuple(words[:2]) == SETUP and len(words) > 2:
            words = words[2:]
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        return words


def commands() -> Iterator[Command]:
    """Every command in a block that is marked ``bash``, or is not marked, and in the notebook's cells."""
    for path in GUIDES:
        for language, block in FENCE.findall(path.read_text(encoding="utf-8")):
            if language in ("", "bash"):
                yield from _in_block(path, block, is_marked=bool(language))
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        lines = [line.strip()[1:] for line in cell.source.splitlines() if line.strip().startswith("!")]
        yield from (Command(NOTEBOOK.name, line.replace("{sys.executable}", "python").replace("{FLAGS}", ""))
                    for line in lines)


def _in_block(path: Path, block: str, is_marked: bool) -> Iterator[Command]:
    for line in block.replace("\\\n", " ").splitlines():
        text = re.sub(r"\s+", " ", re.sub(r"(^|\s)#.*$", "", line)).strip()
        if text and (is_marked or re.match(r"(bash setup_env\.sh|python|torchrun|accelerate)\b", text)):
            yield Command(str(path.relative_to(ROOT)), text)


def program(words: list[str]) -> tuple[str, list[str]] | None:
    """The module of this project that a command runs, and its arguments; None where it runs something else."""
    for place, word in enumerate(words):
        if word == "-m" and words[place + 1].startswith("scaledown."):
            return words[place + 1], words[place + 2:]
        if re.fullmatch(r"\w+\.py", word) and words[0] in ("python", "torchrun", "accelerate"):
            return word.removesuffix(".py"), words[place + 1:]
    return None


def parser_of(module_name: str) -> argparse.ArgumentParser:
    """The parser of a module or script of this project."""
    if (ROOT / module_name.replace(".", "/")).is_dir():
        module_name += ".__main__"
    return importlib.import_module(module_name).build_parser()
