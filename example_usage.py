"""The shortest true story: load a model, compress documents, answer from what is left of them.

    python example_usage.py [CHECKPOINT]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scaledown import ScaleDownModel, cli
from scaledown.config import EMBEDDED

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
    """The script's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default=EMBEDDED,
                        help="a folder that training wrote, a Hub id, or one that ships: 'embedded', or "
                             "'embedded_modernbert' (an encoder, which ranks nothing) [embedded]")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Compress, answer, and compare with the full text."""
    model = ScaleDownModel.from_pretrained(build_parser().parse_args(argv).checkpoint)
    documents = [DOCUMENTS] * len(QUESTIONS)

    memory = model.compress(QUESTIONS, documents)
    print(f"{len(DOCUMENTS)} documents a question became memory embeddings of shape {tuple(memory.embeddings.shape)}: "
          "questions, documents, memory tokens, width")

    full_text = model.prefill_text(QUESTIONS, documents)
    compressed = model.prefill(QUESTIONS, memory)
    print(f"the generator reads {sum(compressed.num_prompt_tokens)} positions instead of "
          f"{sum(full_text.num_prompt_tokens)}\n")

    from_memory = model.decode(compressed, max_new_tokens=16)
    from_text = model.decode(full_text, max_new_tokens=16)
    for question, ours, theirs in zip(QUESTIONS, from_memory, from_text, strict=True):
        print(f"{question}\n  from memory:    {ours}\n  from full text: {theirs}")

    if model.config.enable_reranking:
        order, scores = model.rerank(QUESTIONS[0], DOCUMENTS)
        print(f"\nbest document for {QUESTIONS[0]!r}: {DOCUMENTS[order[0]][:40]}... (score {scores[order[0]]:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
