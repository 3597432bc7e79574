"""The parser of every command: help that fits a screen, and messages that say what was probably meant."""

from __future__ import annotations

import argparse
import functools
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from scaledown.cli.values import meant, number, one_of, whole_number
from scaledown.settings import RETIRED, what_became_of

RENAMED = {"data": "eval_data", "records": "train_data", "num_queries": "eval_examples", "corpus": "corpus_path",
           "queries": "queries_file", "qrels": "qrels_file", "run": "run_file", "run_out": "output_run",
           "num_kept": "keep_documents"}
"""Flags of earlier versions that have another name now, with that."""
WIDEST = 110
"""Columns of a help, at most: longer lines are hard to read."""
HELP_COLUMN = 30
"""The column at which the texts of the flags begin."""
INDENT = "    "
"""Begins the lines of a docstring that are examples, and stay as they are."""


class Parser(argparse.ArgumentParser):
    """argparse's parser with groups by name, flags left to ``--help_all``, and plain words for mistakes."""

    def __init__(self, **options: Any) -> None:
        # Before argparse's own, which adds --help.
        self.flags: dict[str, argparse.Action] = {}
        self.groups: dict[str, Any] = {}
        self.hidden: dict[argparse.Action, str] = {}
        super().__init__(allow_abbrev=False, **options)

        # argparse looks a type up here, so "type=int" has our message everywhere.
        self.register("type", int, whole_number)
        self.register("type", float, number)

    def add_argument(self, *names: str, group: str | None = None, is_advanced: bool = False,
                     **options: Any) -> argparse.Action:
        """Add a flag as argparse does, into the group of this title if one is named.

        An advanced flag is left to ``--help_all``, if the parser has that.
        """
        if options.get("choices"):
            options.setdefault("type", one_of(options["choices"]))
        action = self._add(group, *names, **options)
        self.flags |= dict.fromkeys(action.option_strings, action)

        if is_advanced and "--help_all" in self.flags:
            self.hidden[action] = action.help or ""
            action.help = argparse.SUPPRESS
        return action

    def _add(self, group: str | None, *names: str, **options: Any) -> argparse.Action:
        if group is None:
            return super().add_argument(*names, **options)
        if group not in self.groups:
            self.groups[group] = self.add_argument_group(group)
        # A group looks types up in its parser's register.
        return self.groups[group].add_argument(*names, **options)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but tell a flag that is none first: a missing one may be that, mistyped."""
        words = sys.argv[1:] if args is None else list(args)
        # Behind "--" stand values alone.
        words = words[:words.index("--")] if "--" in words else words
        unknown = []
        for word in words:
            name = word.split("=")[0]
            if name.startswith("--") and name not in self.flags:
                unknown.append(self._about(name))
        if unknown:
            self.error("; ".join(unknown))
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Parse as argparse does, with our own words for what belongs to no flag."""
        parsed, left = self.parse_known_args(args, namespace)
        if left:
            self.error(f"unexpected {' '.join(left)}: a value stands behind its flag; --help shows the flags")
        return parsed

    def _about(self, name: str) -> str:
        """Return what there is to say about a flag that is none of this command."""
        plain = name.removeprefix("--").replace("-", "_")
        if f"--{RENAMED.get(plain)}" in self.flags:
            return f"{name} is now called --{RENAMED[plain]}"
        if plain in RETIRED:
            return f"{name} {what_became_of(plain)}"

        known = [flag for flag in self.flags if not flag.startswith("--no-")]
        hint = meant(name, known)
        where = "--help_all" if "--help_all" in self.flags else "--help"
        return f"unknown flag {name}: {hint}" if hint else f"unknown flag {name}; {where} shows those there are"


def new_parser(description: str, module: str | None = None, usage: str | None = None,
               has_help_all: bool = False) -> Parser:
    """Return a parser whose help begins with ``description``, a docstring with examples in it.

    Args:
        description: a command's docstring. Paragraphs are wrapped to the terminal; indented lines are examples.
        module: the name that ``python -m`` takes; None for a script.
        usage: what can be typed behind the command, for those with many flags. argparse's own lists them all, also
            before every message.
        has_help_all: whether ``--help`` leaves advanced flags to ``--help_all``.
    """
    # As argparse does: two columns less than the terminal, so that no line breaks by itself.
    width = min(shutil.get_terminal_size().columns, WIDEST) - 2
    formatter = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=HELP_COLUMN, width=width)
    parser = Parser(prog=f"python -m {module}" if module else None, description=_wrapped(description, width),
                    formatter_class=formatter)
    if usage is not None:
        parser.usage = _wrapped_usage(parser.prog, usage, width)
    if has_help_all:
        parser.add_argument("--help_all", action=_HelpAll, help="show the other flags, too, and exit")
    return parser


def _wrapped_usage(program: str, usage: str, width: int) -> str:
    """Return the usage of ``program`` in lines below one another, with each "[--flag VALUE]" in one of them."""
    lines, indent = [program], " " * len("usage:")
    for part in re.findall(r"\[[^]]*\]|\S+(?: (?!--)[A-Z_|]+)?", usage):
        if len(lines[-1]) + len(part) + len("usage: ") >= width:
            lines.append(indent)
        lines[-1] += f" {part}"
    return "\n".join(lines)


def _wrapped(docstring: str, width: int) -> str:
    """Return a docstring with its paragraphs wrapped to ``width``, and its examples as they are."""
    paragraphs = []
    for paragraph in docstring.strip().split("\n\n"):
        is_example = paragraph.startswith(INDENT)
        paragraphs.append(paragraph if is_example else textwrap.fill(" ".join(paragraph.split()), width))
    return "\n\n".join(paragraphs)


class _HelpAll(argparse.Action):
    """The flag that shows the help with the flags that ``--help`` leaves out."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        assert isinstance(parser, Parser)
        for action, text in parser.hidden.items():
            action.help = text
        parser.epilog = "A switch is turned off by --no-NAME, such as --no-enable_reranking."
        parser.print_help()
        parser.exit()
