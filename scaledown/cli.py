"""What every script does alike: flags from configs, and one clear message for a user's mistake."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import functools
import io
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from scaledown import progress

USER_ERROR = 2
INTERRUPTED = 130
DISK_FAULTS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EISDIR,
               errno.ENOTDIR}
"""What a disk says that is full, that the user may not write to, or that has something else at that place."""
TORCH_WRITER = "inline_container"
"""In the RuntimeError that torch raises where the disk cannot take a file of it."""


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


def positive(text: str) -> int:
    """A flag's type: a whole number above 0."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be above 0, got {number}")
    return number


def add_flags(parser: argparse.ArgumentParser, cls: type, but: Sequence[str] = (), **defaults: Any) -> None:
    """Give ``parser`` a flag for each field of config ``cls``, ``but`` for those named.

    ``defaults`` are this script's own where they differ from the config's.
    """
    hints = typing.get_type_hints(cls)
    group = parser.add_argument_group(cls.__name__)
    for field in dataclasses.fields(cls):
        if field.name in but or not field.metadata["has_flag"]:
            continue
        default = defaults.get(field.name, field.default)
        text = field.metadata["help"].replace("%", "%%")
        if default is not None and not isinstance(default, bool):
            text += f" [{default}]"
        kind = hints[field.name]
        if isinstance(kind, types.UnionType):
            kind = next(member for member in typing.get_args(kind) if member is not type(None))
        if typing.get_origin(kind) is tuple:
            group.add_argument(f"--{field.name}", type=typing.get_args(kind)[0], nargs="+", default=default, help=text)
        elif kind is bool:
            group.add_argument(f"--{field.name}", action=argparse.BooleanOptionalAction, default=default, help=text)
        else:
            group.add_argument(f"--{field.name}", type=kind, default=default, choices=field.metadata["choices"],
                               help=text)


def config_from(args: argparse.Namespace, cls: type, **overrides: Any) -> Any:
    """Build config ``cls`` from parsed flags; ``overrides`` win, and fields without a flag keep their default."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(cls) if hasattr(args, field.name)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return cls(**(values | overrides))
