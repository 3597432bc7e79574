"""A needle in a haystack: a paragraph that answers a question, hidden at any depth of a document of any length.

The other paragraphs are texts of the same kind, which neither hold the answer nor name what the needle is about. A
question has the same needle and the same other texts at every length and depth.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scaledown.data.records import Record
from scaledown.data.world.synthetic import Difficulty, synthetic_records
from scaledown.evaluation.robustness.sweeps import holds_answer
from scaledown.prompt.passages import TokenCounter
from scaledown.prompt.sentences import cut

ONE_DOCUMENT = Difficulty((1, 1), two_hop_share=0.0)
"""A question of the demo world with one document, which states several facts."""
PARAGRAPHS = "\n\n"
"""Between the needle and the other texts, each of which is a paragraph."""
DOCUMENTS_OF_A_RECORD, SHORTEST_TOKENS = 5, 40
"""Of the demo world's other documents: their number in a record, and the fewest tokens of one."""
SPARE = 1.5
"""Other documents that are made, as a multiple of those that fill the longest document: some do not serve."""


@dataclass(frozen=True)
class Haystack:
    """A question, the text that answers it, and other texts in the order in which they fill documents.

    Attributes:
        record: the question.
        needle: the text that answers it.
        needle_tokens: its length, with the blank line that parts it from others.
        others: texts about something else, each with its length.
    """

    record: Record
    needle: str
    needle_tokens: int
    others: tuple[tuple[str, int], ...]

    def of(self, length_tokens: int, depth: float, count_tokens: TokenCounter) -> Record:
        """Return the question with one document of at most ``length_tokens``, the needle at ``depth`` (0: first).

        If the needle has more tokens itself, it is the document.
        """
        texts, room = [], length_tokens - self.needle_tokens
        for text, num_tokens in self.others:
            if num_tokens > room:
                # Of the last one as many sentences as fit: each begins by naming what it is about.
                texts += first_sentences(text, room - count_tokens([PARAGRAPHS])[0], count_tokens)
                break
            texts.append(text)
            room -= num_tokens

        place = round(depth * len(texts))
        document = PARAGRAPHS.join([*texts[:place], self.needle, *texts[place:]])
        # Scores, ids and titles belong to the record's own documents.
        return dataclasses.replace(self.record, documents=(document,), reranking_scores=None, document_ids=None,
                                   titles=None)


def first_sentences(text: str, room: int, count_tokens: TokenCounter) -> list[str]:
    """Return the sentences at the start of ``text`` that fit into ``room`` tokens, as one text; none if none fits."""
    if room < 1:
        return []
    start, end = cut(text, (), _word_counter(count_tokens), room)[0]
    sentences = text[start:end]
    # Where no whole sentence fits, the cut is inside the first one.
    return [sentences] if sentences.endswith((".", "!", "?")) else []


def demo_records(num_needles: int, longest_tokens: int, seed: int) -> tuple[list[Record], list[str]]:
    """Return questions of the demo world with one document each, and other documents that fill ``longest_tokens``."""
    needles = list(synthetic_records(num_needles, seed, split="eval", difficulty=ONE_DOCUMENT))
    num_others = round(SPARE * longest_tokens / SHORTEST_TOKENS / DOCUMENTS_OF_A_RECORD) + 1
    return needles, documents_of(synthetic_records(num_others, seed + 1, split="eval"))


def documents_of(records: Iterable[Record]) -> list[str]:
    """Return the documents of all records."""
    documents: list[str] = []
    for record in records:
        documents += record.documents
    return documents


def haystacks(records: Sequence[Record], others: Sequence[str], num_needles: int, longest_tokens: int,
              count_tokens: TokenCounter, seed: int) -> list[Haystack]:
    """Return the first ``num_needles`` questions that have exactly one document with their answer: the needle.

    Args:
        records: the questions with their documents.
        others: texts to hide needles in; those that hold a question's answer or name its subject are not used for it.
        num_needles: the number of questions.
        longest_tokens: the longest document to be filled.
        count_tokens: returns the numbers of tokens of texts.
        seed: of the order of the other texts.

    Raises:
        ValueError: if no question has such a document, or the other texts do not fill the longest document.
    """
    others = list(dict.fromkeys(others))
    num_tokens = dict(zip(others, count_tokens([f"{PARAGRAPHS}{text}" for text in others]), strict=True))

    found: list[Haystack] = []
    for record in records:
        gold = [number for number, document in enumerate(record.documents) if holds_answer(document, record)]
        if len(gold) != 1 or len(found) == num_needles:
            continue

        # Synthetic records and those of most datasets say what a document is about.
        needle = record.documents[gold[0]]
        subject = record.titles[gold[0]] if record.titles else None

        # In a random order of the question's own, until the longest document is full.
        rng = random.Random(f"{seed}-{record.id}")
        chosen, room = [], longest_tokens
        for text in rng.sample(others, len(others)):
            if room <= 0:
                break
            if holds_answer(text, record) or (subject and subject in text) or text in record.documents:
                continue
            chosen.append((text, num_tokens[text]))
            room -= num_tokens[text]
        if room > 0:
            raise ValueError(f"--lengths {longest_tokens}: the documents of the other questions have only "
                             f"{longest_tokens - room:,} tokens to hide the answer of {record.id} in; give shorter "
                             "--lengths, or more records")
        found.append(Haystack(record, needle, count_tokens([f"{PARAGRAPHS}{needle}"])[0], tuple(chosen)))

    if not found:
        raise ValueError(f"none of the {len(records)} questions has exactly one document that holds its answer, to be "
                         "hidden as a needle")
    return found


def _word_counter(count_tokens: TokenCounter) -> Callable[[str], int]:
    return lambda word: count_tokens([f" {word}"])[0]
