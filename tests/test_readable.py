"""Holds the page readable: comments in long functions, one loop at a time, one name for one thing, plain docstrings."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = [*sorted(ROOT.glob("*.py"))]
for _folder in ("scaledown", "lab", "integrations"):
    FILES += sorted((ROOT / _folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
TREES_OF_TESTS = {path: ast.parse(path.read_text(encoding="utf-8")) for path in TESTS}

LONG_FUNCTION = 12
"""Lines of code, from which on a function needs a comment."""
MOST_LINES_OF_A_FILE = 400
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
SHARED_MODULE_NAMES = {"__init__", "__main__"}
QUESTION_WORDS = re.compile(r"(What|Whether|How|Where|Who)\b")


def place_of(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def comment_lines(path: Path) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


def code_lines(path: Path, function: ast.FunctionDef) -> set[int]:
    """Return the numbers of a function's lines below its signature that are neither docstring nor blank."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if not body:
        return set()
    lines = path.read_text(encoding="utf-8").splitlines()
    return {number for number in range(body[0].lineno, function.end_lineno + 1) if lines[number - 1].strip()}


def test_long_functions_have_a_comment() -> None:
    bare = []
    for path, tree in TREES.items():
        commented = comment_lines(path)
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef):
                continue
            # A comment may stand before the first statement, behind the docstring or the signature.
            whole = set(range(node.lineno, node.end_lineno + 1))
            if len(code_lines(path, node)) > LONG_FUNCTION and not whole & commented:
                bare.append(f"{place_of(path, node)} {node.name}")
    assert not bare, bare


def test_comprehensions_have_one_loop() -> None:
    nested = []
    for path, tree in (TREES | TREES_OF_TESTS).items():
        for node in ast.walk(tree):
            if not isinstance(node, COMPREHENSIONS):
                continue
            holds_another = any(isinstance(inner, COMPREHENSIONS) for inner in ast.walk(node) if inner is not node)
            if holds_another or len(node.generators) > 1:
                nested.append(place_of(path, node))
    assert not nested, nested


def test_no_two_modules_and_no_two_classes_share_a_name() -> None:
    modules, classes = defaultdict(list), defaultdict(list)
    for path, tree in TREES.items():
        if path.stem not in SHARED_MODULE_NAMES:
            modules[path.stem].append(str(path.relative_to(ROOT)))
        for node in tree.body:
            # Private ones are known in their file alone.
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(place_of(path, node))
    repeated = [places for places in (*modules.values(), *classes.values()) if len(places) > 1]
    assert not repeated, repeated


def test_docstrings_say_what_is_done() -> None:
    asking = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                docstring = ast.get_docstring(node) or ""
                if QUESTION_WORDS.match(docstring):
                    asking.append(f"{path.relative_to(ROOT)}: {docstring.splitlines()[0]}")
    assert not asking, asking


def test_files_stay_small() -> None:
    large = {str(path.relative_to(ROOT)): number for path in FILES
             if (number := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES_OF_A_FILE}
    assert not large, large
