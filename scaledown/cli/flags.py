"""Flags made from configs, and configs made from flags: a default is written once, in its config.

Flags are argparse's, made here. transformers' HfArgumentParser would load transformers for every ``--help``, has no
groups and shows every name twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from scaledown.cli.parser import Parser, new_parser

GROUPS = ("data", "model", "training", "evaluation", "machine")
"""The groups of a training script's flags, in the order of its help."""
METAVARS = {int: "N", float: "X", str: "NAME"}
PATHS = {"_data": "FILE", "_file": "FILE", "_path": "FILE", "_dir": "FOLDER"}
"""What stands for the value of a flag whose name ends like this."""


def add_flags(parser: Parser, cls: type, but: Sequence[str] = (), **defaults: Any) -> None:
    """Add a group with a flag for each field of config ``cls``, except those in ``but``.

    ``defaults`` replace those of the config for this command.
    """
    # "RankingInput" becomes "ranking input", and "RerankerConfig" "reranker".
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", cls.__name__.removesuffix("Config"))
    # Annotations are texts until they are asked for like this.
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.metadata["has_flag"] and field.name not in but:
            _add_flag(parser, words.lower(), field, hints[field.name], defaults.get(field.name, field.default))


def settings_parser(description: str, usage: str, configs: Mapping[type, str], **defaults: Any) -> Parser:
    """Return the parser of a script that has too many flags to show.

    ``--help`` shows the common ones, ``--help_all`` all; ``--config`` names a file of them, which is read by
    :mod:`scaledown.training.presets`.

    Args:
        description: the script's docstring.
        usage: what can be typed behind the script's name.
        configs: each config class, with the group of those of its flags that name none.
        defaults: of this script, for fields in which it differs from its configs.
    """
    parser = new_parser(description, usage=usage, has_help_all=True)
    fields = []
    for cls, title in configs.items():
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.metadata["has_flag"]:
                fields.append((field.metadata["group"] or title, field, hints[field.name]))

    # Group by group, since the help has them in the order in which they are made.
    for group in GROUPS:
        if group == "data":
            parser.add_argument("--config", metavar="FILE", group=group, help="settings by name, in YAML or JSON, or "
                                "the config.json of a run; flags win")
        for title, field, hint in fields:
            if title == group:
                _add_flag(parser, group, field, hint, defaults.get(field.name, field.default))

    return parser


def _add_flag(parser: Parser, group: str, field: dataclasses.Field, hint: Any, default: Any) -> None:
    """Add the flag of one field to a group; its type is that of the field's annotation ``hint``."""
    kind = hint
    if isinstance(kind, types.UnionType):
        # "int | None": a flag that is not given stands for None.
        kind = next(member for member in typing.get_args(kind) if member is not type(None))

    # argparse formats helps by %, so one that is meant stands twice.
    text = field.metadata["help"].replace("%", "%%")
    if default is not None and default is not False and not text.endswith("]"):
        text += f" [{default}]"

    name, choices = f"--{field.name}", field.metadata["choices"]
    options = {"default": default, "help": text, "group": group, "is_advanced": field.metadata["is_advanced"]}
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        parser.add_argument(name, type=element, nargs="+", metavar=METAVARS[element], **options)
    elif kind is bool:
        parser.add_argument(name, action="store_true", **options)
        # The flag that turns it off is named once for all switches, at the end of the help.
        parser.add_argument(f"--no-{field.name}", dest=field.name, action="store_false", default=default, group=group,
                            help=argparse.SUPPRESS)
    elif choices:
        parser.add_argument(name, choices=choices, **options)
    else:
        parser.add_argument(name, type=kind, metavar=metavar_of(field.name, kind), **options)


def metavar_of(name: str, kind: type = str) -> str:
    """Return what stands for a flag's value in the help: FILE or FOLDER by its name, else a word for its type."""
    for ending, metavar in PATHS.items():
        if name.endswith(ending):
            return metavar
    return METAVARS[kind]


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
