"""What the guides say, read from their markdown: what a reader types and sees, tables of figures, links and paths."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "ScaleDown_Colab.ipynb"
READ_FIRST = ("README", "INSTALL", "QUICKTEST_GUIDE", "REAL_DATA_TRAINING", "DATASET_PREPARATION", "SERVING")
GUIDES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "lab" / "LOG.md"],
                key=lambda path: (READ_FIRST.index(path.stem) if path.stem in READ_FIRST else len(READ_FIRST), path))
"""In the order in which a reader who has just come takes them."""
SET_UP = re.compile(r"^bash setup_env\.sh (?!--vllm)(--models )?")
PROGRAMS = re.compile(r"(?:[A-Z_]+=\S* )*(?:bash setup_env\.sh|python|torchrun|accelerate launch|pytest|transformers|"
                      r"make|pip|time)\b")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PART = re.compile(r"^(?:```\w*\n.*?^```|<!--.*?-->|[^\n]+(?:\n(?!```)[^\n]+)*)$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")
_FIGURE = re.compile(r"\d\.\d|\d+(?:\.\d+)? ?(?:x|%|ms|s|minutes?|seconds?|hours?|GFLOPs|MiB|GB)\b")


class Step(NamedTuple):
    """One thing that a reader types.

    Attributes:
        text: a command in one line, without its comment and the set-up before it; or a block of Python.
        output: the ``text`` block that stands behind it in the guide.
    """

    file: str
    text: str
    is_python: bool = False
    output: str = ""

    @property
    def name(self) -> str:
        """For messages and tests' names."""
        return f"{self.file}: {self.text.strip().splitlines()[-1] if self.is_python else self.text}"


def parts(path: Path) -> list[str]:
    """A guide's blocks, comments, tables and paragraphs."""
    return _PART.findall(path.read_text(encoding="utf-8"))


def steps(path: Path, as_typed: bool = False) -> Iterator[Step]:
    """What a guide has its reader type, in order.

    That is each line of a block that is marked ``bash`` or begins with a program, and each ``python`` block. The
    set-up before a command is left out, unless it is wanted ``as_typed``.
    """
    texts = parts(path)
    for place, text in enumerate(texts):
        fence = FENCE.fullmatch(text)
        if not fence:
            continue
        language, inside = fence.groups()
        found = ([inside] if language == "python" else [] if language not in ("", "bash") else
                 [line for line in _lines(inside) if language or PROGRAMS.match(line)])
        for number, each in enumerate(found, 1):
            output = _output(texts[place + 1:]) if number == len(found) else ""
            keeps_all = as_typed or language == "python"
            yield Step(path.name, each if keeps_all else SET_UP.sub("", each),
                       language == "python", output)


def _output(following: list[str]) -> str:
    """The ``text`` block that comes next, or behind one paragraph that ends in a colon."""
    if following and following[0].endswith(":"):
        following = following[1:]
    fence = FENCE.fullmatch(following[0]) if following else None
    return fence[2] if fence and fence[1] == "text" else ""


def _lines(block: str) -> list[str]:
    lines = [re.sub(r"(^|\s)#.*$", "", line) for line in block.replace("\\\n", " ").splitlines()]
    lines = [" ".join(line.split()) for line in lines]
    return [line for line in lines if line]


def notebook_steps() -> Iterator[Step]:
    """The notebook's shell commands."""
    # Here, because a first hour begins without any package.
    import nbformat

    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        for line in _lines(cell.source):
            if line.startswith("!"):
                yield Step(NOTEBOOK.name, line[1:].replace("{sys.executable}", "python").replace("{FLAGS}", ""))


def inline_steps(path: Path) -> Iterator[Step]:
    """Whole commands between backticks in a guide's text; those with placeholders in capitals are whole, too."""
    for code in inline_code(path):
        text = SET_UP.sub("", " ".join(code.split()).removeprefix("time "))
        if text.startswith(("python ", "torchrun ")) and "..." not in text:
            yield Step(path.name, text)


def inline_code(path: Path) -> list[str]:
    """What a guide has between backticks outside its blocks."""
    return _INLINE.findall(prose(path))


def prose(path: Path) -> str:
    """A guide without its blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def words(command: str) -> list[str]:
    """A command's words, behind settings of the environment."""
    found = shlex.split(command)
    while found and re.fullmatch(r"[A-Z_]+=.*", found[0]):
        found = found[1:]
    return found


def program(command: str) -> tuple[str, list[str]] | None:
    """The module of this project that a command runs, by whatever launcher, and its arguments; None for any other."""
    found = words(command)
    for place, word in enumerate(found):
        if word == "-m" and found[place + 1].split(".")[0] in ("scaledown", "lab"):
            return found[place + 1], found[place + 2:]
        if re.fullmatch(r"\w+\.py", word) and found[0] in ("python", "torchrun", "accelerate"):
            return word.removesuffix(".py"), found[place + 1:]
    return None


def module(name: str) -> Any:
    """A module or script of this project, which has ``build_parser`` and ``main``."""
    return importlib.import_module(f"{name}.__main__" if (ROOT / name.replace(".", "/")).is_dir() else name)


def command_names() -> Iterator[str]:
    """Yield the name of every script and module of this project that is a command, as :func:`module` takes it."""
    for path in [*ROOT.glob("*.py"), *(ROOT / "scaledown").rglob("*.py"), *(ROOT / "lab").rglob("*.py")]:
        if "def build_parser" in path.read_text(encoding="utf-8"):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of every command."""
    for name in command_names():
        yield module(name).build_parser()


def figures_without_source(path: Path, is_log: bool) -> Iterator[str]:
    """The heading and first line of each table with figures that does not say where they come from.

    A source is a command, or a word that says that they are the paper's, an estimate, or nothing that was measured. It
    stands in the table, in the two paragraphs before it or in the one behind it; in a log, anywhere in the section.
    """
    texts = parts(path)
    headings = [place for place, text in enumerate(texts) if text.startswith("#")] + [len(texts)]
    for place, table in enumerate(texts):
        if not (table.startswith("|") and _FIGURE.search(_INLINE.sub("", table))):
            continue
        start = max((heading for heading in headings if heading < place), default=0)
        near = texts[start:min(heading for heading in headings if heading > place)] if is_log else (
            texts[max(0, place - 2):place + 2])
        if not any(map(_is_source, near)):
            yield f"{texts[start]}: {table.splitlines()[0]}"


def _is_source(text: str) -> bool:
    fence = FENCE.fullmatch(text)
    codes = _lines(fence[2]) if fence else _INLINE.findall(text)
    return (any(PROGRAMS.match(code) and " " in code for code in codes)
            or re.search(r"\b(estimates?|the paper|not measured)\b", text) is not None)
