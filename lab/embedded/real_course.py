"""The course of a generator that is made from nothing to answer real questions, and its held-out figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lab.embedded.course import Course, Level
from lab.embedded.real_batches import RealMixture, RecordBatches
from scaledown.data.answers import answer_tokens
from scaledown.data.records import Record
from scaledown.prompt import Prompt, plain_ids

LEVELS = (
    Level(RealMixture((1, 1), list_share=1.0), is_deep=False, latest_end=0.1),
    Level(RealMixture((1, 2), list_share=0.1, query_first_share=0.0, cloze_share=1.0), is_deep=False, latest_end=0.25),
    Level(RealMixture((1, 1), cloze_share=0.1, num_blanks=8), latest_end=0.5),
    Level(RealMixture((2, 3), cloze_share=0.1, num_blanks=8), latest_end=0.7),
    Level(RealMixture((2, 5), cloze_share=0.1, num_blanks=8), latest_end=0.9),
    Level(RealMixture((2, 5), num_blanks=4)),
)
"""A small model never masters real questions, so levels end by time at the latest."""

EVALUATION = {
    "one_document": RealMixture((1, 1), query_first_share=0.0),
    "five_documents": RealMixture((5, 5), query_first_share=0.0),
    "query_first": RealMixture((1, 1), query_first_share=1.0),
    "continued_pieces": RealMixture((1, 2), query_first_share=0.0, cloze_share=1.0),
    "with_blanks": RealMixture((1, 1), query_first_share=0.0, num_blanks=8),
}

MEASURED_RECORDS = 64
MEASURE_BATCH = 4
NEW_TOKENS = 16


def real_course(tokenizer: PreTrainedTokenizerBase, train: Sequence[Record], held_out: Sequence[Record],
                seed: int) -> Course:
    """The course of ``train``; records that are ``held_out`` measure it.

    Raises:
        ValueError: where the documents of no record hold its answer.
    """
    answered = AnswerScores(tokenizer, held_out[:MEASURED_RECORDS])
    return Course(LEVELS, RecordBatches(tokenizer, train, seed), RecordBatches(tokenizer, held_out, seed), EVALUATION,
                  answered)


class AnswerScores:
    """Exact match and F1, as SQuAD counts them, of greedy answers to whole records: all their documents, in order."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, records: Sequence[Record]) -> None:
        self.tokenizer, self.records, self.prompt = tokenizer, records, Prompt(tokenizer)

    def __call__(self, model: LlamaForCausalLM) -> dict[str, float]:
        """``answered_exactly`` and ``answered_f1``, between 0 and 1."""
        exact, f1 = [], []
        for start in range(0, len(self.records), MEASURE_BATCH):
            records = self.records[start:start + MEASURE_BATCH]
            for record, answer in zip(records, self._answers(model, records), strict=True):
                scores = [_f1(answer_tokens(answer), answer_tokens(each)) for each in record.references]
                f1.append(max(scores))
                exact.append(any(answer_tokens(answer) == answer_tokens(each) for each in record.references))
        return {"answered_exactly": sum(exact) / len(exact), "answered_f1": sum(f1) / len(f1)}

    def _answers(self, model: LlamaForCausalLM, records: Sequence[Record]) -> list[str]:
        prompts = [self.prompt.trunk(plain_ids(self.tokenizer, record.documents)) + self.prompt.branch(record.query)
                   for record in records]
        batch = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(model.device)
        with torch.no_grad():
            said = model.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False)
        return self.tokenizer.batch_decode(said[:, batch["input_ids"].shape[1]:], skip_special_tokens=True)


def _f1(said: list[str], wanted: list[str]) -> float:
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted)) if common else float(said == wanted)
