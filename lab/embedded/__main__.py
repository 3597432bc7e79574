"""Make the demo's generator again, from nothing.

A killed run goes on from its last checkpoint if it is started again. Several processes share the work on a CPU.

    python -m lab.embedded
    torchrun --nproc_per_node 2 -m lab.embedded --device cpu
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.embedded.recipe import PretrainConfig
from scaledown import cli, processes
from scaledown.files import make_folder, parse_json, write_json
from scaledown.hub import EMBEDDED_FOLDER

ROOT = Path(__file__).resolve().parents[2]
SETTINGS_FILE = "config.json"
TOKENIZER_FOLDER = "tokenizer"
MAY_CHANGE = ("steps", "eval_steps")
"""Settings that may have another value when a run is resumed."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.embedded", "[--output_dir FOLDER] [--device NAME] [--FLAG VALUE ...]")
    parser.add_argument("--work_dir", default="embedded_training", metavar="FOLDER",
                        help="folder of the log, the tokenizer and the last checkpoint [embedded_training]")
    parser.add_argument("--output_dir", default="embedded_generator", metavar="FOLDER",
                        help="folder of the finished generator, for --generator_model; to ship it, give "
                        f"{EMBEDDED_FOLDER.relative_to(ROOT)} [embedded_generator]")
    cli.add_device(parser)
    cli.add_flags(parser, PretrainConfig)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train to the last step, then write the generator."""
    args = build_parser().parse_args(argv)
    config = cli.config_from(args, PretrainConfig)
    work_dir, output_dir = Path(args.work_dir), Path(args.output_dir)

    # Only now, so that --help and mistakes need not wait for torch.
    from transformers import AutoTokenizer

    from lab.embedded.generator_trainer import GeneratorTrainer
    from lab.embedded.new_generator import build_generator
    from scaledown.training import checkpoints
    from scaledown.training.devices import keep_freed_memory, resolve_device

    device = processes.join(resolve_device(args.device))
    if device.type == "cpu":
        keep_freed_memory()
    make_folder(work_dir, "--work_dir")
    make_folder(output_dir)

    # A new run, or the one that was killed.
    last_checkpoint = checkpoints.last(work_dir)
    if last_checkpoint is None:
        processes.once(lambda: begin(work_dir, config))
    else:
        check_settings(work_dir, config)
    tokenizer = AutoTokenizer.from_pretrained(work_dir / TOKENIZER_FOLDER)
    model = build_generator(config, tokenizer).to(device)

    processes.say(f"training a generator of {model.num_parameters():,} weights for {config.steps} steps on {device}; "
                  f"log and checkpoint in {work_dir}")
    trainer = GeneratorTrainer(config, model, tokenizer, work_dir)
    trainer.train(resume_from_checkpoint=str(last_checkpoint) if last_checkpoint else None)

    if trainer.is_world_process_zero():
        # A run that ended on a level with few layers has all of them nevertheless.
        model.config.num_hidden_layers = config.num_layers
        model.half().save_pretrained(output_dir)
        tokenizer.save_pretrained(output_dir)
        print(f"done: {output_dir}")
    return 0


def begin(work_dir: Path, config: PretrainConfig) -> None:
    """Write the settings and the tokenizer of a new run."""
    from lab.embedded.new_generator import build_tokenizer, world_texts

    write_json(work_dir / SETTINGS_FILE, settings_of(config))
    build_tokenizer(world_texts(config.seed), config.vocabulary_tokens).save_pretrained(work_dir / TOKENIZER_FOLDER)


def check_settings(work_dir: Path, config: PretrainConfig) -> None:
    """Check that the run in ``work_dir`` had the same settings.

    Raises:
        ValueError: if it had not, or its settings cannot be read.
    """
    path = work_dir / SETTINGS_FILE
    try:
        earlier = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ValueError(f"{path}: missing or damaged. Give another --work_dir, or delete this one") from None

    # All of them in one message.
    differing = []
    for name, value in settings_of(config).items():
        if earlier.get(name) != value:
            differing.append(f"--{name} was {earlier.get(name)!r}, is {value!r}")
    if differing:
        raise ValueError(f"--work_dir {work_dir} holds another run: {'; '.join(differing)}. Give another folder, or "
                         "delete this one")


def settings_of(config: PretrainConfig) -> dict[str, int | float]:
    """Return the settings that a resumed run must share."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in MAY_CHANGE}


if __name__ == "__main__":
    sys.exit(main())
