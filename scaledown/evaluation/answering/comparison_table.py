"""The systems of the answering command, measured one by one, and their table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

import torch

from scaledown import hub
from scaledown.config import EvaluationConfig, ScaleDownConfig
from scaledown.data.records import Record
from scaledown.evaluation.answering.text_beside_memory import expanding, with_text_of
from scaledown.evaluation.answering.tuned_text import TUNED
from scaledown.evaluation.evaluator import SystemResult, evaluate_system
from scaledown.evaluation.figures.text_tables import console_table, score
from scaledown.evaluation.metrics import METRICS, interval_text
from scaledown.evaluation.systems import (
    BASELINES,
    FULL_TEXT,
    NO_DOCUMENTS,
    SCALEDOWN,
    TRUNCATED_TEXT,
    WITHOUT_QUERY,
    System,
    keeping,
)
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.choosing import check_keep_documents
from scaledown.models.serving.expanding import threshold_of
from scaledown.training import run

UNTRAINED = " (not trained)"
LABELS = {NO_DOCUMENTS.name: "no documents, untuned", TRUNCATED_TEXT.name: "cut text, untuned",
          FULL_TEXT.name: "full text, untuned"}
"""What the tables call the baselines: the generator as it was, which no training has taught the form of an answer."""


def results(args: argparse.Namespace, device: torch.device, config: EvaluationConfig,
            records: Sequence[Record]) -> Iterator[tuple[str, SystemResult]]:
    """Yield each system's name and result as it is measured."""
    most_documents = max(len(record.documents) for record in records)
    # All of them before minutes of answering.
    for name in args.checkpoint:
        known = hub.checkpoint_config(name)
        if known is not None:
            _check_choices(name, known, args, most_documents)

    for number, name in enumerate(args.checkpoint):
        model = ScaleDownModel.from_pretrained(name, device=device, dtype=args.dtype)
        model.long_documents = args.long_documents
        _check_choices(name, model.config, args, most_documents)

        # Baselines switch the adapter off, so any checkpoint of this generator gives the same answers.
        if number == 0 and args.baselines:
            for system in BASELINES:
                yield system.name, evaluate_system(model, system, records, config, args.seed)

        if model.config.reads_text:
            # It has no other documents to keep, and before its training it is the full text, untuned.
            for label, system in TUNED.items():
                yield f"{name} ({label})", evaluate_system(model, system, records, config, args.seed)
            continue

        if args.untrained:
            new = run.build_model(model.config, device, args.seed, dtype=args.dtype)
            new.long_documents = args.long_documents
            yield name + UNTRAINED, evaluate_system(new, SCALEDOWN, records, config, args.seed)

        for way, system in _ways(args).items():
            yield name + way, evaluate_system(model, system, records, config, args.seed)


def _ways(args: argparse.Namespace) -> dict[str, System]:
    """Return the ways in which each checkpoint is measured, by what the table has behind its name."""
    ways = {"": SCALEDOWN}
    if args.without_query:
        ways[" (without query)"] = WITHOUT_QUERY
    for count in args.keep_documents:
        ways[f" ({count} kept)"] = keeping(count)
    for count in args.text_documents:
        ways[f" (text of {count})"] = with_text_of(count)
    for count in args.expand:
        ways[f" (text of {count} if unsure)"] = expanding(count)
    return ways


def _check_choices(name: str, config: ScaleDownConfig, args: argparse.Namespace, most_documents: int) -> None:
    """Refuse choices of documents that this checkpoint cannot make.

    Args:
        most_documents: the largest number of documents of a question.
    """
    if config.reads_text:
        return

    # The flag that is at fault is named by the one that was being checked.
    flag = "--keep_documents"
    try:
        for count in args.keep_documents:
            check_keep_documents(count, config.enable_reranking, config.keep_threshold)
        flag = "--text_documents"
        if not config.enable_reranking and any(count < most_documents for count in args.text_documents):
            raise ValueError("this model has no reranking head to choose documents by; train one with "
                             f"--enable_reranking, or give {most_documents}, for all documents as text")
        flag = "--expand"
        if args.expand:
            threshold_of(config, None)
    except ValueError as fault:
        raise ValueError(f"{flag} with --checkpoint {name}: {fault}") from None


def table(found: Mapping[str, SystemResult]) -> str:
    """Return one row per system: each metric with its 95% interval below it, and the prompt's length in tokens."""
    rows = []
    for name, result in found.items():
        cells = []
        for metric in METRICS:
            mean, ends = result.averages[f"{metric}_avg"], result.averages[f"{metric}_ci95"]
            cells.append(f"{score(mean)}\n{interval_text(ends)}")
        rows.append([LABELS.get(name, name), *cells, f"{result.mean_prompt_tokens:.1f}"])

    num_questions = max(len(result.questions) for result in found.values())  # the same of all
    header = [f"n = {num_questions}", *(metric.name for metric in METRICS.values()), "prompt\ntokens"]
    return console_table(header, rows)
