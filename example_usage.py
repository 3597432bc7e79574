"""The shortest true story: load, compress, answer.

The model answers questions from the memory of three documents, and from their full text. The demo is asked about its
made-up world, other checkpoints about ours.

    python example_usage.py
    python example_usage.py --checkpoint smollm2
"""

from __future__ import annotations

from scaledown import cli, hub  # first, so that Ctrl-C ends quietly from here on

# isort: split
import argparse
import sys
from collections.abc import Sequence

from scaledown.config import EMBEDDED

DEMO_QUESTIONS = ["Where is Fenoni Works based?", "Who wrote The Silent Harbour?",
                  "How many inhabitants does Gartonby have?"]
DEMO_DOCUMENTS = [
    "Fenoni Works sells clocks. The sign over the gate is painted blue. The firm is based in Kelhaven. Its staff "
    "numbers 341. On 3 May 1902 it took its first order. Orders are still written down by hand.",
    "The Silent Harbour is set in Dunmouth. Reviews were mixed at the time. The book was written by Vira Kelman. It "
    "runs to 412 pages. The cover shows a lamp and a window.",
    "Gartonby lies on the Pelara. Every May the town celebrates. Its best known product is cheese. A market is held "
    "there twice a week. It has 768 inhabitants. Gartonby elected Sarik Ulmer as mayor.",
]
QUESTIONS = ["Who discovered penicillin?", "Who founded the company that dug the Suez Canal?",
             "Which river leaves Lake Titicaca?"]
DOCUMENTS = [
    "Penicillin. In September 1928 the bacteriologist Alexander Fleming came back from a holiday to his laboratory in "
    "London and found that mould had killed the bacteria in a dish that he had left open. It took until 1942 before "
    "the drug could be made in quantity, by a team in Oxford around Howard Florey and Ernst Chain.",
    "Suez Canal. Ferdinand de Lesseps, a French diplomat, founded the company that dug the canal between the "
    "Mediterranean and the Red Sea. The work began in 1859 and took ten years; the canal opened in November 1869. It "
    "shortened the way from London to Bombay by 7,000 kilometres.",
    "Lake Titicaca. The lake lies between Peru and Bolivia, 3,812 metres above the sea, and is often called the "
    "highest lake on which large ships sail. Its water flows into a single river, the Desaguadero.",
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
    questions, documents = QUESTIONS, DOCUMENTS
    if model.config.generator_model == EMBEDDED:
        questions, documents = DEMO_QUESTIONS, DEMO_DOCUMENTS

    # A baseline that was trained on full text (--compressor_type none) has nothing to compress with.
    documents_of = [documents] * len(questions)
    if model.config.reads_text:
        answers = model.answer(questions, documents_of, max_new_tokens=16)
        for question, answer in zip(questions, answers, strict=True):
            print(f"{question}\n  from full text, tuned: {answer}")
        return 0

    memory = model.compress(questions, documents_of)
    print(f"{len(documents)} documents a question became memory embeddings of shape {tuple(memory.embeddings.shape)}: "
          "questions, documents, memory tokens, width")

    # The prompt is read once; decoding then goes on from its keys and values.
    full_text = model.prefill_text(questions, documents_of)
    compressed = model.prefill(questions, memory)
    print(f"the generator reads {sum(compressed.num_prompt_tokens)} positions instead of "
          f"{sum(full_text.num_prompt_tokens)}\n")

    answers = model.decode(compressed, max_new_tokens=16)
    answers_from_text = model.decode(full_text, max_new_tokens=16)
    for question, answer, answer_from_text in zip(questions, answers, answers_from_text, strict=True):
        print(f"{question}\n  from memory:    {answer}\n  from full text: {answer_from_text}")

    # Scores came with the memory, in the same pass.
    if model.config.enable_reranking:
        order, scores = model.rerank(questions[0], documents)
        print(f"\nbest document for {questions[0]!r}: {documents[order[0]][:40]}... (score {scores[order[0]]:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
