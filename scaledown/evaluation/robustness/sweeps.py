"""What a question is put through: more documents, other places of the right one, likeness, length, fewer embeddings.

Each question has one document that holds its answer. The others are its own (found for the same question, so much
like the right one), and where those do not suffice, documents of other questions.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scaledown.data.records import Record
from scaledown.data.sentences import WORD
from scaledown.evaluation.metrics import accuracy
from scaledown.evaluation.systems import FULL_TEXT, SCALEDOWN, System, scaledown_with, truncated_text_with

NUM_DOCUMENTS = 5
"""Documents of a question where their number is not what varies, as in training (paper, section 4)."""
NUMBERS_OF_DOCUMENTS = (1, 2, 5, 10, 20, 50)
PLACES_AMONG = 10
PLACES = (1, 3, 5, 8, 10)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
LENGTHS = (0.0, 0.5, 0.75, 1.0)

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Case:
    """A question with the document that answers it, those that look like it, and some about something else."""

    record: Record
    gold: str
    alike: tuple[str, ...]
    others: tuple[str, ...]

    def rng(self) -> random.Random:
        """Draws that depend on the question alone, so that each setting differs in one thing."""
        return random.Random(self.record.id)

    def ask(self, documents: Sequence[str]) -> Record:
        """The question with these documents."""
        return dataclasses.replace(self.record, documents=tuple(documents), reranking_scores=None, document_ids=None,
                                   titles=None)


@dataclass(frozen=True)
class Setting:
    """One point of a sweep: the questions as they are asked there, and who answers them."""

    sweep: str
    value: float
    records: tuple[Record, ...]
    systems: Mapping[str, System]


def holds_answer(document: str, record: Record) -> bool:
    """Whether one of the gold answers stands in ``document``."""
    return any(accuracy(document, reference) for reference in record.references)


def cases(records: Sequence[Record], num_cases: int, seed: int) -> list[Case]:
    """The first ``num_cases`` questions of which exactly one document holds the answer.

    Raises:
        ValueError: where there are none.
    """
    pool = [document for record in records for document in record.documents]
    found: list[Case] = []
    for record in records:
        gold = [document for document in record.documents if holds_answer(document, record)]
        if len(gold) != 1 or len(found) == num_cases:
            continue
        rng = random.Random(f"{seed}-{record.id}")
        drawn = rng.sample(pool, min(len(pool), 3 * max(NUMBERS_OF_DOCUMENTS)))
        others = [each for each in drawn if each not in record.documents and not holds_answer(each, record)]
        alike = tuple(each for each in record.documents if each != gold[0])
        found.append(Case(record, gold[0], alike, tuple(dict.fromkeys(others))[:max(NUMBERS_OF_DOCUMENTS)]))
    if not found:
        raise ValueError(f"none of the {len(records)} questions has exactly one document that holds its answer; the "
                         "sweeps need that")
    return found


def of_number(case: Case, num_documents: float) -> Record:
    """The right document anywhere among so many, those most like it first."""
    return case.ask(_with_gold(case, (case.alike + case.others)[:int(num_documents) - 1]))


def at_place(case: Case, place: float) -> Record:
    """The right document at place 1 to ``PLACES_AMONG``."""
    documents = list((case.alike + case.others)[:PLACES_AMONG - 1])
    documents.insert(int(place) - 1, case.gold)
    return case.ask(documents)


def of_likeness(case: Case, share: float) -> Record:
    """Of the wrong documents this share was found for the same question; the others are about something else."""
    num_wrong = NUM_DOCUMENTS - 1
    alike = case.alike[:round(share * num_wrong)]
    return case.ask(_with_gold(case, alike + case.others[:num_wrong - len(alike)]))


def of_length(case: Case, num_tokens: float, count_tokens: CountTokens) -> Record:
    """Each document filled up to ``num_tokens`` with text about something else, before it or behind it."""
    rng, spare = case.rng(), list(case.others[NUM_DOCUMENTS:])
    documents = _with_gold(case, (case.alike + case.others)[:NUM_DOCUMENTS - 1])
    return case.ask([_filled(document, int(num_tokens), spare, count_tokens, rng.random() < 0.5)
                     for document in documents])


def settings(cases_: Sequence[Case], choices: Sequence[int], document_tokens: int,
             count_tokens: CountTokens) -> list[Setting]:
    """Every point of every sweep.

    Args:
        choices: numbers of memory tokens that the model is trained for.
        document_tokens: longest document that it reads.
        count_tokens: tokens of a text.
    """
    both = {"scaledown": SCALEDOWN, "full_text": FULL_TEXT}
    cut = {"truncated_text": truncated_text_with(max(choices))}

    def sweep(name: str, values: Sequence[float], ask: Callable[[Case, float], Record],
              systems: Mapping[str, System]) -> list[Setting]:
        return [Setting(name, value, tuple(ask(case, value) for case in cases_), systems) for value in values]

    lengths = [round(share * document_tokens) for share in LENGTHS]
    usual = tuple(of_number(case, NUM_DOCUMENTS) for case in cases_)
    return [*sweep("num_documents", NUMBERS_OF_DOCUMENTS, of_number, both | cut),
            *sweep("gold_place", PLACES, at_place, both), *sweep("alike_share", SHARES, of_likeness, both),
            *sweep("document_tokens", lengths, lambda case, tokens: of_length(case, tokens, count_tokens), both),
            *(Setting("num_memory_tokens", number, usual, {
                "scaledown": scaledown_with(number), "truncated_text": truncated_text_with(number)})
              for number in choices if len(choices) > 1)]


def _with_gold(case: Case, wrong: Sequence[str]) -> list[str]:
    documents = [case.gold, *wrong]
    case.rng().shuffle(documents)
    return documents


def _filled(document: str, num_tokens: int, spare: list[str], count_tokens: CountTokens, is_behind: bool) -> str:
    """``document`` with words of ``spare`` texts (taken from the list) around it, up to ``num_tokens``."""
    room = num_tokens - count_tokens(document)
    words: list[str] = []
    while room > 0 and spare:
        for word in WORD.findall(spare.pop()):
            room -= count_tokens(f" {word}")
            if room < 0:
                break
            words.append(word)
    filler = " ".join(words)
    return " ".join(filter(None, [document, filler] if is_behind else [filler, document]))
