"""Measure how robust quality is.

The same questions are answered with more documents, with the right one at other places, among documents that look like
it, with longer documents, and with fewer memory tokens, beside the generator on full text and on text cut to the same
budget. Then the command looks into the memory: which document tokens its embeddings resemble, and which words of the
vocabulary. Every point is saved as it is measured, so that --resume continues a run that was killed.

    python -m scaledown.evaluation.robustness --checkpoint embedded
    python -m scaledown.evaluation.robustness --checkpoint squad_run/checkpoints/final --eval_data squad_eval.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scaledown import cli, hub
from scaledown.config import EvaluationConfig
from scaledown.data.records import Record, read_records
from scaledown.data.world.synthetic import Difficulty, synthetic_records
from scaledown.training.presets.run_settings import parse_or_resume

EMBEDDED_WORLD = Difficulty((5, 5), (3, 6), hard_share=1.0, two_hop_share=0.0)
USAGE = "[--checkpoint NAME] [--eval_data FILE] [--output_dir FOLDER] [--resume] [--FLAG VALUE ...]"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.robustness", USAGE)
    cli.add_checkpoint(parser)
    cli.add_eval_data(parser, "records, one of whose documents holds the answer [the demo world's]")
    cli.add_long_documents(parser)
    parser.add_argument("--output_dir", default="./robustness", metavar="FOLDER", group="data",
                        help="folder of the figures and numbers [./robustness]")
    parser.add_argument("--resume", action="store_true", group="data", help="go on with the run in --output_dir")
    parser.add_argument("--overwrite", action="store_true", group="data", help="replace the run in --output_dir")
    cli.add_flags(parser, EvaluationConfig, but=("timed_queries",), eval_examples=200)
    cli.add_device(parser)
    cli.add_seed(parser, "seed of all draws")
    return parser


def load_records(args: argparse.Namespace) -> Sequence[Record]:
    """Load the records that provide the questions asked at every point."""
    if args.eval_data is not None:
        return read_records(args.eval_data)

    # More than are asked, since a record is left out unless exactly one of its documents holds the answer.
    num_records = args.eval_examples + args.eval_examples // 4 + 20
    return list(synthetic_records(num_records, args.seed, split="eval", difficulty=EMBEDDED_WORLD))


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, draw, and print the names of the files."""
    args = parse_or_resume(build_parser(), argv)
    config, folder = cli.config_from(args, EvaluationConfig), Path(args.output_dir)
    records = load_records(args)

    hub.check_checkpoint(args.checkpoint)

    # Torch takes seconds to load; a wrong flag, file or name has been reported by now.
    from scaledown.data.storage.run_information import run_information
    from scaledown.evaluation.robustness import measuring, sweeps
    from scaledown.models.model import ScaleDownModel
    from scaledown.training import devices, run_folder

    asked = sweeps.cases(records, args.eval_examples, args.seed)
    device = devices.resolve_device(args.device)
    if device.type == "cpu":
        devices.keep_freed_memory()

    cli.tell(f"loading {args.checkpoint} ...")
    model = ScaleDownModel.from_pretrained(args.checkpoint, device=device, dtype="auto")
    model.long_documents = args.long_documents
    information = run_information(args.seed, device, sys.argv, vars(args))
    # With --resume the model and the questions must be the same as before.
    information[run_folder.INPUTS] = run_folder.inputs_of_evaluation(model.config, args.checkpoint, args.eval_data,
                                                                     records)

    with run_folder.claimed(folder, information, args.overwrite, args.resume):
        if args.overwrite:
            (folder / measuring.RESULTS_FILE).unlink(missing_ok=True)
        measuring.measure_all(model, asked, config, args, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
