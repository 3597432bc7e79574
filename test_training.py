"""Check an installation: train each compressor a little.

It trains on the demo's data, tests what came out, and returns 1 if anything is wrong; it takes about two minutes.

    python test_training.py --test_both
    python test_training.py --compressor_type modernbert --device cpu
"""

from __future__ import annotations

from scaledown import cli  # first, so that Ctrl-C ends quietly from here on

# isort: split
import argparse
import sys
from collections.abc import Sequence

from scaledown.config import COMPRESSOR_TYPES


def build_parser() -> argparse.ArgumentParser:
    """Return the script's flags."""
    parser = cli.new_parser(__doc__)
    parser.add_argument("--compressor_type", choices=COMPRESSOR_TYPES, default="n_layers",
                        help="compressor to test [n_layers]")
    parser.add_argument("--test_both", action="store_true", help="test every compressor type")
    parser.add_argument("--num_examples", type=int, default=10, metavar="N", help="records to train on [10]")
    cli.add_device(parser)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Check one compressor, or all; return 1 if anything is wrong."""
    args = build_parser().parse_args(argv)
    if args.num_examples < 2:
        raise ValueError(f"--num_examples must be at least 2, got {args.num_examples}")

    # Torch takes seconds to load; a wrong flag has been reported by now.
    from scaledown.training.installation_check import run_checks

    num_checks, total_seconds, failed = 0, 0.0, []
    for compressor_type in COMPRESSOR_TYPES if args.test_both else (args.compressor_type,):
        for name, holds, seconds in run_checks(compressor_type, args.num_examples, args.device):
            # As each check ends: they take seconds.
            print(f"{compressor_type:>10}  {'ok' if holds else 'FAILED':<6}  {seconds:6.1f} s  {name}", flush=True)
            num_checks, total_seconds = num_checks + 1, total_seconds + seconds
            if not holds:
                failed.append(name)

    summary = f"{num_checks - len(failed)} of {num_checks} checks hold, in {total_seconds:.0f} s"
    print(f"{summary}; failed: {', '.join(failed)}" if failed else summary)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
