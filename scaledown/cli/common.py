"""Flags that several commands have, with one name and one meaning."""

from __future__ import annotations

from typing import Any

from scaledown.cli.flags import metavar_of
from scaledown.cli.parser import Parser
from scaledown.cli.values import seed
from scaledown.config import (
    DEVICES,
    DTYPES,
    EMBEDDED,
    EMBEDDED_MODERNBERT,
    LONG_DOCUMENTS,
    SMOLLM2,
    SPLIT,
    TrainingConfig,
)

CHECKPOINT = ("a folder that training wrote, a Hub id, or one that ships: "
              f"{EMBEDDED}, {EMBEDDED_MODERNBERT} or {SMOLLM2}")


def add_checkpoint(parser: Parser, **options: Any) -> None:
    """Add ``--checkpoint``; the shipped one is the default, unless it is required."""
    if options.get("required"):
        text = CHECKPOINT
    else:
        text = f"{CHECKPOINT} [{EMBEDDED}]"
    parser.add_argument("--checkpoint", metavar="NAME", group="data",
                        **({"default": EMBEDDED, "help": text} | options))


def add_eval_data(parser: Parser, text: str) -> None:
    """Add ``--eval_data``, described by ``text``."""
    parser.add_argument("--eval_data", metavar=metavar_of("eval_data"), group="data", help=text)


def add_long_documents(parser: Parser) -> None:
    """Add ``--long_documents``."""
    parser.add_argument("--long_documents", default=SPLIT, choices=LONG_DOCUMENTS, group="data",
                        help=f"documents too long to be read at once become passages, or are cut [{SPLIT}]")


def add_output_file(parser: Parser) -> None:
    """Add ``--output_file``."""
    parser.add_argument("--output_file", metavar="FILE", group="data", help="write the figures there, as JSON")


def add_device(parser: Parser) -> None:
    """Add ``--device``."""
    parser.add_argument("--device", default="auto", choices=DEVICES, group="machine",
                        help="device to run on [the fastest there is]")


def add_dtype(parser: Parser) -> None:
    """Add ``--dtype``, for commands that load a model to answer or to score."""
    parser.add_argument("--dtype", default="auto", choices=("auto", *DTYPES), group="machine",
                        help="number format of the arithmetic [the device's]")


def add_seed(parser: Parser, text: str) -> None:
    """Add ``--seed``; ``text`` is its help."""
    parser.add_argument("--seed", type=seed, default=TrainingConfig.seed, metavar="N", group="machine",
                        help=f"{text} [{TrainingConfig.seed}]")
