"""Check a new GPU: is everything right there, and how fast?

A stage that fails says so, and the next one runs: the machine, the CPU's answers, the CPU's training, attention of new
shapes, packed attention, answers and training steps at the shape of a model of 7 billion weights, and the demo trained
for real. It needs no network, and can write a table.

    python -m lab.gpu_check --table_file gpu_check.md
    python -m lab.gpu_check --rehearse

`bash lab/gpu_check.sh` is the same on a machine without an environment of its own.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import sys
from collections.abc import Sequence

from scaledown import cli, files

ROUNDS = 3
STAGES = ("machine", "answers", "training", "attention", "varlen", "speed", "memory", "demo")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.gpu_check", "[--rehearse] [--expected] [--stages NAME ...]")
    parser.add_argument("--rehearse", action="store_true",
                        help="run everything on the CPU in small shapes; the times mean nothing")
    parser.add_argument("--expected", action="store_true",
                        help="print the times that arithmetic expects of an H200, and run nothing")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, metavar="NAME",
                        help=f"some of them: {', '.join(STAGES)} [all]")
    parser.add_argument("--minutes", type=cli.positive, default=9, metavar="N",
                        help="begin no stage after this time [9]")
    parser.add_argument("--table_file", metavar="FILE", help="write what was found there, as a Markdown table")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages; return 1 if one of them failed."""
    args = build_parser().parse_args(argv)
    table_file = files.output_file(args.table_file, "--table_file")

    # Torch takes seconds to load; a mistyped flag has been reported by now.
    if args.expected:
        from lab.gpu_check import expected

        print(f"milliseconds of an H200 at Mistral-7B's shape; estimates, not measured\n\n{expected.markdown()}")
        return 0

    import torch

    from lab.gpu_check import correctness, demo_training, hardware, large_model
    from lab.gpu_check.report import Check

    if not (args.rehearse or torch.cuda.is_available()):
        raise ValueError("torch finds no GPU here; --rehearse runs everything on the CPU, in small shapes")
    device = torch.device("cpu" if args.rehearse else "cuda")
    check = Check(device, args.rehearse, 1 if args.rehearse else ROUNDS, 60 * args.minutes)
    work = {"machine": hardware.machine, "answers": correctness.answers, "training": correctness.training,
            "attention": hardware.attention_shapes, "varlen": hardware.varlen, "speed": large_model.answering,
            "memory": large_model.training_step, "demo": demo_training.trained}

    for name in args.stages:
        if not check.has_time():
            check.add(name, "left out", f"{args.minutes} minutes are over")
            continue
        with check.stage(name):
            work[name](check)
        # A stage's models are not to be in the way of the next one's.
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()

    if table_file:
        what = "Rehearsal on a CPU; the times mean nothing." if args.rehearse else "GPU check."
        check.save(table_file, f"{what} {datetime.date.today()}, `python -m lab.gpu_check`.")
        print(f"written: {table_file}")
    print(f"failed: {', '.join(check.failed)}" if check.failed else "no stage failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
