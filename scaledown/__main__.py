"""List the commands of the project.

    python -m scaledown
    python -m scaledown.evaluation.cost --help
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scaledown import cli
from scaledown.cli import commands
from scaledown.cli.interrupts import ROOT


def build_parser() -> argparse.ArgumentParser:
    """Return the command's flags: none but --help."""
    return cli.new_parser(__doc__, "scaledown")


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Print each command with the first line of its docstring, group by group."""
    build_parser().parse_args(argv)
    print("The commands of ScaleDown; each has --help.")

    for title, names in commands.COMMANDS.items():
        print(f"\n{title}:")
        for name in names:
            # An installed package has no scripts and no lab beside it.
            if text := commands.summary(name, ROOT):
                print(f"  {commands.typed(name):<48} {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
