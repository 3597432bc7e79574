"""Look for a needle in a haystack: a fact in a long document.

One paragraph answers each question. It is hidden at several depths of documents of several lengths, among others.
ScaleDown splits the documents into passages and reads those that score best; beside it the generator reads the full
text, and the text cut at the longest document that the compressor reads at once. Time to the first token and memory are
measured by length. Every point is saved as it is measured, so that --resume continues a run that was killed.

    python -m scaledown.evaluation.needle --checkpoint embedded
    python -m scaledown.evaluation.needle --eval_data squad_eval.json --checkpoint smollm2 --lengths 128 512 2048 8192
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scaledown import cli, hub
from scaledown.config import AUTO, EvaluationConfig
from scaledown.data.records import read_records
from scaledown.hub.number_formats import dtype_for
from scaledown.settings import require
from scaledown.training.presets.run_settings import parse_or_resume

LENGTHS, DEPTHS = (128, 512, 2048), (0.0, 0.5, 1.0)
LONGEST_FULL_TEXT = 8192
USAGE = "[--checkpoint NAME] [--eval_data FILE] [--output_dir FOLDER] [--resume] [--FLAG VALUE ...]"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.needle", USAGE)
    cli.add_checkpoint(parser)
    cli.add_eval_data(parser, "records, one of whose documents holds the answer: the needle, hidden among documents of "
                      "other records [the demo world's]")
    parser.add_argument("--output_dir", default="./needle", metavar="FOLDER", group="data",
                        help="folder of the figures and numbers [./needle]")
    parser.add_argument("--resume", action="store_true", group="data", help="go on with the run in --output_dir")
    parser.add_argument("--overwrite", action="store_true", group="data", help="replace the run in --output_dir")

    # The points, and what is read at each.
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), metavar="N", group="needle",
                        help=f"tokens of the documents [{' '.join(map(str, LENGTHS))}]")
    parser.add_argument("--depths", type=float, nargs="+", default=list(DEPTHS), metavar="X", group="needle",
                        help="places of the needle, from 0, first, to 1, last "
                        f"[{' '.join(map('{:g}'.format, DEPTHS))}]")
    parser.add_argument("--keep_documents", type=cli.number_or_auto, metavar="N", group="needle",
                        help=f"number of passages that ScaleDown reads, or {AUTO!r} for those above the threshold "
                        f"[{AUTO!r}; without a threshold 5; without scores all]")
    parser.add_argument("--longest_full_text", type=int, default=LONGEST_FULL_TEXT, metavar="N", group="needle",
                        help="full text is measured up to this length: time and memory grow fast "
                        f"[{LONGEST_FULL_TEXT}]")
    cli.add_flags(parser, EvaluationConfig, eval_examples=20, eval_batch_size=1, timed_queries=5)
    cli.add_device(parser)
    cli.add_seed(parser, "seed of all draws")
    return parser


def checked(args: argparse.Namespace) -> argparse.Namespace:
    """Return the settings, with lengths and depths in rising order, each once.

    Raises:
        ValueError: for a length or depth that there is not; all of them together.
    """
    faults = [f"--lengths must be above 0, got {length}" for length in args.lengths if length < 1]
    faults += [f"--depths must be from 0 to 1, got {depth:g}" for depth in args.depths if not 0 <= depth <= 1]
    if args.longest_full_text < 0:
        faults.append(f"--longest_full_text must be at least 0, got {args.longest_full_text}")
    require(faults)
    args.lengths, args.depths = sorted(set(args.lengths)), sorted(set(args.depths))
    return args


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, draw, and print the table and the names of the files."""
    args = checked(parse_or_resume(build_parser(), argv))
    config, folder = cli.config_from(args, EvaluationConfig), Path(args.output_dir)
    records = None if args.eval_data is None else read_records(args.eval_data)
    hub.check_checkpoint(args.checkpoint)

    # Torch takes seconds to load; a wrong flag, file or name has been reported by now.
    from scaledown.data.storage.run_information import run_information
    from scaledown.evaluation.needle import haystack, needle_points
    from scaledown.models.model import ScaleDownModel
    from scaledown.prompt.passages import token_counter
    from scaledown.training import devices, run_folder

    device = devices.resolve_device(args.device)
    if device.type == "cpu":
        devices.keep_freed_memory()
    cli.tell(f"loading {args.checkpoint} ...")
    model = ScaleDownModel.from_pretrained(args.checkpoint, device=device, dtype=dtype_for(device))
    if model.config.reads_text:
        raise ValueError(f"--checkpoint {args.checkpoint} has no compressor (--compressor_type none), which this "
                         "command measures beside text")
    keep = needle_points.kept(model, args.keep_documents)

    longest = max(args.lengths)
    if records is None:
        records, others = haystack.demo_records(config.eval_examples, longest, args.seed)
    else:
        others = haystack.documents_of(records)
    count_tokens = token_counter(model.processor.compressor_tokenizer)
    asked = haystack.haystacks(records, others, config.eval_examples, longest, count_tokens, args.seed)

    information = run_information(args.seed, device, sys.argv, vars(args))
    # With --resume the model and the questions must be the same as before.
    information[run_folder.INPUTS] = run_folder.inputs_of_evaluation(model.config, args.checkpoint, args.eval_data,
                                                                     records)
    with run_folder.claimed(folder, information, args.overwrite, args.resume):
        if args.overwrite:
            for name in (needle_points.DEPTHS_FILE, needle_points.GROWTH_FILE):
                (folder / name).unlink(missing_ok=True)
        print(f"{args.checkpoint} on {model.device}: {len(asked)} needles; ScaleDown reads "
              f"{'all' if keep is None else keep} of the passages; results go to {folder}")
        needle_points.measure_all(needle_points.Points(model, asked, count_tokens, args, config, keep), folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
