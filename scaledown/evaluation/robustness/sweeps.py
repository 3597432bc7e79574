"""The robustness sweeps: more documents, other places of the right one, look-alikes, length, fewer memory tokens.

Each question has one document that holds its answer, the gold one. The others are look-alikes (found for the same
question, so much like the right one) and, if those do not suffice, documents of other questions.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scaledown import processes
from scaledown.data.records import Record
from scaledown.evaluation.metrics import accuracy
from scaledown.evaluation.systems import FULL_TEXT, SCALEDOWN, System, scaledown_with, truncated_text_with
from scaledown.prompt.sentences import WORD

NUM_DOCUMENTS = 5
"""Documents of a question in all sweeps that do not vary their number, as in training (paper, section 4)."""
NUMBERS_OF_DOCUMENTS = (1, 2, 5, 10, 20, 50)
PLACES_AMONG = 10
PLACES = (1, 3, 5, 8, 10)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
LENGTHS = (0.0, 0.5, 0.75, 1.0)
NEARLY = 0.9
"""Share of a length that documents must reach on average: whole words seldom fill it exactly."""
CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Case:
    """A question with the document that answers it, its look-alikes, and documents about something else."""

    record: Record
    gold: str
    alike: tuple[str, ...]
    others: tuple[str, ...]

    def rng(self) -> random.Random:
        """Return a generator that depends on the question alone, so that settings differ in one thing only."""
        return random.Random(self.record.id)

    def ask(self, documents: Sequence[str]) -> Record:
        """Return the question with these documents."""
        # Scores, ids and titles belong to the record's own documents.
        return dataclasses.replace(self.record, documents=tuple(documents), reranking_scores=None, document_ids=None,
                                   titles=None)


@dataclass(frozen=True)
class Setting:
    """One point of a sweep: the questions as they are asked there, and the systems that answer them."""

    sweep: str
    value: float
    records: tuple[Record, ...]
    systems: Mapping[str, System]


def holds_answer(document: str, record: Record) -> bool:
    """Return whether ``document`` contains one of the gold answers."""
    return any(accuracy(document, reference) for reference in record.references)


def cases(records: Sequence[Record], num_cases: int, seed: int) -> list[Case]:
    """Return the first ``num_cases`` questions that have exactly one document with the answer.

    Raises:
        ValueError: if no question has.
    """
    pool = list(itertools.chain.from_iterable(record.documents for record in records))
    most = max(NUMBERS_OF_DOCUMENTS)

    chosen: list[Case] = []
    for record in records:
        gold = [document for document in record.documents if holds_answer(document, record)]
        if len(gold) != 1 or len(chosen) == num_cases:
            continue
        look_alikes = tuple(document for document in record.documents if document != gold[0])

        # Three times the documents needed, since some of those drawn do not serve.
        rng = random.Random(f"{seed}-{record.id}")
        drawn = rng.sample(pool, min(len(pool), 3 * most))
        others = [document for document in drawn
                  if document not in record.documents and not holds_answer(document, record)]
        chosen.append(Case(record, gold[0], look_alikes, tuple(dict.fromkeys(others))[:most]))

    if not chosen:
        raise ValueError(f"none of the {len(records)} questions has exactly one document that holds its answer; the "
                         "sweeps need that")
    return chosen


def of_number(case: Case, num_documents: float) -> Record:
    """Return the question with the right document anywhere among this many, look-alikes before others."""
    return case.ask(_with_gold(case, (case.alike + case.others)[:int(num_documents) - 1]))


def at_place(case: Case, place: float) -> Record:
    """Return the question with the right document at ``place``, 1 to ``PLACES_AMONG``."""
    documents = list((case.alike + case.others)[:PLACES_AMONG - 1])
    documents.insert(int(place) - 1, case.gold)
    return case.ask(documents)


def of_likeness(case: Case, share: float) -> Record:
    """Return the question with this share of look-alikes among the wrong documents."""
    num_wrong = NUM_DOCUMENTS - 1
    alike = case.alike[:round(share * num_wrong)]
    return case.ask(_with_gold(case, alike + case.others[:num_wrong - len(alike)]))


def of_length(case: Case, num_tokens: float, count_tokens: CountTokens) -> Record:
    """Return the question with each document filled up to ``num_tokens`` by other text before or after it."""
    rng = case.rng()
    documents = _with_gold(case, (case.alike + case.others)[:NUM_DOCUMENTS - 1])

    # Documents that are not among these serve as filler, each for one document at most.
    spare = list(case.others[NUM_DOCUMENTS:])
    longer = []
    for document in documents:
        longer.append(_lengthened(document, int(num_tokens), spare, count_tokens, is_after=rng.random() < 0.5))
    return case.ask(longer)


def settings(cases_: Sequence[Case], choices: Sequence[int], document_tokens: int,
             count_tokens: CountTokens) -> list[Setting]:
    """Return every point of every sweep that all questions can fill; a warning names those that are left out.

    Args:
        cases_: the questions, the same at every point.
        choices: numbers of memory tokens that the model is trained for.
        document_tokens: the longest document that it reads.
        count_tokens: returns the number of tokens of a text.
    """
    both = {"scaledown": SCALEDOWN, "full_text": FULL_TEXT}
    cut = {"truncated_text": truncated_text_with(max(choices))}

    left_out: list[str] = []

    def sweep(name: str, values: Sequence[float], ask: Callable[[Case, float], Record],
              systems: Mapping[str, System], is_filled: Callable[[Case, Record, float], bool]) -> list[Setting]:
        points = []
        for value in values:
            records = tuple(ask(case, value) for case in cases_)
            # The same questions at every point, so one that falls short costs the point.
            if all(is_filled(case, record, value) for case, record in zip(cases_, records, strict=True)):
                points.append(Setting(name, value, records, systems))
            else:
                left_out.append(f"{name} {value:g}")
        return points

    def ask_length(case: Case, num_tokens: float) -> Record:
        return of_length(case, num_tokens, count_tokens)

    def has_length(_: Case, record: Record, num_tokens: float) -> bool:
        tokens = sum(map(count_tokens, record.documents))
        return tokens >= NEARLY * num_tokens * len(record.documents)

    lengths = [round(share * document_tokens) for share in LENGTHS]  # 0 leaves the documents as they are
    points = [*sweep("num_documents", NUMBERS_OF_DOCUMENTS, of_number, both | cut, _has_documents),
              *sweep("gold_place", PLACES, at_place, both, _has_documents),
              *sweep("alike_share", SHARES, of_likeness, both, _has_share),
              *sweep("document_tokens", lengths, ask_length, both, has_length)]
    if left_out:
        num_documents = min(1 + len(case.alike) + len(case.others) for case in cases_)
        num_alike = min(len(case.alike) for case in cases_)
        processes.warn(f"points left out, since not every question can fill them: {', '.join(left_out)}; the fewest "
                       f"documents of a question are {num_documents}, with those that other questions lend it, and the "
                       f"fewest look-alikes {num_alike}; more and longer records in --eval_data fill more")

    # Here the questions stay the same and the systems change: the budget of both is the number of memory tokens.
    if len(choices) > 1:
        records = tuple(of_number(case, NUM_DOCUMENTS) for case in cases_)
        for number in choices:
            points.append(Setting("num_memory_tokens", number, records, {
                "scaledown": scaledown_with(number), "truncated_text": truncated_text_with(number)}))

    return points


def _has_documents(_: Case, record: Record, num_documents: float) -> bool:
    return len(record.documents) >= num_documents


def _has_share(case: Case, _: Record, share: float) -> bool:
    num_alike = round(share * (NUM_DOCUMENTS - 1))
    return len(case.alike) >= num_alike and len(case.others) >= NUM_DOCUMENTS - 1 - num_alike


def _with_gold(case: Case, wrong: Sequence[str]) -> list[str]:
    documents = [case.gold, *wrong]
    case.rng().shuffle(documents)  # the same permutation at every point with this many documents
    return documents


def _lengthened(document: str, num_tokens: int, spare: list[str], count_tokens: CountTokens, is_after: bool) -> str:
    """Return ``document`` with words of ``spare`` texts (removed from the list) added, up to ``num_tokens``."""
    room = num_tokens - count_tokens(document)  # negative if it is longer already
    words: list[str] = []
    while room > 0 and spare:
        for word in WORD.findall(spare.pop()):
            room -= count_tokens(f" {word}")
            if room < 0:
                break
            words.append(word)

    filler = " ".join(words)
    if not filler:
        return document
    return f"{document} {filler}" if is_after else f"{filler} {document}"
