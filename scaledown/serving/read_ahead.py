"""Read documents ahead of questions, into a store on disk.

A checkpoint that was trained with --input_order document_first reads a document the same way whatever is asked later.
A service that opens the store then reads only the question. With --memory documents are compressed without a query, for
a checkpoint that was trained with --query_dropout: the store is small, and a service compresses nothing. Documents that
are in the store are not read again, so a command that was stopped is typed again; started several times at once, the
processes share the work.

    python -m scaledown.serving.read_ahead --checkpoint smollm2 --corpus records.json --store town --max_gib 50
    python -m scaledown.serving.read_ahead --checkpoint run/final --corpus passages.jsonl --store town --memory
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scaledown import cli, hub
from scaledown.models.serving.disk.store_index import INT8, NUMBER_FORMATS, check_folder
from scaledown.progress import Bar
from scaledown.serving.corpus_documents import CorpusDocuments, open_documents
from scaledown.settings import positive, require

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel
    from scaledown.models.serving.disk.disk_documents import DiskDocuments

GIBIBYTE, MEBIBYTE = 2**30, 2**20


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.serving.read_ahead",
                            "--checkpoint NAME --corpus FILE --store FOLDER [--FLAG VALUE ...]")
    # No default: the demo's checkpoint reads the query first.
    cli.add_checkpoint(parser, required=True)
    parser.add_argument("--corpus", required=True, metavar="FILE", group="data",
                        help="its documents are read: records, JSONL of {id, title, text}, kilt_knowledgesource.json, "
                             "or a folder with such a corpus, or of .txt files")
    parser.add_argument("--store", required=True, metavar="FOLDER", group="data",
                        help="folder of the store, made if there is none")
    parser.add_argument("--memory", action="store_true", group="data",
                        help="store memory without a query instead of keys and values")
    parser.add_argument("--max_gib", type=float, metavar="X", group="data",
                        help="largest size of the store in GiB: beyond it the documents that were used longest ago "
                             "leave [as it was, at first no limit]")
    parser.add_argument("--number_format", choices=NUMBER_FORMATS, group="data",
                        help="float16, or int8 with half the size, of keys and values alone [as it was, at first "
                             "float16]")
    parser.add_argument("--batch_size", type=int, default=32, metavar="N", group="machine",
                        help="documents at a time [32]")
    cli.add_device(parser)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Fill the store, and print its place and size."""
    args = build_parser().parse_args(argv)
    require(positive(args, "batch_size", "max_gib"))
    max_bytes = None if args.max_gib is None else int(args.max_gib * GIBIBYTE)
    if max_bytes == 0:
        raise ValueError(f"--max_gib {args.max_gib}: less than a byte; give the store's largest size in GiB")
    check_folder(Path(args.store), "--store ")
    hub.check_checkpoint(args.checkpoint)
    check_contents(args)
    documents = open_documents(args.corpus, "--corpus")

    # Only now, so that --help and mistakes need not wait for torch.
    from scaledown import ScaleDownModel
    from scaledown.models.serving.disk.disk_store import DiskStore
    from scaledown.models.serving.disk.memory_store import MemoryStore
    from scaledown.training.devices import resolve_device

    # A store that cannot be used is told before the model is loaded, which takes long.
    if args.memory:
        store = MemoryStore(args.store, max_bytes)
    else:
        store = DiskStore(args.store, max_bytes, args.number_format)
    try:
        cli.tell(f"loading {args.checkpoint} ...")
        model = ScaleDownModel.from_pretrained(args.checkpoint, device=resolve_device(args.device))
        num_read, num_there = fill(model, store, documents, args.batch_size)
        tell_faults(documents)
        if not num_read + num_there:
            raise ValueError(f"--corpus {args.corpus}: not one document in it")
        print(f"read {num_read:,} documents; {num_there:,} were in the store before, or come twice")
        print(f"store: {args.store} ({len(store):,} documents, {store.num_bytes / MEBIBYTE:,.1f} MiB, "
              f"{store.number_format})")
    finally:
        store.close()
    return 0


def check_contents(args: argparse.Namespace) -> None:
    """Refuse what a checkpoint on this disk cannot read ahead, or a store of memory cannot hold.

    Raises:
        ValueError: if it is that.
    """
    if args.memory and args.number_format == INT8:
        raise ValueError(f"--number_format {INT8} is for keys and values; --memory is stored as float16 numbers")
    if not args.memory:
        check_order(args.checkpoint, "; or store memory, with --memory, of a model trained with --query_dropout")


def check_order(name: str, advice: str = "") -> None:
    """Refuse a checkpoint that reads the query first, so that keys and values cannot be read ahead.

    Raises:
        ValueError: if it does; ``advice`` ends the message.
    """
    config = hub.checkpoint_config(name)
    if config is not None and config.input_order != "document_first":
        raise ValueError(f"--checkpoint {name}: reads the query before the document, so keys and values cannot be "
                         "read ahead; train one with --input_order document_first (of those that ship, smollm2 was)"
                         + advice)


def fill(model: ScaleDownModel, store: DiskDocuments, documents: CorpusDocuments, batch_size: int) -> tuple[int, int]:
    """Read all documents that are not in ``store``; return the number of those read, and of the others.

    Raises:
        ValueError: if the store is another checkpoint's, or too small for the documents.
    """
    from scaledown.models.serving.compressing import reader_for
    from scaledown.models.serving.inputs.long_documents import texts_of_passages
    from scaledown.models.serving.inputs.user_input import read_documents
    from scaledown.prompt.passages import token_counter

    reader, started = reader_for(model, store), time.time()
    store.check(reader)
    count_tokens = token_counter(model.processor.compressor_tokenizer)
    num_read = num_all = 0

    # First what no other process is reading; then, if others were, what these have left, as when they were killed.
    for takes_all in (False, True):
        num_all = num_left = 0
        with Bar(total=documents.size, unit=f" {documents.unit}", unit_scale=True, desc="reading documents") as bar:
            for found, size in documents.batches(count_tokens, model.config.document_tokens):
                # The passages that compress reads of them, with their titles in front.
                texts = texts_of_passages(model.processor, read_documents(found), model.long_documents_or(None))
                keys = model.processor.document_keys(texts)
                wanted = keys if takes_all else store.claim(keys)
                with model.inference():
                    num_read += store.read(wanted, reader, batch_size)
                check_room(store, started, num_read)

                num_all += len(keys)
                num_left += len(store.missing(keys))
                bar.set_postfix_str(f"{num_read:,} read", refresh=False)
                bar.update(size)
        if not num_left:
            break
    return num_read, num_all - num_read


def check_room(store: DiskDocuments, started: float, num_read: int) -> None:
    """Stop when documents leave that were read or found since ``started``: it would go on for ever.

    Raises:
        ValueError: if they do.
    """
    if store.latest_removed >= started:
        raise ValueError(f"--store {store.folder}: full; it holds {len(store):,} documents in "
                         f"{store.num_bytes / GIBIBYTE:.3g} GiB, and after {num_read:,} more documents of this corpus "
                         "the first of them would leave again: raise --max_gib, give fewer documents, or store less of "
                         "each in a new folder (--number_format int8, --memory)")


def tell_faults(documents: CorpusDocuments) -> None:
    """Print which lines of the corpus were not read, if there are any."""
    if documents.num_faults:
        print(f"{documents.path}: {documents.num_faults:,} lines were not read:", file=sys.stderr)
        for fault in documents.faults:
            print(f"  {fault}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
