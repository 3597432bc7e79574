"""A preparation in words: the records, the lengths of their documents, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import mean

from scaledown.data.qa.datasets import Prepared
from scaledown.data.records import Record
from scaledown.prompt.passages import TokenCounter


def describe_source(dataset: Prepared) -> str:
    """Return what one dataset gave, and what was left out and why, one reason a line."""
    lines = [f"{dataset.dataset}: {len(dataset.train)} training and {len(dataset.eval)} evaluation records from "
             f"{dataset.description}"]

    # The commonest reasons first.
    lines += [f"  {count} left out: {reason}" for reason, count in dataset.dropped.most_common()]
    lines += [f"  a file left out: {reason}" for reason in dataset.left_out_files]
    return "\n".join(lines)


def describe_left_out(datasets: Sequence[Prepared]) -> str:
    """Return how many questions were left out in all datasets together, and why, as the end of a sentence."""
    dropped = sum((dataset.dropped for dataset in datasets), Counter())
    if not dropped:
        return ""
    reasons = "; ".join(f"{count} because {reason}" for reason, count in dropped.most_common())
    return f"; {dropped.total()} were left out: {reasons}"


def describe_records(records: Sequence[Record], num_documents: int, count_tokens: TokenCounter) -> str:
    """Return the number of records and documents, and how long the documents are.

    Args:
        records: of one half.
        num_documents: documents that a record should have.
        count_tokens: the tokenizer's.
    """
    # Counted in one call: tokenizers are fastest on many texts at once.
    documents: list[str] = []
    for record in records:
        documents += record.documents
    tokens = count_tokens(documents)
    text = (f"{len(records)} records, {len(documents) / len(records):.1f} documents each ({mean(tokens):.0f} tokens on "
            f"average, {max(tokens)} at most)")

    num_short = sum(len(record.documents) < num_documents for record in records)
    if num_short:
        text += f"; {num_short} have fewer than {num_documents}, for want of hard negatives"
    return text
