"""Fold the adapter into the generator, for other engines.

The result is a plain Hugging Face model. Any engine that takes embeddings for a prompt can serve it: ScaleDown
compresses and makes the prompt's embeddings, the engine answers (docs/SERVING.md). With --adapter_only the result is
the adapter in peft's format, for engines that apply it to the generator themselves.

    python -m scaledown.models.merge --checkpoint embedded
    python -m scaledown.models.merge --checkpoint squad_run/checkpoints/final --output_dir merged --dtype float16
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from scaledown import cli, hub
from scaledown.files import make_folder

DTYPES = ("float32", "bfloat16", "float16")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.models.merge")
    cli.add_checkpoint(parser)
    parser.add_argument("--output_dir", default="merged_generator", metavar="FOLDER", group="data",
                        help="folder for the model, new or empty [merged_generator]")
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES, group="model",
                        help="dtype of the merged weights [bfloat16]")
    parser.add_argument("--adapter_only", action="store_true", group="model",
                        help="write the adapter by itself, in float32, and merge nothing")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Merge the generator and print the folder of the result."""
    args = build_parser().parse_args(argv)

    # Refused before the model is loaded, which takes long.
    folder = Path(args.output_dir)
    # os.path, because pathlib raises on a name that is too long.
    if os.path.exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--output_dir {folder}: is not an empty folder; give another, or delete it")
    hub.check_checkpoint(args.checkpoint)
    make_folder(folder)

    # Torch takes seconds to load, too.
    import torch

    from scaledown.models.model import ScaleDownModel

    if args.adapter_only:
        model = ScaleDownModel.from_pretrained(args.checkpoint, device="cpu", dtype="float32")
        model.save_adapter(folder)
        print(f"done: {folder}, for the generator {model.generator.config.name_or_path}")
        return 0

    # The model's dtype is that of the merged weights.
    print(f"merging the generator of {args.checkpoint} in {args.dtype}")
    ScaleDownModel.from_pretrained(args.checkpoint, device="cpu", dtype=getattr(torch, args.dtype)).merge(folder)
    print(f"done: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
