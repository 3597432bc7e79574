"""Command lines: flags made from configs, and one clear message for a user's mistake.

Flags are argparse's, made here. transformers' HfArgumentParser would load transformers for every ``--help``, has no
groups and shows every name twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import functools
import io
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scaledown import progress

USER_ERROR = 2
INTERRUPTED = 130
DISK_FAULTS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EISDIR,
               errno.ENOTDIR}
"""Errors of a disk that is full, that the user may not write to, or that has something else at that place."""
TORCH_WRITER = "inline_container"
"""Named in the RuntimeError that torch raises if the disk cannot take a file."""
GROUPS = ("data", "model", "training", "evaluation", "machine")
"""The groups of a training script's flags, in the order of its help."""
USAGE = "%(prog)s [--FLAG VALUE ...]"
"""For commands with many flags: argparse would list them all, also before every message."""
METAVARS = {int: "N", float: "X", str: "NAME"}


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[[Sequence[str] | None], int]:
    """Decorate a script's ``main``: a ``ValueError`` (the user's mistake) becomes one message and exit code 2.

    So does a disk that cannot be written to; any other fault is ours and keeps its traceback. Standard output takes
    any text, and progress bars are lines if standard error is no terminal.
    """

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # As on standard error: a character that the encoding lacks, or half of one, is no reason to stop.
            sys.stdout.reconfigure(errors="backslashreplace")

        try:
            with progress.as_lines():
                return main(argv)
        except ValueError as fault:
            print(f"error: {fault}", file=sys.stderr)
            return USER_ERROR
        except OSError as fault:
            if fault.errno not in DISK_FAULTS:
                raise
            print(f"error: {fault.filename or 'the disk'}: {fault.strerror}", file=sys.stderr)
            return USER_ERROR
        except RuntimeError as fault:
            if TORCH_WRITER not in str(fault):
                raise
            print("error: a checkpoint cannot be written: the disk is full or may not be written to. Mend that; "
                  "--resume goes on from the last checkpoint", file=sys.stderr)
            return USER_ERROR
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            return INTERRUPTED

    return guarded


def new_parser(description: str | None, module: str | None = None) -> argparse.ArgumentParser:
    """Return a parser that shows ``description``, a docstring, with its own line breaks.

    ``module`` is the name that ``python -m`` takes; None for a script.
    """
    return argparse.ArgumentParser(
        prog=f"python -m {module}" if module else None, description=description,
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=32))


def positive(text: str) -> int:
    """Convert a flag's value to a whole number above 0."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be above 0, got {number}")
    return number


def add_flags(parser: argparse.ArgumentParser, cls: type, but: Sequence[str] = (), **defaults: Any) -> None:
    """Add a group with a flag for each field of config ``cls``, except those in ``but``.

    ``defaults`` replace those of the config for this command.
    """
    # "RankingInput" becomes "ranking input", and "RerankerConfig" "reranker".
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", cls.__name__.removesuffix("Config"))
    group = parser.add_argument_group(words.lower())

    # Annotations are texts until they are asked for like this.
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.metadata["has_flag"] and field.name not in but:
            _add_flag(group, field, hints[field.name], defaults.get(field.name, field.default))


def settings_parser(description: str | None, configs: Mapping[type, str], **defaults: Any) -> argparse.ArgumentParser:
    """Return the parser of a script that has too many flags to show.

    ``--help`` shows the common ones, ``--help_all`` all; ``--config`` names a file of them, which is read by
    :mod:`scaledown.training.presets`.

    Args:
        description: the script's docstring.
        configs: each config class, with the group of those of its flags that name none.
        defaults: of this script, for fields in which it differs from its configs.
    """
    parser = new_parser(description)
    parser.usage = USAGE
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    groups["data"].add_argument("--config", metavar="FILE", help="settings in YAML or JSON, named as the flags; or "
                                "the config.json of a run. Flags win")

    # The help that --help_all gives back to the flags that have none in --help.
    hidden: dict[argparse.Action, str] = {}
    for cls, title in configs.items():
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if not field.metadata["has_flag"]:
                continue
            group = groups[field.metadata["group"] or title]
            action = _add_flag(group, field, hints[field.name], defaults.get(field.name, field.default))
            if field.metadata["is_advanced"]:
                hidden[action] = action.help or ""
                action.help = argparse.SUPPRESS

    parser.add_argument("--help_all", action=_HelpAll, hidden=hidden, help=f"show {len(hidden)} more flags, and exit")
    parser.epilog = "A switch is turned off by --no-NAME, such as --no-enable_reranking."
    return parser


class _HelpAll(argparse.Action):
    """The flag that shows the help with the flags that ``--help`` leaves out."""

    def __init__(self, option_strings: Sequence[str], dest: str, hidden: Mapping[argparse.Action, str],
                 help: str) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)
        self.hidden = hidden

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        for action, text in self.hidden.items():
            action.help = text
        parser.print_help()
        parser.exit()


def _add_flag(group: Any, field: dataclasses.Field, hint: Any, default: Any) -> argparse.Action:
    """Add the flag of one field to a group; its type is that of the field's annotation ``hint``."""
    kind = hint
    if isinstance(kind, types.UnionType):
        # "int | None": a flag that is not given stands for None.
        kind = next(member for member in typing.get_args(kind) if member is not type(None))

    name, choices = f"--{field.name}", field.metadata["choices"]
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        action = group.add_argument(name, type=element, nargs="+", default=default, metavar=METAVARS[element])
    elif kind is bool:
        # The flag that turns it off is named once for all switches, at the end of the help.
        action = group.add_argument(name, action="store_true", default=default)
        group.add_argument(f"--no-{field.name}", dest=field.name, action="store_false", default=default,
                           help=argparse.SUPPRESS)
    else:
        action = group.add_argument(name, type=kind, default=default, choices=choices,
                                    metavar=None if choices else METAVARS[kind])

    # argparse formats helps by %, so one that is meant stands twice.
    action.help = field.metadata["help"].replace("%", "%%")
    if default is not None and default is not False and not action.help.endswith("]"):
        action.help += f" [{default}]"
    return action


def given(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> dict[str, Any]:
    """Return the values of the flags that are on the command line, without any defaults."""
    # argparse sets no default for a name that the namespace has already.
    unset = object()
    names = vars(parser.parse_args([]))
    args = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, unset)))
    return {name: value for name, value in vars(args).items() if value is not unset}


def config_from(args: argparse.Namespace, cls: type, **overrides: Any) -> Any:
    """Build config ``cls`` from parsed flags; ``overrides`` win, and fields without a flag keep their default."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(cls) if hasattr(args, field.name)}
    # Flags with several values give lists, and configs hold tuples.
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return cls(**(values | overrides))
