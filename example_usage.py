"""The shortest true story: load, compress, answer.

The model answers questions from the memory of three documents, and from their full text.

    python example_usage.py
    python example_usage.py --checkpoint training_with_eval/checkpoints/final
"""

from __future__ import annotations

from scaledown import cli, hub  # first, so that Ctrl-C ends quietly from here on

# isort: split
import argparse
import sys
from collections.abc import Sequence

QUESTIONS = ["Where is Fenoni Works based?", "Who wrote The Silent Harbour?",
             "How many inhabitants does Gartonby have?"]
DOCUMENTS = [
    "Fenoni Works sells clocks. The sign over the gate is painted blue. The firm is based in Kelhaven. Its staff "
    "numbers 341. On 3 May 1902 it took its first order. Orders are still written down by hand.",
    "The Silent Harbour is set in Dunmouth. Reviews were mixed at the time. The book was written by Vira Kelman. It "
    "runs to 412 pages. The cover shows a lamp and a window.",
    "Gartonby lies on the Pelara. Every May the town celebrates. Its best known product is cheese. A market is held "
    "there twice a week. It has 768 inhabitants. Gartonby elected Sarik Ulmer as mayor.",
]


def build_parser() -> argparse.ArgumentParser:
    """Return the script's flags."""
    parser = cli.new_parser(__doc__)
    cli.add_checkpoint(parser)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Compress, answer, and compare with the full text."""
    args = build_parser().parse_args(argv)
    hub.check_checkpoint(args.checkpoint)

    # Loads torch, which takes seconds.
    from scaledown import ScaleDownModel

    cli.tell(f"loading {args.checkpoint} ...")
    model = ScaleDownModel.from_pretrained(args.checkpoint)
    documents = [DOCUMENTS] * len(QUESTIONS)

    # A baseline that was trained on full text (--compressor_type none) has nothing to compress with.
    if model.config.reads_text:
        answers = model.answer(QUESTIONS, documents, max_new_tokens=16)
        print("\n".join(f"{question}\n  from full text, tuned: {answer}"
                        for question, answer in zip(QUESTIONS, answers, strict=True)))
        return 0

    memory = model.compress(QUESTIONS, documents)
    print(f"{len(DOCUMENTS)} documents a question became memory embeddings of shape {tuple(memory.embeddings.shape)}: "
          "questions, documents, memory tokens, width")

    # The prompt is read once; decoding then goes on from its keys and values.
    full_text = model.prefill_text(QUESTIONS, documents)
    compressed = model.prefill(QUESTIONS, memory)
    print(f"the generator reads {sum(compressed.num_prompt_tokens)} positions instead of "
          f"{sum(full_text.num_prompt_tokens)}\n")

    answers = model.decode(compressed, max_new_tokens=16)
    answers_from_text = model.decode(full_text, max_new_tokens=16)
    for question, answer, answer_from_text in zip(QUESTIONS, answers, answers_from_text, strict=True):
        print(f"{question}\n  from memory:    {answer}\n  from full text: {answer_from_text}")

    # Scores came with the memory, in the same pass.
    if model.config.enable_reranking:
        order, scores = model.rerank(QUESTIONS[0], DOCUMENTS)
        print(f"\nbest document for {QUESTIONS[0]!r}: {DOCUMENTS[order[0]][:40]}... (score {scores[order[0]]:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
