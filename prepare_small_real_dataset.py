"""Make records of a real QA dataset, in two halves.

Each question comes with its gold passages among hard negatives. The evaluation half goes to X_eval.json beside X.json.

    python prepare_small_real_dataset.py --dataset squad --num_examples 500
    python prepare_small_real_dataset.py --dataset hotpot_qa --source hotpot_dev_distractor_v1.json
"""

from __future__ import annotations

from scaledown import cli, files, hub  # first, so that Ctrl-C ends quietly from here on

# isort: split
import argparse
import sys
from collections.abc import Sequence

from scaledown.config import EMBEDDED
from scaledown.data.qa.datasets import QADatasetConfig, mixed, prepare, require_source
from scaledown.data.qa.preparation_summary import describe_left_out, describe_records, describe_source
from scaledown.data.records import eval_path, write_records_together
from scaledown.prompt.passages import token_counter

DEMO_TOKENS = (", the demo's generator; real models need about half as many, so name the one that you train "
               "(--generator_model) for passages as long as it can read")


def build_parser() -> argparse.ArgumentParser:
    """Return the script's flags."""
    parser = cli.new_parser(__doc__)
    cli.add_flags(parser, QADatasetConfig)
    parser.add_argument("--output_file", default="small_real_dataset.json", metavar="FILE",
                        help="training records [small_real_dataset.json]")
    parser.add_argument("--generator_model", default=EMBEDDED, metavar="NAME",
                        help="model whose tokenizer counts the tokens of a passage: a Hub id, a local folder, or "
                             f"'embedded' [{EMBEDDED}]")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare both halves, write them, and describe them."""
    args = build_parser().parse_args(argv)
    config = cli.config_from(args, QADatasetConfig)
    evaluation_path = eval_path(args.output_file)
    print(f"{config.dataset}: {config.num_examples} training and {config.num_eval_examples} evaluation records of "
          f"{config.num_documents} documents, from {config.source or 'the Hub'} ({config.split})")

    # A source that cannot be had, or an output that cannot be written, is reported within seconds.
    require_source(config)
    training_path = files.output_file(args.output_file)
    count_tokens = token_counter(hub.load_tokenizer(args.generator_model))
    datasets = prepare(config, count_tokens)
    for dataset in datasets:
        print(describe_source(dataset))

    training, evaluation = mixed(datasets, config.seed)
    write_records_together({training_path: training, evaluation_path: evaluation})

    # A half may be short of what was asked for; then it is said why.
    is_short = False
    for name, path, records, number in (("training", training_path, training, config.num_examples),
                                        ("evaluation", evaluation_path, evaluation, config.num_eval_examples)):
        text = f"{name}: {path}: {describe_records(records, config.num_documents, count_tokens)}"
        if len(records) < number:
            is_short, text = True, f"{text}; {number} were asked for"
        print(text)
    print(f"counted in tokens of {args.generator_model}" + (DEMO_TOKENS if args.generator_model == EMBEDDED else ""))
    if is_short:
        print(f"no more of the questions that were read can be used{describe_left_out(datasets)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
